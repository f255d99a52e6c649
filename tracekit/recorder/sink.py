"""The board's events go into a trace writer."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.formats.writer import TraceWriter
from tracekit.machine import native
from tracekit.machine.capture import thick_buffers
from tracekit.machine.events import Row


class WriterSink:
    """Writes rows as they come; tells on_console of the text for end detection and progress."""

    def __init__(self, writer: TraceWriter, on_console: Callable[[int], None] | None = None) -> None:
        self._writer = writer
        self._on_console = on_console

    def row(self, table: str, row: Row) -> None:
        self._writer.append(table, row)

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        if self._on_console is not None:
            self._on_console(byte)

    def thick_rows(self, table: str, columns: native.Columns, count: int) -> None:
        self._writer.extend(table, thick_buffers(table, columns, count), count)

    def thick_buffer(self, table: str, columns: native.Columns, count: int, release: Callable[[], None]) -> None:
        self._writer.extend(table, thick_buffers(table, columns, count), count, release)
