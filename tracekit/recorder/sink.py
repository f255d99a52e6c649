"""The board's events go into a trace writer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from tracekit.formats.writer import TraceWriter
from tracekit.machine import native
from tracekit.machine.events import Row

_THICK_COLUMNS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "memory_writes": (
        ("position", "position"), ("sequence", "sequence"), ("vtime_ns", "vtime_ns"), ("vcpu", "vcpu"),
        ("origin", "origin"), ("ipa", "ipa"), ("size", "size"), ("value", "value"), ("pc", "pc"), ("cause", None),
    ),
    "memory_reads": (
        ("position", "position"), ("sequence", "sequence"), ("vtime_ns", "vtime_ns"), ("vcpu", "vcpu"),
        ("origin", "origin"), ("ipa", "ipa"), ("size", "size"), ("value", "value"), ("pc", "pc"),
    ),
    "blocks": (
        ("position", "position"), ("sequence", "sequence"), ("vtime_ns", "vtime_ns"), ("vcpu", "vcpu"),
        ("pc", "pc"), ("instructions", "instructions"),
    ),
}  # fmt: skip


def thick_buffers(table: str, columns: native.Columns, count: int) -> dict[str, memoryview | None]:
    """Views of the first `count` buffered rows, by column name; None for a column that is null throughout."""
    out: dict[str, memoryview | None] = {}
    for name, source in _THICK_COLUMNS[table]:
        if source is None:
            out[name] = None
            continue
        array = getattr(columns, source)
        out[name] = memoryview(array).cast("B")[: count * ctypes.sizeof(array._type_)]
    return out


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
