"""The accesses to a range of physical memory, found by replaying stretches between checkpoints with capture on.

A capture costs what `--capture writes` (for writes) or `--capture full` (for reads) costs over the stretches that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracekit.formats.history import captured_backwards
from tracekit.formats.reader import Trace
from tracekit.replay.divergence import Event
from tracekit.replay.options import ReplayOptions
from tracekit.replay.windows import Stretch, diverged, replay_stretch, stretches

Range = tuple[int, int]  # [begin, end), physical
ACCESSES_MAX = 100_000  # of one stretch


class _Found:
    """A replay's rows, of which the accesses at positions [low, high) are kept; of very many those at one end, see rest()."""

    def __init__(self, ranges: Mapping[str, Sequence[Range]], low: int, high: int, *, keeps_last: bool) -> None:
        self._ranges, self._low, self._high, self._keeps_last = ranges, low, high, keeps_last
        self.events: list[Event] = []

    def append(self, table: str, row: tuple[Any, ...]) -> None:
        """One row."""
        if any(row[5] < end and row[5] + row[6] > begin for begin, end in self._ranges.get(table, ())):
            self._add([Event(table, row)])

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Captured rows."""
        for begin, end in self._ranges.get(table, ()):
            rows = captured_backwards(columns, count, begin, end, table)
            self._add([Event(table, row) for row in rows])

    def _add(self, events: list[Event]) -> None:
        self.events += [event for event in events if self._low <= event.row[0] < self._high]
        if len(self.events) <= ACCESSES_MAX:
            return
        ordered = self.sorted()
        if self._keeps_last:  # what is at or before the middle goes
            self._low = ordered[len(ordered) // 2].row[0] + 1
        else:
            self._high = ordered[len(ordered) // 2].row[0]
        self.events = [event for event in ordered if self._low <= event.row[0] < self._high]

    def rest(self, low: int, high: int) -> tuple[int, int]:
        """Of the positions [low, high) that were asked for, the stretch that did not fit."""
        return (low, min(high, self._low)) if self._keeps_last else (max(low, self._high), high)

    def sorted(self) -> list[Event]:
        """In the order of the run."""
        return sorted(self.events, key=lambda event: (event.row[0], event.row[1]))


def accesses(
    trace: Trace, writes: Sequence[Range], reads: Sequence[Range], begin: int, end: int, *, backwards: bool = False
) -> Iterator[Event]:
    """The accesses at positions [begin, end) as rows of `memory_writes` and `memory_reads`, in order, or the last first.

    Errors: ReplayDiverged, TraceDamaged.
    """
    level = "full" if reads else "writes"
    ranges = {"memory_writes": writes, "memory_reads": reads}
    parts: list[Stretch] = stretches(trace, begin, end, level) if begin < end else []
    for part in reversed(parts) if backwards else parts:
        high = end if part.high is None else part.high
        found = _Found(ranges, part.low, high, keeps_last=backwards)
        result = replay_stretch(trace, part, ReplayOptions(capture=level), found)
        if result.divergence is not None:
            raise diverged(trace, result.divergence)
        yield from reversed(found.sorted()) if backwards else found.sorted()
        low, high = found.rest(part.low, high)
        yield from accesses(trace, writes, reads, low, high, backwards=backwards)
