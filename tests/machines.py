"""Boards with a bundled guest on them, without host, hypervisor and trace: what happens is kept in lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support import scenario

from tracekit.machine.board import Board
from tracekit.machine.engine import StopReason
from tracekit.machine.events import Row
from tracekit.recorder.record import load_guest
from tracekit.recorder.session import board_config


class Quiet:
    """A sink and director that keeps rows and console bytes and lets SGIs land at once."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.rows: list[tuple[str, Row]] = []

    def row(self, table: str, row: Row) -> None:
        self.rows.append((table, row))

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        self.bytes.append(byte)

    def thick_rows(self, table: str, columns: Any, count: int) -> None:
        pass

    def thick_buffer(self, table: str, columns: Any, count: int, release: Callable[[], None]) -> None:
        try:
            self.thick_rows(table, columns, count)
        finally:
            release()

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        return at_ns

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        pass


def run_to(board: Board, position: int) -> None:
    """Run vCPU 0 to exactly this position; calls are answered with NOT_SUPPORTED, sleep lasts until the next timer."""
    while board.engine.position < position:
        reason = board.run(position, 1 << 60)
        if reason is StopReason.INTERRUPT:
            board.take_interrupt()
        elif reason is StopReason.HYPERCALL:
            call = board.hypercall()
            with board.at(call.position, call.ns):
                board.finish_hypercall(call, board.sequence(call.position), ((1 << 64) - 1, 0, 0, 0), None)
        elif reason is StopReason.WFI:
            due = board.timer_due_ns(0)
            assert due is not None
            board.enter(0, due)
            board.update_timers(0, due)
        else:
            assert reason in (StopReason.LIMIT, StopReason.REQUESTED), reason


@contextmanager
def running(guest: str, position: int = 0, **changes: Any) -> Iterator[Board]:
    """A bundled guest, run to a position."""
    chosen = scenario(guest, **changes)
    loaded = load_guest(chosen)
    quiet = Quiet()
    board = Board(board_config(chosen), quiet, quiet)
    board.load(loaded.segments)
    board.engine.reset_vcpu(0, loaded.entry, loaded.x0)
    board.enter(0, 0)
    run_to(board, position)
    yield board
    board.close()
