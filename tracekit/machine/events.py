"""What the board tells and whom it asks: rows go to a sink, decisions come from a director."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tracekit.machine import native

Row = tuple[Any, ...]


class Sink(Protocol):
    """Where the board's events go. Rows are complete: (position, sequence, vtime_ns, vcpu, further columns ...)."""

    def row(self, table: str, row: Row) -> None:
        """One event; rows of one table come sorted by (position, sequence)."""

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        """A byte left the UART; `row` is the head of its console row, `index` its place in it. The row follows when it is whole."""

    def thick_rows(self, table: str, columns: native.Columns, count: int) -> None:
        """The first `count` buffered rows of a thick table; they must be copied before returning."""

    def thick_buffer(self, table: str, columns: native.Columns, count: int, release: Callable[[], None]) -> None:
        """A full buffer of a thick table: it may be kept until release() is called, which any thread may do; raising calls it too."""


class Director(Protocol):
    """Who decides what the board may not: the host model when recording, the trace when replaying."""

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        """An SGI to another vCPU: the time (ns) at which it lands if it lands now, None if it will be told later."""

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        """The IRQ line of a vCPU rose; if the vCPU sleeps, it must wake."""


@dataclass(frozen=True, slots=True)
class HypercallEvent:
    """An HVC or SMC that has retired. x: X0..X17 before the call; position and ns: of the instruction."""

    vcpu: int
    conduit: str
    immediate: int
    pc: int
    el: int
    x: tuple[int, ...]
    position: int
    ns: int
