"""Thick rows (sequence >= THICK_SEQUENCE) of a recorded table, compared in bulk with what a replay captures; and the thin ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracekit.formats import arrow
from tracekit.formats.arrow import Row
from tracekit.formats.reader import Trace
from tracekit.formats.tables import THICK_SEQUENCE

THICK = frozenset({"memory_writes", "memory_reads", "blocks"})  # tables that may hold thick rows
FEW_ROWS = 4096
Place = tuple[int, int]  # (position, sequence)


def thin_rows(trace: Trace, table: str, start: Place = (0, 0)) -> Iterator[Row]:
    """The rows that every capture level has, from a place on. Batches that end before it are not read. Errors: TraceDamaged."""
    for batch in trace.batches(table, from_position=start[0]):
        yield from _thin(table, batch.slice(_rows_before(batch, start)))


def thin_rows_before(trace: Trace, table: str, end: Place, from_position: int = 0) -> Iterator[Row]:
    """The rows that every capture level has before a place, the last first; batches that end before from_position are not read.

    Errors: TraceDamaged.
    """
    entries = trace.manifest["tables"][table]["batches"]
    for index in reversed(range(len(entries))):
        first, last = entries[index]["position"]
        if first > end[0]:
            continue
        if last < from_position:
            return
        batch = trace.batch(table, index)
        yield from reversed(list(_thin(table, batch.slice(0, _rows_before(batch, end)))))


def _thin(table: str, batch: Any) -> Iterator[Row]:
    if table not in THICK:
        return arrow.rows_of(batch)
    if batch.num_rows <= FEW_ROWS:  # not worth the import of pyarrow.compute
        return (row for row in arrow.rows_of(batch) if row[1] < THICK_SEQUENCE)
    import pyarrow.compute as pc

    return arrow.rows_of(batch.filter(pc.less(batch.column(1), THICK_SEQUENCE)))


def _rows_before(batch: Any, place: Place) -> int:
    """How many rows of a sorted batch stand before a place."""
    at = rows_before(batch, place[0])
    while at < batch.num_rows and (batch.column(0)[at].as_py(), batch.column(1)[at].as_py()) < place:
        at += 1
    return at


def clipped(batch: Any, from_position: int, to_position: int | None) -> Any:
    """The rows of a sorted batch at positions [from_position, to_position)."""
    first = rows_before(batch, from_position)
    last = batch.num_rows if to_position is None else rows_before(batch, to_position)
    return batch.slice(first, max(0, last - first))


def rows_before(batch: Any, position: int) -> int:
    """How many rows of a sorted batch stand before a position."""
    positions, low, high = batch.column(0), 0, batch.num_rows
    while low < high:
        middle = (low + high) // 2
        if positions[middle].as_py() < position:
            low = middle + 1
        else:
            high = middle
    return low


class ThickComparison:
    """Walks along the thick rows of one recorded table, from those of the instruction at from_position on.

    window: only rows at positions [from, to) were captured, and are compared (None: all).
    """

    def __init__(self, trace: Trace, table: str, from_position: int = 0, window: tuple[int, int] | None = None) -> None:
        self.table = table
        self._batches = self._thick_batches(trace, from_position)
        self._current: Any = None
        self._at = 0
        self._window = window

    def _thick_batches(self, trace: Trace, from_position: int) -> Iterator[Any]:
        import pyarrow.compute as pc  # costs more than reading a thin trace

        for batch in trace.batches(self.table, from_position=from_position):
            rest = clipped(batch, from_position, None) if from_position else batch
            thick = rest.filter(pc.greater_equal(rest.column(1), THICK_SEQUENCE))
            if thick.num_rows:
                yield thick

    def _available(self) -> int:
        while self._current is None or self._at == self._current.num_rows:
            self._current, self._at = next(self._batches, None), 0
            if self._current is None:
                return 0
        return int(self._current.num_rows - self._at)

    def compare(self, columns: Mapping[str, Any], count: int) -> tuple[Row | None, Row | None] | None:
        """The next `count` recorded rows against captured columns: None, or the first (recorded, replayed) that differ."""
        captured, at = arrow.batch_from_columns(self.table, columns, count, borrow=True), 0
        if self._window is not None:
            captured = clipped(captured, *self._window)
            count = captured.num_rows
        while at < count:
            available = self._available()
            if not available:
                return None, next(iter(arrow.rows_of(captured.slice(at, 1))))
            length = min(available, count - at)
            mine, theirs = self._current.slice(self._at, length), captured.slice(at, length)
            if not mine.equals(theirs):
                for recorded, replayed in zip(arrow.rows_of(mine), arrow.rows_of(theirs), strict=True):
                    if recorded != replayed:
                        return recorded, replayed
            self._at += length
            at += length
        return None

    def rest(self, before_position: int | None = None) -> Row | None:
        """The next recorded row that nothing was compared with, if it stands before a position (None: wherever it stands)."""
        if not self._available():
            return None
        row = next(iter(arrow.rows_of(self._current.slice(self._at, 1))))
        return row if before_position is None or row[0] < before_position else None
