"""Stretches of a recorded run replayed once more for the rows that its capture left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracekit.formats.errors import TracekitError
from tracekit.formats.history import captured_backwards
from tracekit.formats.reader import Trace
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.wanted import Wanted


class ReplayDiverged(TracekitError):
    """A stretch does not replay as it was recorded, so that nothing that it shows can be trusted. Exit code 3: inconclusive."""

    exit_code = 3


class _Newest:
    """A replay's rows, of which only the newest wanted writes are kept."""

    def __init__(self, begin: int, wanted: Wanted) -> None:
        self._begin = begin
        self._wanted = wanted
        self.rows: list[tuple[Any, ...]] = []  # the newest first

    def append(self, table: str, row: tuple[Any, ...]) -> None:
        """A row of a thin capture."""
        if table == "memory_writes" and row[0] >= self._begin:
            if row[5] < self._wanted.end and row[5] + row[6] > self._wanted.begin:
                self.rows = self._wanted.newest([row, *self.rows])

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Captured rows."""
        if table != "memory_writes":
            return
        found = captured_backwards(columns, count, self._wanted.begin, self._wanted.end)
        new = self._wanted.newest(row for row in found if row[0] >= self._begin)
        if new:
            self.rows = self._wanted.newest([*new, *self.rows])


def replayed_writes(trace: Trace, begin: int, end: int, wanted: Wanted) -> list[tuple[Any, ...]]:
    """The newest wanted writes at positions [begin, end), rows of `memory_writes`, the newest first.

    Errors: ReplayDiverged, TraceDamaged.
    """
    newest = _Newest(begin, wanted)
    session = Replay(trace, ReplayOptions(capture="writes", to_position=end), writer=newest)
    try:
        check(session.run(), trace)
    finally:
        session.board.close()
    return newest.rows


def check(result: Result, trace: Trace) -> None:
    """Errors: ReplayDiverged."""
    if result.divergence is not None:
        raise ReplayDiverged(
            f"{trace.path}: the replay diverged at position {result.divergence.position:,} ({result.divergence.what}); "
            f"`tracekit replay` tells more"
        )
