"""What the replayed board tells, compared with the recorded rows as it happens: the board's sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tracekit.formats.thick import ThickComparison
from tracekit.machine import native
from tracekit.machine.board import THICK_TABLES
from tracekit.machine.capture import thick_buffers
from tracekit.machine.events import Row
from tracekit.replay.difference import Difference
from tracekit.replay.divergence import Event
from tracekit.replay.events import EventStream
from tracekit.replay.rows import RowWriter


class Comparison:
    """Errors of every method: Diverged. is_cut: the trace was recovered, its last console row may lack bytes."""

    def __init__(
        self,
        events: EventStream,
        difference: Difference,
        writer: RowWriter | None,
        is_cut: bool,
    ) -> None:
        self._events = events
        self._thick: Mapping[str, ThickComparison] = {}
        self._difference = difference
        self._writer = writer
        self._is_cut = is_cut

    def begin(self, thick: Mapping[str, ThickComparison]) -> None:
        """What is captured from now on is compared with these."""
        self._thick = thick

    def row(self, table: str, row: Row) -> None:
        """One replayed event against the next recorded one."""
        replayed = Event(table, row)
        if table == "console":
            recorded = self._events.printed()
            if recorded is None or recorded.row != row:
                self._difference.differs(recorded, replayed)
            self._events.end_print()
        else:
            recorded = self._events.peek()
            if recorded is None or recorded.table != table or recorded.row != row:
                self._difference.differs(recorded, replayed)
            self._events.take()
        if self._writer is not None:
            self._writer.append(table, row)

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        """A byte of a console row: compared at once, not when its row is whole."""
        if index == 0:
            recorded = self._events.peek()
            if recorded is None or recorded.table != "console" or recorded.row[:4] != row:
                self._difference.differs(recorded, Event("console", (*row, bytes((byte,)))))
            self._events.begin_print()
        printed = self._events.printed()
        assert printed is not None
        data = printed.row[4]
        if index >= len(data):
            if self._is_cut and self._events.peek() is None:
                return
            self._difference.differs(printed, Event("console", (*row, data + bytes((byte,)))))
        elif data[index] != byte:
            self._difference.differs(printed, Event("console", (*row, data[:index] + bytes((byte,)))))

    def thick_rows(self, table: str, columns: native.Columns, count: int) -> None:
        """Captured rows against recorded ones, where that level was recorded."""
        buffers = thick_buffers(table, columns, count)
        if table in self._thick:
            difference = self._thick[table].compare(buffers, count)
            if difference is not None:
                recorded, replayed = difference
                self._difference.differs(
                    Event(table, recorded) if recorded is not None else None,
                    Event(table, replayed) if replayed is not None else None,
                )
        if self._writer is not None:
            self._writer.extend(table, buffers, count)

    def thick_buffer(self, table: str, columns: native.Columns, count: int, release: Callable[[], None]) -> None:
        """The same, of a full buffer."""
        try:
            self.thick_rows(table, columns, count)
        finally:
            release()

    def check_thick_is_done(self, before_position: int | None = None) -> None:
        """No recorded thick row below a position is left (None: none at all)."""
        for name in THICK_TABLES.values():
            if name in self._thick:
                left = self._thick[name].rest(before_position)
                if left is not None:
                    self._difference.missed(Event(name, left))
