"""Console rows: the bytes of one vCPU up to a newline or 256 bytes. Spec: formats/SPEC.md "console"."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.machine.events import Row

ROW_BYTES_MAX = 256


class ConsoleLine:
    """Collects UART bytes into rows. One row is open at a time: a byte of another vCPU closes it."""

    def __init__(self, emit: Callable[[Row], None]) -> None:
        self._emit = emit
        self._head: Row | None = None
        self._data = bytearray()

    def accepts(self, vcpu: int) -> bool:
        """Whether a byte of this vCPU continues the open row."""
        return self._head is not None and self._head[3] == vcpu

    def open(self, head: Row) -> None:
        """Start a row at (position, sequence, vtime_ns, vcpu)."""
        self.close()
        self._head = head

    def add(self, byte: int) -> tuple[Row, int]:
        """Append a byte to the open row; gives its head and the byte's place in it."""
        assert self._head is not None
        head, index = self._head, len(self._data)
        self._data.append(byte)
        return head, index

    def close_if_full(self) -> None:
        """End the row after a newline or 256 bytes."""
        if self._data and (self._data[-1] == 0x0A or len(self._data) == ROW_BYTES_MAX):
            self.close()

    def close(self) -> None:
        """End the open row, if any, and hand it on."""
        row = self.open_row()
        self._head = None
        self._data.clear()
        if row is not None:
            self._emit(row)

    def open_row(self) -> Row | None:
        """The unfinished row as it stands."""
        return None if self._head is None else (*self._head, bytes(self._data))

    def restore(self, row: Row | None) -> None:
        """Continue an unfinished row that open_row() gave."""
        self._head, self._data = (None, bytearray()) if row is None else (row[:4], bytearray(row[4]))
