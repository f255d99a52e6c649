"""How much processor time the intervals between a trace's checkpoints took: a cache that balances parallel work.

It lies outside the trace and may be lost, unreadable, wrong or read-only: nothing but balance depends on it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FOLDER_VARIABLE = "TRACEKIT_TIMINGS"  # names the cache's folder; empty: no cache
FILE_BYTES_MAX = 1 << 16
FILES_MAX = 256
SECONDS_MAX = 1e9


def folder() -> Path | None:
    """Where timings are kept: $TRACEKIT_TIMINGS, or tracekit/timings in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracekit" / "timings"
    except RuntimeError:  # no home
        return None


def load(key: str, count: int) -> tuple[float, ...] | None:
    """Seconds of each of `count` intervals, None where that is not known."""
    place = folder()
    if place is None:
        return None
    path = place / f"{key}.json"
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            seconds = json.loads(file.read(FILE_BYTES_MAX))["seconds"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(float(one) for one in seconds) if _is_possible(seconds, count) else None


def _is_possible(seconds: object, count: int) -> bool:
    return (
        isinstance(seconds, list)
        and len(seconds) == count
        and all(isinstance(one, int | float) and 0 <= one < SECONDS_MAX for one in seconds)
    )


def keep(key: str, count: int, laps: Mapping[int, float]) -> None:
    """Remember the laps of intervals, by number; of two that are known the shorter one counts, as it had less to translate anew."""
    known = load(key, count)
    if known is None and len(laps) < count:
        return
    merged = [
        lap if known is None else min(known[n], lap)
        for n, lap in ((n, laps[n] if known is None else laps.get(n, known[n])) for n in range(count))
    ]
    place = folder()
    if place is None or (known is not None and tuple(merged) == known):
        return
    temporary = place / f"{key}.{os.getpid()}.new"
    try:
        place.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"seconds": [round(one, 6) for one in merged]}))
        temporary.replace(place / f"{key}.json")
        _drop_old(place)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _drop_old(place: Path) -> None:
    files = list(place.glob("*.json"))
    if len(files) > FILES_MAX:
        for file in sorted(files, key=lambda one: one.stat().st_mtime)[: len(files) - FILES_MAX]:
            file.unlink(missing_ok=True)


class Stopwatch:
    """Processor time of this process, lap by lap."""

    def __init__(self) -> None:
        self.laps: dict[int, float] = {}
        self._last = time.process_time()

    def lap(self, number: int) -> None:
        """Interval `number` has ended just now."""
        now = time.process_time()
        self.laps[number] = max(0.0, now - self._last)
        self._last = now
