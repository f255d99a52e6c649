"""Thick rows as raw columns: the native buffers by the names of their tables' columns."""

from __future__ import annotations

import ctypes
import mmap
from collections import deque

from tracekit.machine import native

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


class CaptureBuffers:
    """Buffers that rows are captured into, used again and again. How many there are is bounded by whoever keeps full ones."""

    def __init__(self) -> None:
        self._free: deque[native.Columns] = deque()  # its methods are atomic: buffers come back from other threads

    def take(self) -> native.Columns:
        """An empty one."""
        try:
            return self._free.pop()
        except IndexError:
            return new_columns()

    def give_back(self, columns: native.Columns) -> None:
        """Its rows are needed no more."""
        self._free.append(columns)


def new_columns() -> native.Columns:
    """An empty buffer; the columns that a table does not have never take memory."""
    return native.Columns.from_buffer(mmap.mmap(-1, ctypes.sizeof(native.Columns)))


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
