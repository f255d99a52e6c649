"""The host as a discrete-event simulation over the local times of its physical CPUs. Spec: formats/SPEC.md "Time".

An event at time T is processed once every pCPU that runs guest code has reached T; until then the vCPU on the pCPU with the smallest
(local time, index) is advanced, never more than the quantum past the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tracekit.host.agenda import FAR_NS, Agenda, Event
from tracekit.host.config import HostConfig
from tracekit.host.directives import Director
from tracekit.host.scheduler import Scheduler
from tracekit.host.steps import Alarm, Deadlock, Enter, Told, Transition
from tracekit.host.threads import Absence, ThreadState

__all__ = ["Alarm", "Deadlock", "Enter", "Host", "Told", "Transition"]


class Host:
    """What the recorder asks for and tells: vCPUs by number, times in ns."""

    def __init__(
        self,
        config: HostConfig,
        vcpu_count: int,
        seed: int,
        emit: Callable[[Transition], None],
        tell: Callable[[Told], None] | None = None,
    ) -> None:
        self._config = config
        self._quantum_ns = config.quantum_ns
        self._agenda = Agenda()
        self._scheduler = Scheduler(config, vcpu_count, seed, self._agenda, emit, tell)
        self._director = Director(self._scheduler, self._agenda)
        self._vcpus, self._pcpus = self._scheduler.vcpus, self._scheduler.pcpus
        self._alarms: dict[int, Event] = {}
        self._now_ns = 0

    # --- the loop ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Every thread's first row, at vtime 0, and the first dispatches."""
        for thread in self._scheduler.threads:
            if thread.vcpu in (None, 0):
                thread.is_online = True
                self._scheduler.enqueue(thread, 0, "online", "start")
            else:
                self._scheduler.row("offline", thread, 0, "start")
                self._scheduler.change(thread, ThreadState.BLOCK, 0, Absence.OFFLINE)
        for directive in sorted(self._config.directives, key=lambda one: one.at_ns):
            if directive.vcpu is None or directive.vcpu < len(self._vcpus):
                self._agenda.push(directive.at_ns, partial(self._director.direct, directive), matters=True)
        for pcpu in self._pcpus:
            self._scheduler.dispatch(pcpu, 0, "start")

    def next(self) -> Enter | Alarm | Deadlock:
        """Advance to the next thing that somebody else must do."""
        while True:
            event_ns = self._agenda.first_ns
            behind, behind_ns, others_ns, runs = (
                None,
                event_ns,
                FAR_NS,
                False,
            )  # others_ns: least local time of the others that run
            for pcpu in self._pcpus:
                if not pcpu.runs_guest:
                    continue
                runs = True
                if pcpu.local_ns < behind_ns:
                    if behind is not None:
                        others_ns = min(others_ns, behind_ns)
                    behind, behind_ns = pcpu, pcpu.local_ns
                elif pcpu.local_ns < others_ns:
                    others_ns = pcpu.local_ns
            if behind is not None:
                assert behind.current is not None and behind.current.vcpu is not None
                horizon = min(event_ns, others_ns + self._quantum_ns)
                loaded, behind.is_loaded = behind.is_loaded, False
                resumes, behind.resumes = behind.resumes, False
                return Enter(behind.current.vcpu, behind.index, behind.local_ns, horizon, loaded, resumes)
            if event_ns == FAR_NS or (not self._agenda.matters and not runs and not self._any_vcpu_waits()):
                return Deadlock(max([self._now_ns, *(pcpu.local_ns for pcpu in self._pcpus)]))
            event = self._agenda.pop()
            self._now_ns = max(self._now_ns, event.at_ns)
            alarm = event.action(event.at_ns)
            if alarm is not None:
                return alarm

    def _any_vcpu_waits(self) -> bool:
        return any(thread.state is not ThreadState.BLOCK for thread in self._vcpus)

    # --- what a vCPU that was entered did --------------------------------------------------------------------------------------------

    def ran(self, vcpu: int, now_ns: int) -> None:
        """It has reached this local time."""
        thread = self._vcpus[vcpu]
        assert self.is_running(vcpu)
        self._pcpus[thread.pcpu].local_ns = now_ns

    def block(self, vcpu: int, now_ns: int, reason: str) -> None:
        """It waits for an interrupt: reason wfi (its thread may poll first) or suspend."""
        self._scheduler.halt(self._vcpus[vcpu], now_ns, reason)

    def offline(self, vcpu: int, now_ns: int, reason: str) -> None:
        """It is powered off."""
        self._vcpus[vcpu].is_online = False
        self._scheduler.leave(self._vcpus[vcpu], now_ns, "offline", reason, Absence.OFFLINE)

    def yield_(self, vcpu: int, now_ns: int, reason: str) -> bool:
        """It gives its pCPU up but stays runnable; False: nobody waits for that pCPU, so it goes on (as KVM: a lone thread's WFE is not
        even trapped)."""
        thread = self._vcpus[vcpu]
        if self._scheduler.give_up(thread, now_ns, reason):
            return True
        self.ran(vcpu, now_ns)
        return False

    # --- what happens to a vCPU ------------------------------------------------------------------------------------------------------

    def online(self, vcpu: int, at_ns: int, reason: str) -> None:
        """A vCPU that is off is powered on."""
        thread = self._vcpus[vcpu]

        def action(now_ns: int) -> None:
            thread.coming, thread.is_online = None, True
            if not thread.is_paused:
                self._scheduler.join(thread, max(now_ns, thread.since_ns), "online", reason)

        thread.coming = self._agenda.push(max(at_ns, thread.since_ns), action, matters=True)

    def wake(self, vcpu: int, at_ns: int, reason: str) -> None:
        """A vCPU that waits for an interrupt has one, at the later of at_ns and its local time; else nothing happens."""
        thread = self._vcpus[vcpu]
        if not thread.sleeps or thread.coming is not None:
            return
        if thread.is_paused:
            thread.sleeps = False
            return

        def action(now_ns: int) -> None:
            thread.coming = None
            if thread.sleeps:
                self._scheduler.rouse(thread, now_ns, reason)

        thread.coming = self._agenda.push(max(at_ns, self.local_ns(vcpu)), action, matters=True)

    def call_at(self, at_ns: int, token: object, *, vcpu: int | None = None) -> None:
        """An Alarm at at_ns; with `vcpu`, not before that vCPU's local time, if it runs."""

        def action(now_ns: int) -> Alarm:
            self._alarms.pop(id(token), None)
            if vcpu is not None and self.is_running(vcpu):
                now_ns = max(now_ns, self.local_ns(vcpu))
            return Alarm(now_ns, token)

        self._alarms[id(token)] = self._agenda.push(at_ns, action, matters=True)

    def cancel(self, token: object) -> None:
        """Forget an alarm."""
        self._agenda.cancel(self._alarms.pop(id(token), None))

    # --- snapshot, restore, reset ----------------------------------------------------------------------------------------------------

    def pause_all(self, now_ns: int) -> int:
        """Pause every vCPU, once more if it is paused already; gives the time when all stand still."""
        for thread in self._vcpus:
            self._director.pause(thread, now_ns, by_session=True)
        return max([now_ns, *(thread.since_ns for thread in self._vcpus)])

    def resume_all(self, now_ns: int) -> None:
        """Undo one pause_all(): whom nothing else keeps paused is resumed."""
        for thread in self._vcpus:
            self._director.resume(thread, max(now_ns, thread.since_ns), by_session=True)

    def set_power(self, vcpu: int, is_online: bool, wants_to_run: bool) -> None:
        """What resuming will do with a paused vCPU: runnable, asleep, or powered off. What was under way for it is forgotten."""
        thread = self._vcpus[vcpu]
        assert thread.is_paused and (is_online or not wants_to_run)
        thread.is_online, thread.sleeps = is_online, is_online and not wants_to_run
        for event in (thread.coming, thread.stall_end):
            self._agenda.cancel(event)
        thread.coming = thread.stall_end = None
        thread.poll_left_ns = thread.vmm_due_ns = thread.vmm_left_ns = thread.stall_ns = 0

    def new_thread(self, vcpu: int, run_delay_ns: int) -> None:
        """The paused vCPU goes on in a thread of a new host, which has waited run_delay_ns so far: all its clocks start anew."""
        thread = self._vcpus[vcpu]
        assert thread.is_paused
        thread.run_delay_ns, thread.yield_delay_ns = run_delay_ns, 0
        thread.offline_ns = thread.suspended_ns = 0

    # --- what is known of a vCPU -----------------------------------------------------------------------------------------------------

    def run_delay_ns(self, vcpu: int) -> int:
        """sched_info.run_delay of the vCPU's thread: its accumulated WAIT, unless threads or clocks were changed."""
        return self._vcpus[vcpu].run_delay_ns

    def clock_ns(self, vcpu: int, which: str) -> int:
        """One of the thread's accumulated times: `wait` (run_delay), `yield` (the part of it that a yield began), `offline` (powered
        off) or `suspend` (host suspend); ns."""
        thread = self._vcpus[vcpu]
        return {
            "wait": thread.run_delay_ns,
            "yield": thread.yield_delay_ns,
            "offline": thread.offline_ns,
            "suspend": thread.suspended_ns,
        }[which]

    def local_ns(self, vcpu: int) -> int:
        """Local time of the vCPU: its pCPU's while it runs, else when it stopped running."""
        thread = self._vcpus[vcpu]
        return self._pcpus[thread.pcpu].local_ns if thread.state is ThreadState.RUN else thread.since_ns

    def is_blocked(self, vcpu: int) -> bool:
        """Whether an interrupt may have to wake it: it is asleep, whatever its thread does since, or it is paused."""
        thread = self._vcpus[vcpu]
        return thread.sleeps or (thread.is_paused and thread.is_online)

    def is_asleep(self, vcpu: int) -> bool:
        """Whether it executed WFI or CPU_SUSPEND and was not woken since: it would go on sleeping if it is paused now."""
        return self._vcpus[vcpu].sleeps

    def is_alone(self, vcpu: int) -> bool:
        """Whether nobody waits for its pCPU. As KVM: HCR_EL2.TWE is clear then (kvm_arch_vcpu_load, single_task_running)."""
        return not self._pcpus[self._vcpus[vcpu].pcpu].queue

    def is_running(self, vcpu: int) -> bool:
        """Whether its guest code is on a pCPU (not so while its thread polls or runs the VMM)."""
        thread = self._vcpus[vcpu]
        return thread.state is ThreadState.RUN and self._pcpus[thread.pcpu].runs_guest
