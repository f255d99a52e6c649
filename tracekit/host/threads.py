"""Host threads and physical CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tracekit.host.agenda import Event
from tracekit.host.config import NICE_0_WEIGHT, Neighbour
from tracekit.host.quota import Budget


class ThreadState(Enum):
    """RUN: on a pCPU; WAIT: runnable, in a queue or throttled; BLOCK: asleep, paused, suspended or powered off."""

    RUN = 1
    WAIT = 2
    BLOCK = 3


class Absence(Enum):
    """Why a thread is BLOCK, as far as a publication policy counts it."""

    SLEEP = 1
    OFFLINE = 2
    SUSPEND = 3


@dataclass(slots=True)
class Thread:
    """One schedulable thread. run_delay_ns is sched_info.run_delay: it grows when the thread is picked and when it leaves a
    queue for another (kernel/sched/stats.h), by the clock of the run queue that it leaves."""

    number: int
    vcpu: int | None
    neighbour: Neighbour | None
    pcpu: int
    state: ThreadState = ThreadState.BLOCK
    absence: Absence = Absence.SLEEP
    since_ns: int = 0  # start of the present state
    last_row_ns: int = 0

    # its clocks
    run_delay_ns: int = 0
    yield_delay_ns: int = 0  # the part of run_delay_ns that began with a yield
    offline_ns: int = 0
    suspended_ns: int = 0
    queued_ns: int = 0
    queued_clock_ns: int = 0  # the same by the clock of its run queue
    has_yielded: bool = False

    # what the scheduler keeps
    weight: int = NICE_0_WEIGHT
    virtual_runtime: int = 0
    burst_left_ns: int = 0
    budget: Budget | None = None
    is_throttled: bool = False
    throttle_end: Event | None = None

    # what its vCPU wants
    is_online: bool = False
    sleeps: bool = False  # WFI or CPU_SUSPEND, and not woken since
    coming: Event | None = None  # its wake or power-on is under way
    poll_left_ns: int = 0  # it polls before it sleeps
    vmm_due_ns: int = 0  # work that the VMM will do before guest code runs again
    vmm_left_ns: int = 0  # and what is left of what it has begun
    stall_ns: int = 0  # a fault that its guest code will meet
    stall_end: Event | None = None  # it meets one
    is_paused_by_directive: bool = False
    session_pauses: int = 0  # how often the session paused it and did not resume it yet

    @property
    def is_pinned(self) -> bool:
        """Whether it may not change its pCPU."""
        return self.neighbour is not None and self.neighbour.pcpu is not None

    @property
    def is_paused(self) -> bool:
        """Whether it stands still until somebody resumes it."""
        return self.is_paused_by_directive or self.session_pauses > 0

    @property
    def is_stalled(self) -> bool:
        """Whether it waits for a stage-2 fault or a lock of the VMM."""
        return self.stall_end is not None

    @property
    def wants_to_run(self) -> bool:
        """Whether it would be runnable if it were not paused."""
        return self.is_online and not self.sleeps and not self.is_stalled


@dataclass(slots=True)
class Pcpu:
    """One physical CPU: its local time and who is on it or waits for it."""

    index: int
    skew_ns: int = 0  # of its run-queue clock
    local_ns: int = 0
    current: Thread | None = None
    queue: list[Thread] = field(default_factory=list)
    generation: int = 0  # changes with each dispatch: events of an older one are void
    started_ns: int = 0
    is_loaded: bool = False  # the current vCPU has just been switched in, or KVM_RUN has just begun
    resumes: bool = False  # its guest code goes on after a poll or the VMM
    busy_from_ns: int = 0
    busy_end: Event | None = None  # the current vCPU's thread polls or runs the VMM
    quota_check: Event | None = None
    charged_ns: int = 0  # up to where the current thread has been charged
    has_slice_event: bool = False
    slice_ns: int = 0
    last_row_ns: int = 0

    @property
    def load(self) -> int:
        """Runnable threads here."""
        return len(self.queue) + (self.current is not None)

    @property
    def runs_guest(self) -> bool:
        """Whether the engine has to advance it."""
        return self.current is not None and self.current.vcpu is not None and self.busy_end is None

    def earliest_ns(self, at_ns: int) -> int:
        """When something of time at_ns can take effect here."""
        return max(at_ns, self.local_ns)
