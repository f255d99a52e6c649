"""Thick rows (sequence >= THICK_SEQUENCE) of a recorded table, compared in bulk with what a replay captures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from tracekit.formats import arrow
from tracekit.formats.arrow import Row
from tracekit.formats.reader import Trace
from tracekit.formats.tables import THICK_SEQUENCE


def thin_rows(trace: Trace, table: str) -> Iterator[Row]:
    """The rows that every capture level has. Errors: TraceDamaged."""
    for batch in trace.batches(table):
        yield from arrow.rows_of(batch.filter(pc.less(batch.column(1), THICK_SEQUENCE)))


class ThickComparison:
    """Walks along the thick rows of one recorded table."""

    def __init__(self, trace: Trace, table: str) -> None:
        self.table = table
        self._batches = self._thick_batches(trace)
        self._current: Any = None
        self._at = 0

    def _thick_batches(self, trace: Trace) -> Iterator[Any]:
        for batch in trace.batches(self.table):
            thick = batch.filter(pc.greater_equal(batch.column(1), THICK_SEQUENCE))
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
        captured = arrow.batch_from_columns(self.table, columns, count)
        at = 0
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

    def rest(self) -> Row | None:
        """The next recorded row that nothing was compared with, None at the end."""
        return next(iter(arrow.rows_of(self._current.slice(self._at, 1)))) if self._available() else None
