"""What a scenario does to the host and to the vCPUs' threads at exact virtual times."""

from __future__ import annotations

from tracekit.host.agenda import Agenda
from tracekit.host.config import SESSION_KINDS, Directive
from tracekit.host.scheduler import Scheduler
from tracekit.host.steps import Alarm, Told
from tracekit.host.threads import Absence, Thread, ThreadState


class Director:
    """Carries directives out; those of the session become alarms."""

    def __init__(self, scheduler: Scheduler, agenda: Agenda) -> None:
        self._scheduler = scheduler
        self._agenda = agenda

    def direct(self, directive: Directive, now_ns: int) -> Alarm | None:
        """Do what the directive says."""
        if directive.kind in SESSION_KINDS:
            return Alarm(now_ns, directive)
        if directive.kind == "suspend":
            self._suspend(directive.duration_ns or 0, now_ns)
        elif directive.kind == "clock_skew":
            self._skew(directive.pcpu or 0, directive.value or 0, now_ns)
        else:
            vcpus = self._scheduler.vcpus
            chosen = vcpus if directive.vcpu is None else [vcpus[directive.vcpu]]
            if directive.kind == "yield":  # whoever comes to run by another's yield does not yield for that
                chosen = [thread for thread in chosen if thread.state is ThreadState.RUN]
            for thread in chosen:
                self._direct_thread(directive, thread, now_ns)
        return None

    def _direct_thread(self, directive: Directive, thread: Thread, now_ns: int) -> None:
        match directive.kind:
            case "pause":
                self.pause(thread, now_ns)
            case "resume":
                self.resume(thread, now_ns)
            case "migrate":
                self._scheduler.move(thread, directive.pcpu or 0, now_ns, "directive")
            case "yield":
                if thread.state is ThreadState.RUN:
                    self._scheduler.give_up(thread, self._earliest_ns(thread, now_ns), "directive")
            case "vmm":
                self._vmm(thread, directive.duration_ns or 0, now_ns)
            case "stall":
                self._stall(thread, directive.duration_ns or 0, now_ns)
            case "thread_change":
                self._change_thread(thread, directive.value or 0, now_ns)

    def _earliest_ns(self, thread: Thread, now_ns: int) -> int:
        """When something of time now_ns can happen to the thread."""
        if thread.state is ThreadState.RUN:
            return self._scheduler.pcpus[thread.pcpu].earliest_ns(now_ns)
        return max(now_ns, thread.since_ns, thread.last_row_ns)

    # --- pause and resume ----------------------------------------------------------------------------------------------------------

    def pause(self, thread: Thread, now_ns: int, *, by_session: bool = False) -> None:
        """Stopped, not stolen from: the thread is BLOCK until it is resumed (pvtime.md 3.13). One that polled sleeps then."""
        stands = thread.is_paused
        if by_session:
            thread.session_pauses += 1
        else:
            thread.is_paused_by_directive = True
        if stands:
            return
        if thread.state is ThreadState.RUN:
            self._scheduler.leave(thread, self._earliest_ns(thread, now_ns), "pause", "directive")
        else:
            if thread.state is ThreadState.WAIT:
                now_ns = max(now_ns, thread.last_row_ns, self._scheduler.pcpus[thread.pcpu].last_row_ns)
                self._scheduler.dequeue(thread, now_ns)
            at_ns = self._scheduler.row("pause", thread, now_ns, "directive")
            self._scheduler.change(thread, ThreadState.BLOCK, at_ns)

    def resume(self, thread: Thread, now_ns: int, *, by_session: bool = False) -> None:
        """Runnable again, once nobody else keeps it paused; one that was asleep falls asleep again at once."""
        stood = thread.is_paused
        if by_session:
            thread.session_pauses = max(0, thread.session_pauses - 1)
        else:
            thread.is_paused_by_directive = False
        if not stood or thread.is_paused:
            return
        if thread.wants_to_run:
            self._scheduler.join(thread, now_ns, "resume", "directive")
        else:
            self._fall_back(thread, self._scheduler.row("resume", thread, now_ns, "directive"))

    def _fall_back(self, thread: Thread, at_ns: int) -> None:
        """A thread that is not to run is again what it was."""
        absence = Absence.SLEEP
        if thread.is_paused:
            at_ns = self._scheduler.row("pause", thread, at_ns, "directive")
        elif thread.vcpu is not None and not thread.is_online:
            at_ns, absence = self._scheduler.row("offline", thread, at_ns, "directive"), Absence.OFFLINE
        else:
            at_ns = self._scheduler.row("block", thread, at_ns, "fault" if thread.is_stalled else "directive")
        self._scheduler.change(thread, ThreadState.BLOCK, at_ns, absence)

    # --- the thread's own time -----------------------------------------------------------------------------------------------------

    def _vmm(self, thread: Thread, duration_ns: int, now_ns: int) -> None:
        """The VMM works on the thread before its guest code runs (again), and says so when it begins. A vCPU that is off has no such thing."""
        if not thread.is_online:
            return
        thread.vmm_due_ns += duration_ns
        pcpu = self._scheduler.pcpus[thread.pcpu]
        if thread.state is ThreadState.RUN and pcpu.runs_guest:
            self._scheduler.go_on(pcpu, self._scheduler.interrupt_busy(pcpu, now_ns), resumes=True)

    def _stall(self, thread: Thread, duration_ns: int, now_ns: int) -> None:
        """Guest code meets a fault: now, or when it runs next. A guest that waits for an interrupt meets none."""
        if not thread.is_online or thread.sleeps:
            return
        thread.stall_ns += duration_ns
        if thread.state is ThreadState.RUN and self._scheduler.pcpus[thread.pcpu].runs_guest:
            self._scheduler.stall(thread, self._earliest_ns(thread, now_ns))

    def _change_thread(self, thread: Thread, run_delay_ns: int, now_ns: int) -> None:
        """KVM_RUN goes on in another host thread, which has a run_delay of its own (pvtime.md 8.1b)."""
        at_ns = self._earliest_ns(thread, now_ns)
        thread.run_delay_ns, thread.yield_delay_ns = run_delay_ns, 0
        if thread.state is ThreadState.WAIT:
            self._scheduler.mark_wait(thread, at_ns)
        elif thread.state is ThreadState.RUN:
            self._scheduler.pcpus[thread.pcpu].is_loaded = True
        self._scheduler.tell(Told("thread_change", thread.vcpu, None, run_delay_ns, at_ns))

    # --- the host as a whole -------------------------------------------------------------------------------------------------------

    def _skew(self, index: int, skew_ns: int, now_ns: int) -> None:
        pcpu = self._scheduler.pcpus[index]
        at_ns = max(pcpu.earliest_ns(now_ns), pcpu.last_row_ns)
        pcpu.skew_ns = skew_ns
        self._scheduler.tell(Told("clock_skew", None, index, skew_ns, at_ns))

    def _suspend(self, duration_ns: int, now_ns: int) -> None:
        """Nothing runs on the whole host; what would have happened meanwhile happens after it."""
        scheduler = self._scheduler
        order = []  # who ran goes on, then the queues as they stood
        for pcpu in scheduler.pcpus:
            order += ([pcpu.current] if pcpu.current is not None else []) + pcpu.queue
        order += [thread for thread in scheduler.threads if thread not in order and (thread.vcpu is None or thread.is_online)]
        was_blocked = {thread.number for thread in order if thread.state is ThreadState.BLOCK}
        for thread in order:
            self._fall(thread, now_ns)
        end_ns = max(now_ns, *(max(pcpu.local_ns, pcpu.last_row_ns) for pcpu in scheduler.pcpus)) + duration_ns
        self._agenda.postpone(end_ns)
        for pcpu in scheduler.pcpus:
            pcpu.local_ns = end_ns
        for thread in order:
            if thread.number in was_blocked:
                self._fall_back(thread, scheduler.row("unsuspend", thread, end_ns, "directive"))
            else:
                scheduler.enqueue(thread, end_ns, "unsuspend", "directive")
        for pcpu in scheduler.pcpus:
            scheduler.dispatch(pcpu, end_ns, "directive")

    def _fall(self, thread: Thread, now_ns: int) -> None:
        scheduler, pcpu = self._scheduler, self._scheduler.pcpus[thread.pcpu]
        if thread.state is ThreadState.RUN:
            now_ns = pcpu.earliest_ns(now_ns)
            scheduler.stop_running(pcpu, now_ns)
        elif thread.state is ThreadState.WAIT:
            now_ns = max(now_ns, thread.last_row_ns, pcpu.last_row_ns)
            scheduler.dequeue(thread, now_ns)
        at_ns = scheduler.row("suspend", thread, now_ns, "directive")
        scheduler.change(thread, ThreadState.BLOCK, at_ns, Absence.SUSPEND)
