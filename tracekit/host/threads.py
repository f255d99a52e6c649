"""Host threads and physical CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tracekit.host.config import NICE_0_WEIGHT, Neighbour


class ThreadState(Enum):
    """RUN: on a pCPU; WAIT: runnable, in a queue; BLOCK: asleep, paused or powered off."""

    RUN = 1
    WAIT = 2
    BLOCK = 3


@dataclass(slots=True)
class Thread:
    """One schedulable thread. run_delay_ns is sched_info.run_delay: it grows when the thread is picked and when it leaves a
    queue for another (kernel/sched/stats.h)."""

    number: int
    vcpu: int | None
    neighbour: Neighbour | None
    pcpu: int
    state: ThreadState = ThreadState.BLOCK
    weight: int = NICE_0_WEIGHT
    run_delay_ns: int = 0
    queued_ns: int = 0
    yield_delay_ns: int = 0  # the part of run_delay_ns that began with a yield
    offline_ns: int = 0
    suspended_ns: int = 0
    has_yielded: bool = False
    since_ns: int = 0  # start of the present state
    virtual_runtime: int = 0
    burst_left_ns: int = 0
    is_online: bool = False
    is_paused: bool = False
    is_held: bool = False  # pause_all() paused it
    wants_to_run: bool = False  # while paused: it would be runnable
    wake_at_ns: int | None = None
    last_row_ns: int = 0

    @property
    def is_pinned(self) -> bool:
        """Whether it may not change its pCPU."""
        return self.neighbour is not None and self.neighbour.pcpu is not None


@dataclass(slots=True)
class Pcpu:
    """One physical CPU: its local time and who is on it or waits for it."""

    index: int
    local_ns: int = 0
    current: Thread | None = None
    queue: list[Thread] = field(default_factory=list)
    generation: int = 0  # changes with each dispatch: events of an older one are void
    started_ns: int = 0
    is_loaded: bool = False  # the current vCPU has just been switched in
    has_slice_event: bool = False
    slice_ns: int = 0
    last_row_ns: int = 0

    @property
    def load(self) -> int:
        """Runnable threads here."""
        return len(self.queue) + (self.current is not None)
