"""The scheduler: queues, dispatch and preemption; threads that are busy without guest code; CPU bandwidth.

A pCPU whose thread runs no guest code (a neighbour, a poll, the VMM) has no local time of its own: it follows the events.
"""

from __future__ import annotations

from collections.abc import Callable

from tracekit.host.agenda import Agenda
from tracekit.host.config import HostConfig
from tracekit.host.policies import policy_for
from tracekit.host.queues import Queues
from tracekit.host.steps import Told, Transition
from tracekit.host.threads import Absence, Pcpu, Thread, ThreadState


class Scheduler(Queues):
    """Who runs when, and what a thread does on its pCPU."""

    def __init__(
        self,
        config: HostConfig,
        vcpu_count: int,
        seed: int,
        agenda: Agenda,
        emit: Callable[[Transition], None],
        tell: Callable[[Told], None] | None = None,
    ) -> None:
        super().__init__(config, vcpu_count, agenda, emit, tell)
        self._config = config
        self._policy = policy_for(config, seed)

    # --- queues --------------------------------------------------------------------------------------------------------------------

    def enqueue(self, thread: Thread, at_ns: int, event: str, reason: str) -> int:
        """As it says; a thread without budget is throttled at once."""
        at_ns = super().enqueue(thread, at_ns, event, reason)
        if thread.budget is not None:
            thread.budget.refill(at_ns)
            if thread.budget.left_ns <= 0:
                self.pcpus[thread.pcpu].queue.remove(thread)
                at_ns = self._throttle(thread, at_ns)
        return at_ns

    def join(self, thread: Thread, at_ns: int, event: str, reason: str) -> None:
        """A thread becomes runnable: choose its queue, maybe preempt, maybe dispatch."""
        target = self._policy.place(thread, self.pcpus)
        if target != thread.pcpu:
            source, thread.pcpu = thread.pcpu, target
            at_ns = self.row("migrate", thread, at_ns, "wakeup", source)
        at_ns = self.enqueue(thread, at_ns, event, reason)
        if not thread.is_throttled:
            self._offer(thread, at_ns, "wakeup", self._config.wakeup_latency_ns)

    def _offer(self, thread: Thread, at_ns: int, reason: str, latency_ns: int) -> None:
        """A queue has one thread more."""
        pcpu = self.pcpus[thread.pcpu]
        self._policy.woken(thread, pcpu)
        if pcpu.current is None:
            start = max(at_ns, pcpu.local_ns)
            if latency_ns:
                self._agenda.push(start + latency_ns, lambda now: self._dispatch_idle(pcpu, now), matters=True)
            else:
                self.dispatch(pcpu, start, reason)
            return
        now_ns = pcpu.earliest_ns(at_ns)
        if self._policy.preempts(thread, pcpu.current, now_ns - pcpu.started_ns):
            self._preempt(pcpu, now_ns, reason)
        else:
            self._ensure_slice(pcpu, now_ns)

    # --- off a pCPU ----------------------------------------------------------------------------------------------------------------

    def stop_running(self, pcpu: Pcpu, now_ns: int) -> Thread:
        """Take the current thread off its pCPU; its state is the caller's."""
        thread = pcpu.current
        assert thread is not None
        ran_ns = now_ns - pcpu.started_ns
        self._policy.account(thread, ran_ns)
        if thread.neighbour is not None:
            thread.burst_left_ns -= ran_ns
        self._stop_busy(pcpu, now_ns)
        self._charge(pcpu, now_ns)
        self._agenda.cancel(pcpu.quota_check)
        pcpu.current, pcpu.local_ns = None, now_ns
        pcpu.generation += 1
        pcpu.has_slice_event = False
        return thread

    def leave(self, thread: Thread, now_ns: int, event: str, reason: str, absence: Absence = Absence.SLEEP) -> int:
        """The running thread sleeps. Gives the row's time."""
        pcpu = self.pcpus[thread.pcpu]
        assert pcpu.current is thread
        self.stop_running(pcpu, now_ns)
        at_ns = self.row(event, thread, now_ns, reason)
        self.change(thread, ThreadState.BLOCK, at_ns, absence)
        self.dispatch(pcpu, at_ns, reason)
        return at_ns

    def _preempt(self, pcpu: Pcpu, now_ns: int, reason: str) -> None:
        thread = self.stop_running(pcpu, now_ns)
        now_ns = self.enqueue(thread, now_ns, "preempt", reason)
        target = pcpu.index if thread.is_throttled else self._policy.move(thread, self.pcpus)
        if target != pcpu.index:
            self._migrate(thread, target, now_ns, "balance")
        self.dispatch(pcpu, now_ns, reason)

    def give_up(self, thread: Thread, now_ns: int, reason: str) -> bool:
        """The running thread yields, if somebody waits for its pCPU; whether it did. As the kernel, the others go first."""
        pcpu = self.pcpus[thread.pcpu]
        if not pcpu.queue:
            return False
        self.stop_running(pcpu, now_ns)
        at_ns = self.enqueue(thread, now_ns, "yield", reason)
        self.dispatch(pcpu, at_ns, reason, last=thread)
        return True

    # --- moves ---------------------------------------------------------------------------------------------------------------------

    def _migrate(self, thread: Thread, target: int, now_ns: int, reason: str) -> None:
        pcpu = self.pcpus[target]
        now_ns = max(now_ns, self.pcpus[thread.pcpu].last_row_ns, pcpu.last_row_ns, thread.last_row_ns)
        self.requeue(thread, target, now_ns, reason)
        if thread.is_throttled:
            return
        if pcpu.current is None:
            self.dispatch(pcpu, max(now_ns, pcpu.local_ns), reason)
        else:
            self._ensure_slice(pcpu, pcpu.earliest_ns(now_ns))

    def move(self, thread: Thread, target: int, now_ns: int, reason: str) -> None:
        """Bring a thread to another pCPU, whatever it does."""
        source = self.pcpus[thread.pcpu]
        if target == source.index:
            return
        if thread.state is ThreadState.RUN:
            now_ns = source.earliest_ns(now_ns)
            self.stop_running(source, now_ns)
            now_ns = self.enqueue(thread, now_ns, "preempt", reason)
            self._migrate(thread, target, now_ns, reason)
            self.dispatch(source, now_ns, reason)
        elif thread.state is ThreadState.WAIT:
            self._migrate(thread, target, now_ns, reason)
        else:
            now_ns = max(now_ns, thread.last_row_ns)
            thread.pcpu = target
            self.row("migrate", thread, now_ns, reason, source.index)

    # --- onto a pCPU ---------------------------------------------------------------------------------------------------------------

    def _dispatch_idle(self, pcpu: Pcpu, now_ns: int) -> None:
        if pcpu.current is None:
            self.dispatch(pcpu, max(now_ns, pcpu.local_ns), "latency")

    def dispatch(self, pcpu: Pcpu, now_ns: int, reason: str, *, last: Thread | None = None) -> None:
        """A free pCPU takes the next thread, if there is one; `last` only if there is no other."""
        if pcpu.current is not None:
            return
        if not pcpu.queue:
            pulled = self._policy.pull(pcpu, self.pcpus)
            if pulled is None:
                pcpu.local_ns = max(pcpu.local_ns, now_ns)
                return
            source = self.pcpus[pulled.pcpu]
            now_ns = max(now_ns, pulled.queued_ns, pulled.last_row_ns, source.last_row_ns, pcpu.last_row_ns)
            self.requeue(pulled, pcpu.index, now_ns, "balance")
        waiting = [thread for thread in pcpu.queue if thread is not last] or pcpu.queue
        thread = self._policy.pick(waiting, now_ns)
        now_ns = max(now_ns, thread.queued_ns, pcpu.last_row_ns, thread.last_row_ns)
        self.dequeue(thread, now_ns)
        self.change(thread, ThreadState.RUN, now_ns)
        self.row("run", thread, now_ns, reason)
        pcpu.current, pcpu.started_ns, pcpu.local_ns = thread, now_ns, now_ns
        pcpu.generation += 1
        pcpu.slice_ns = self._policy.slice_ns(pcpu, thread)
        pcpu.has_slice_event = False
        if pcpu.queue:
            self._ensure_slice(pcpu, now_ns)
        if thread.neighbour is not None:
            self._begin_burst(pcpu, now_ns)
            return
        if thread.budget is not None:
            thread.budget.refill(now_ns)
            pcpu.charged_ns = now_ns
            self._watch_quota(pcpu, now_ns)
        self.go_on(pcpu, now_ns, resumes=False)

    def _ensure_slice(self, pcpu: Pcpu, now_ns: int) -> None:
        """Somebody waits: the running thread's slice now has an end."""
        if pcpu.has_slice_event or pcpu.current is None:
            return
        pcpu.has_slice_event = True
        generation = pcpu.generation
        due_ns = max(now_ns, pcpu.started_ns + pcpu.slice_ns)
        self._agenda.push(due_ns, lambda now: self._end_slice(pcpu, generation, now), matters=False)

    def _end_slice(self, pcpu: Pcpu, generation: int, now_ns: int) -> None:
        if pcpu.generation != generation:
            return
        pcpu.has_slice_event = False
        if pcpu.queue:
            self._preempt(pcpu, pcpu.earliest_ns(now_ns), "slice")

    # --- neighbours ----------------------------------------------------------------------------------------------------------------

    def _begin_burst(self, pcpu: Pcpu, now_ns: int) -> None:
        thread, generation = pcpu.current, pcpu.generation
        assert thread is not None and thread.neighbour is not None
        if thread.neighbour.sleep_ns:
            due_ns = now_ns + max(0, thread.burst_left_ns)
            self._agenda.push(due_ns, lambda now: self._end_burst(pcpu, generation, now), matters=False)

    def _end_burst(self, pcpu: Pcpu, generation: int, now_ns: int) -> None:
        if pcpu.generation != generation:
            return
        thread = pcpu.current
        assert thread is not None and thread.neighbour is not None
        neighbour = thread.neighbour
        self.stop_running(pcpu, now_ns)
        at_ns = self.row("block", thread, now_ns, "neighbour")
        self.change(thread, ThreadState.BLOCK, at_ns)
        thread.burst_left_ns = neighbour.burst_ns
        self._agenda.push(at_ns + neighbour.sleep_ns, lambda now: self.join(thread, now, "wake", "neighbour"), matters=False)
        self.dispatch(pcpu, at_ns, "neighbour")

    # --- busy without guest code ---------------------------------------------------------------------------------------------------

    def go_on(self, pcpu: Pcpu, now_ns: int, *, resumes: bool) -> None:
        """What the current vCPU's thread does from now_ns on: poll, sleep, the VMM's work, meet a fault, or guest code.
        resumes: it has been on this pCPU before now_ns."""
        thread = pcpu.current
        assert thread is not None
        if thread.vmm_due_ns and not thread.vmm_left_ns and not thread.sleeps:
            now_ns = max(now_ns, pcpu.last_row_ns)
            self.tell(Told("vmm", thread.vcpu, None, thread.vmm_due_ns, now_ns))
            thread.vmm_left_ns, thread.vmm_due_ns = thread.vmm_due_ns, 0
        left_ns = thread.poll_left_ns if thread.sleeps else thread.vmm_left_ns
        if left_ns:
            if thread.sleeps and not resumes:  # preempted while it polled: no guest code comes now
                now_ns = pcpu.local_ns = self.row("poll", thread, now_ns, "poll")
            pcpu.busy_from_ns = now_ns
            pcpu.busy_end = self._agenda.push(now_ns + left_ns, lambda now: self._end_busy(pcpu, now), matters=True)
        elif thread.sleeps:
            self.leave(thread, now_ns, "block", "poll")
        elif thread.stall_ns:
            self.stall(thread, now_ns)
        else:
            pcpu.is_loaded, pcpu.resumes = True, resumes

    def _stop_busy(self, pcpu: Pcpu, now_ns: int) -> None:
        """Account what the thread did since busy_from_ns."""
        if pcpu.busy_end is None or pcpu.current is None:
            return
        self._agenda.cancel(pcpu.busy_end)
        pcpu.busy_end = None
        thread, done_ns = pcpu.current, now_ns - pcpu.busy_from_ns
        if thread.sleeps:
            thread.poll_left_ns = max(0, thread.poll_left_ns - done_ns)
        else:
            thread.vmm_left_ns = max(0, thread.vmm_left_ns - done_ns)

    def _end_busy(self, pcpu: Pcpu, now_ns: int) -> None:
        self.interrupt_busy(pcpu, now_ns)
        self.go_on(pcpu, pcpu.local_ns, resumes=True)

    def interrupt_busy(self, pcpu: Pcpu, now_ns: int) -> int:
        """The busy thread stops for go_on() to decide anew. Gives the time, which is no earlier than the rows so far."""
        assert pcpu.current is not None
        now_ns = max(pcpu.earliest_ns(now_ns), pcpu.last_row_ns, pcpu.current.last_row_ns)
        self._stop_busy(pcpu, now_ns)
        pcpu.local_ns = now_ns
        return now_ns

    def halt(self, thread: Thread, now_ns: int, reason: str) -> None:
        """The running vCPU waits for an interrupt: its thread polls first, if it may, then sleeps.

        As KVM's kvm_vcpu_halt(), but for one thing: KVM gives a poll up as soon as another task wants the pCPU; here the scheduler takes it away
        (pvtime.md 5.4, preempted while polling).
        """
        thread.sleeps = True
        if reason != "wfi" or not self._config.halt_poll_ns:
            self.leave(thread, now_ns, "block", reason)
            return
        pcpu = self.pcpus[thread.pcpu]
        pcpu.local_ns = self.row("poll", thread, now_ns, reason)
        thread.poll_left_ns = self._config.halt_poll_ns
        self.go_on(pcpu, pcpu.local_ns, resumes=True)

    def rouse(self, thread: Thread, now_ns: int, reason: str) -> None:
        """A vCPU that waits for an interrupt has one."""
        pcpu = self.pcpus[thread.pcpu]
        if thread.state is ThreadState.RUN:
            now_ns = self.interrupt_busy(pcpu, now_ns)
        thread.sleeps, thread.poll_left_ns = False, 0
        if thread.state is ThreadState.RUN:
            self.go_on(pcpu, now_ns, resumes=True)
        elif thread.state is ThreadState.BLOCK and not thread.is_paused:
            self.join(thread, now_ns, "wake", reason)

    def stall(self, thread: Thread, now_ns: int) -> None:
        """The running vCPU's guest code meets a fault that takes stall_ns: nothing but its end wakes the thread."""

        def end(now_ns: int) -> None:
            thread.stall_end = None
            if not thread.is_paused:
                self.join(thread, now_ns, "wake", "fault")

        duration_ns, thread.stall_ns = thread.stall_ns, 0
        pcpu = self.pcpus[thread.pcpu]
        begin_ns = max(now_ns, pcpu.last_row_ns, thread.last_row_ns)
        thread.stall_end = self._agenda.push(begin_ns + duration_ns, end, matters=True)
        self.leave(thread, begin_ns, "block", "fault")

    # --- CPU bandwidth -------------------------------------------------------------------------------------------------------------

    def _charge(self, pcpu: Pcpu, now_ns: int) -> None:
        thread = pcpu.current
        if thread is not None and thread.budget is not None:
            thread.budget.charge(pcpu.charged_ns, now_ns)
            pcpu.charged_ns = now_ns

    def _watch_quota(self, pcpu: Pcpu, now_ns: int) -> None:
        assert pcpu.current is not None and pcpu.current.budget is not None
        due_ns = pcpu.current.budget.check_ns(now_ns)
        pcpu.quota_check = self._agenda.push(due_ns, lambda now: self._check_quota(pcpu, now), matters=False)

    def _check_quota(self, pcpu: Pcpu, now_ns: int) -> None:
        now_ns = pcpu.earliest_ns(now_ns)
        thread = pcpu.current
        assert thread is not None and thread.budget is not None
        self._charge(pcpu, now_ns)
        if thread.budget.left_ns > 0:
            self._watch_quota(pcpu, now_ns)
            return
        self.stop_running(pcpu, now_ns)
        now_ns = self._throttle(thread, now_ns)
        self.dispatch(pcpu, now_ns, "quota")

    def _throttle(self, thread: Thread, now_ns: int) -> int:
        """The thread, which is in no queue, waits for the next period. Gives the row's time."""
        assert thread.budget is not None
        now_ns = self.row("throttle", thread, now_ns, "quota")
        if thread.state is ThreadState.WAIT:
            self.settle_wait(thread, now_ns)
        self.change(thread, ThreadState.WAIT, now_ns)
        self.mark_wait(thread, now_ns)
        thread.has_yielded, thread.is_throttled = False, True
        self._await_refill(thread, now_ns)
        return now_ns

    def _await_refill(self, thread: Thread, now_ns: int) -> None:
        assert thread.budget is not None
        due_ns = max(now_ns, thread.budget.refill_ns)
        thread.throttle_end = self._agenda.push(due_ns, lambda now: self._unthrottle(thread, now), matters=True)

    def _unthrottle(self, thread: Thread, now_ns: int) -> None:
        assert thread.budget is not None
        thread.budget.refill(now_ns)
        if thread.budget.left_ns <= 0:
            self._await_refill(thread, now_ns)
            return
        thread.is_throttled = False
        at_ns = self.row("unthrottle", thread, now_ns, "quota")
        self.pcpus[thread.pcpu].queue.append(thread)
        self._offer(thread, at_ns, "quota", 0)
