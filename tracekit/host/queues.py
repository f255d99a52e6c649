"""Threads, the physical CPUs' queues, and what waiting in them costs; every row of the host is made here."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.host.agenda import Agenda
from tracekit.host.config import HostConfig
from tracekit.host.quota import Budget
from tracekit.host.steps import Told, Transition
from tracekit.host.threads import Absence, Pcpu, Thread, ThreadState


class Queues:
    """Physical CPUs, their queues, vCPU threads (thread i is vCPU i) and neighbours."""

    def __init__(
        self,
        config: HostConfig,
        vcpu_count: int,
        agenda: Agenda,
        emit: Callable[[Transition], None],
        tell: Callable[[Told], None] | None,
    ) -> None:
        self._emit = emit
        self._tell = tell
        self._agenda = agenda
        skews = (*config.clock_skew_ns, *(0 for _ in range(config.pcpus)))
        self.pcpus = [Pcpu(index, skews[index]) for index in range(config.pcpus)]
        self.vcpus = [Thread(vcpu, vcpu, None, vcpu % config.pcpus) for vcpu in range(vcpu_count)]
        self.threads = list(self.vcpus)
        for index, neighbour in enumerate(config.neighbours):
            pcpu = neighbour.pcpu if neighbour.pcpu is not None else index % config.pcpus
            thread = Thread(vcpu_count + index, None, neighbour, pcpu, weight=neighbour.weight)
            thread.burst_left_ns = neighbour.burst_ns
            self.threads.append(thread)
        if config.quota_ns:
            for thread in self.vcpus:
                thread.budget = Budget(config.quota_ns, config.quota_period_ns, config.quota_ns)

    # --- rows and states -----------------------------------------------------------------------------------------------------------

    def row(self, event: str, thread: Thread, at_ns: int, reason: str | None, from_pcpu: int | None = None) -> int:
        """One row; a row is never earlier than the one before it of its thread or pCPU. Gives the row's time."""
        pcpu = self.pcpus[thread.pcpu]
        at_ns = max(at_ns, pcpu.last_row_ns, thread.last_row_ns)
        pcpu.last_row_ns = thread.last_row_ns = at_ns
        self._emit(Transition(event, thread.number, thread.vcpu, thread.pcpu, from_pcpu, reason, at_ns))
        return at_ns

    def tell(self, told: Told) -> None:
        """One row of `directives`."""
        if self._tell is not None:
            self._tell(told)

    @staticmethod
    def change(thread: Thread, state: ThreadState, at_ns: int, absence: Absence = Absence.SLEEP) -> None:
        """The thread's state from at_ns on."""
        if thread.state is ThreadState.BLOCK:
            if thread.absence is Absence.OFFLINE:
                thread.offline_ns += at_ns - thread.since_ns
            elif thread.absence is Absence.SUSPEND:
                thread.suspended_ns += at_ns - thread.since_ns
        thread.state, thread.absence, thread.since_ns = state, absence, at_ns

    # --- queues --------------------------------------------------------------------------------------------------------------------

    def mark_wait(self, thread: Thread, now_ns: int) -> None:
        """Its run_delay counts from here, by the clock of its run queue."""
        thread.queued_ns = now_ns
        thread.queued_clock_ns = now_ns + self.pcpus[thread.pcpu].skew_ns

    def settle_wait(self, thread: Thread, now_ns: int) -> None:
        """What it has waited here goes to its run_delay."""
        waited_ns = now_ns + self.pcpus[thread.pcpu].skew_ns - thread.queued_clock_ns
        thread.run_delay_ns += waited_ns
        if thread.has_yielded:
            thread.yield_delay_ns += waited_ns
        self.mark_wait(thread, now_ns)

    def enqueue(self, thread: Thread, at_ns: int, event: str, reason: str) -> int:
        """The thread waits from the row's time on, which is given."""
        at_ns = self.row(event, thread, at_ns, reason)
        self.change(thread, ThreadState.WAIT, at_ns)
        thread.has_yielded = event == "yield"
        self.mark_wait(thread, at_ns)
        self.pcpus[thread.pcpu].queue.append(thread)
        return at_ns

    def dequeue(self, thread: Thread, now_ns: int) -> None:
        """The waiting thread leaves its queue, or its throttling."""
        if thread.is_throttled:
            self._agenda.cancel(thread.throttle_end)
            thread.is_throttled = False
        else:
            self.pcpus[thread.pcpu].queue.remove(thread)
        self.settle_wait(thread, now_ns)

    def requeue(self, thread: Thread, target: int, now_ns: int, reason: str) -> None:
        """Move a waiting thread: its wait is split at the move (pvtime.md 3.2), summed piecewise, each by its queue's clock."""
        source = self.pcpus[thread.pcpu]
        self.settle_wait(thread, now_ns)
        if not thread.is_throttled:
            source.queue.remove(thread)
            self.pcpus[target].queue.append(thread)
        thread.pcpu = target
        self.row("migrate", thread, now_ns, reason, source.index)
        self.mark_wait(thread, now_ns)
