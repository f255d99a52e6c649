"""Stretches of a recorded run replayed once more for the rows that its capture left out: from one checkpoint to the next, each on its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracekit.formats.captures import WHOLE_AT
from tracekit.formats.errors import TracekitError
from tracekit.formats.history import captured_backwards
from tracekit.formats.reader import Trace
from tracekit.formats.thick import thin_rows
from tracekit.replay.divergence import Divergence, Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.rows import RowWriter
from tracekit.replay.session import Replay
from tracekit.replay.wanted import Wanted


class ReplayDiverged(TracekitError):
    """A stretch does not replay as it was recorded, so that nothing that it shows can be trusted. Exit code 3: inconclusive."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one replay does: from checkpoint `start` (None: the beginning) to checkpoint `stop`, once it has agreed, or (None) to to_position,
    or (None too) to the end. Rows of positions [low, high) are its own (high None: all that come)."""

    start: int | None
    stop: int | None
    to_position: int | None
    low: int
    high: int | None


def stretches(trace: Trace, from_position: int, to_position: int | None, level: str) -> list[Stretch]:
    """What must be replayed, in order, for the rows of a capture level at positions [from_position, to_position) (None: to the end)."""
    entries = trace.checkpoints().entries
    places = [entry.position for entry in entries]
    first = bisect_right(places, from_position) - 1
    out: list[Stretch] = []
    for k in range(first, len(entries)):
        is_last = k + 1 == len(entries) or (to_position is not None and places[k + 1] >= to_position)
        low = from_position if k == first else places[k]
        start = None if k < 0 else k
        if is_last and k + 1 < len(entries) and places[k + 1] == to_position:
            out.append(Stretch(start, k + 1, None, low, to_position))
            break
        if is_last:
            out.append(Stretch(start, None, _settled(trace, to_position, level), low, to_position))
            break
        out.append(Stretch(start, k + 1, None, low, places[k + 1]))
    return out


def _settled(trace: Trace, position: int | None, level: str) -> int | None:
    """Where a replay may stop so that all rows before a position are whole: a straight run goes on behind it, at most to the next mark."""
    if position is None or position > int(trace.manifest["end"]["position"]):
        return None
    if level not in WHOLE_AT["blocks"]:
        return position
    if trace.manifest.get("machine", {}).get("marks") != "clear":
        return None
    return next((int(row[0]) for row in thin_rows(trace, "states", (position, 0))), None)


def replay_stretch(trace: Trace, stretch: Stretch, options: ReplayOptions, writer: RowWriter) -> Result:
    """Replay a stretch; its rows, and perhaps some around it, go to the writer. Errors: TraceDamaged."""
    chosen = replace(options, to_position=stretch.to_position)
    session = Replay(trace, chosen, start=stretch.start, stop=stretch.stop, writer=writer)
    try:
        return session.run()
    finally:
        session.board.close()


def diverged(trace: Trace, divergence: Divergence) -> ReplayDiverged:
    """What is raised where an answer would need a replay that agrees."""
    return ReplayDiverged(
        f"{trace.path}: the replay diverged at position {divergence.position:,} ({divergence.what}); `tracekit replay` tells more"
    )


class _Newest:
    """A replay's captured rows, of which only the newest wanted writes are kept."""

    def __init__(self, stretch: Stretch, wanted: Wanted) -> None:
        self._low, self._high = stretch.low, stretch.high
        self._wanted = wanted
        self.rows: list[tuple[Any, ...]] = []  # the newest first

    def append(self, table: str, row: tuple[Any, ...]) -> None:
        """A row of a thin capture: the recorded trace has it."""

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Captured rows."""
        if table != "memory_writes":
            return
        found = captured_backwards(columns, count, self._wanted.begin, self._wanted.end)
        high = self._high
        new = self._wanted.newest(row for row in found if self._low <= row[0] and (high is None or row[0] < high))
        if new:
            self.rows = self._wanted.newest([*new, *self.rows])


def replayed_writes(trace: Trace, low: int, high: int, wanted: Wanted) -> list[tuple[Any, ...]]:
    """The newest wanted writes at positions [low, high) that only a capture of all writes has: rows of `memory_writes`, the newest first.

    Errors: ReplayDiverged, TraceDamaged.
    """
    kept: list[tuple[Any, ...]] = []
    for stretch in stretches(trace, low, high, "writes"):
        newest = _Newest(stretch, wanted)
        result = replay_stretch(trace, stretch, ReplayOptions(capture="writes"), newest)
        if result.divergence is not None:
            raise diverged(trace, result.divergence)
        kept = wanted.newest([*newest.rows, *kept])
    return kept
