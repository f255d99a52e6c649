"""State digests as rows. Spec: formats/SPEC.md "Portable state digests"."""

from __future__ import annotations

import hashlib

from tracekit.machine.board import Board


def emit_states(board: Board, *, with_memory: bool) -> None:
    """One `states` row for each vCPU (registers), one for the board (devices and, if asked, memory), as of here(). The place becomes a mark."""
    board.mark()
    for vcpu in range(board.config.vcpu_count):
        board.emit("states", vcpu, "vcpu", board.registers(vcpu).digest(), None, None)
    memory = board.memory.digest() if with_memory else None
    board.emit("states", None, "board", None, hashlib.sha256(board.device_bytes()).digest(), memory)
