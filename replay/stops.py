"""Why a walk through a recorded run stands still, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tracekit.replay.divergence import Event


class Reason(Enum):
    """Reasons of a stop."""

    STEP = "step"  # so many instructions were asked for
    BREAKPOINT = "breakpoint"  # the next instruction is at the address
    WATCHPOINT = "watchpoint"  # the instruction before this place made the access
    CONDITION = "condition"  # the predicate holds
    START = "start"  # before the first instruction
    END = "end"  # behind the last one that was recorded


@dataclass(frozen=True, slots=True)
class Stop:
    """position in instructions retired. pc, vcpu: of the next instruction. event: for a watchpoint, the access as a row of `memory_writes`
    or `memory_reads`."""

    reason: Reason
    position: int
    vcpu: int
    pc: int
    event: Event | None = None
