"""The host as a discrete-event simulation over the local times of its physical CPUs. Spec: formats/SPEC.md "Time".

Events stand in one heap, ordered by (time, insertion). An event at time T is processed once every pCPU that runs a vCPU has
reached T; until then the vCPU on the pCPU with the smallest (local time, index) is advanced, never more than the quantum past
the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tracekit.formats.errors import InputError
from tracekit.host.config import SESSION_KINDS, Directive, HostConfig
from tracekit.host.policies import policy_for
from tracekit.host.threads import Pcpu, Thread, ThreadState

FAR_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class Transition:
    """A `schedule` row without its place: the recorder adds position and sequence."""

    event: str
    thread: int
    vcpu: int | None
    pcpu: int | None
    from_pcpu: int | None
    reason: str | None
    vtime_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """A `directives` row that the host makes: thread_change, clock_skew or vmm. value may be negative (clock_skew)."""

    kind: str
    vcpu: int | None
    size: int | None
    value: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Enter:
    """Guest code of a vCPU must run from now_ns until at most horizon_ns. loaded: KVM_RUN has just begun, or the thread was just switched in.
    resumes: the thread was on the pCPU since an earlier time, without guest code (poll, VMM): a `run` row with reason turn is due."""

    vcpu: int
    pcpu: int
    now_ns: int
    horizon_ns: int
    loaded: bool
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """A call_at() has come due, or a directive that is the session's (then it is the token)."""

    at_ns: int
    token: object


@dataclass(frozen=True, slots=True)
class Deadlock:
    """No vCPU can ever run again."""

    at_ns: int


class _Event:
    """Something that happens at a time. `matters`: it can make a vCPU runnable."""

    __slots__ = ("action", "at_ns", "is_cancelled", "matters", "number")

    def __init__(self, at_ns: int, number: int, action: Callable[[int], Alarm | None], matters: bool) -> None:
        self.at_ns, self.number, self.action, self.matters = at_ns, number, action, matters
        self.is_cancelled = False

    def __lt__(self, other: _Event) -> bool:
        return (self.at_ns, self.number) < (other.at_ns, other.number)


class Host:
    """Physical CPUs, their queues, vCPU threads (thread i is vCPU i) and neighbours."""

    def __init__(
        self,
        config: HostConfig,
        vcpu_count: int,
        seed: int,
        emit: Callable[[Transition], None],
        tell: Callable[[Told], None] | None = None,
    ) -> None:
        self._config = config
        self._emit_row = emit
        self._tell = tell
        self._policy = policy_for(config, seed)
        self._pcpus = [Pcpu(index) for index in range(config.pcpus)]
        self._threads = [Thread(vcpu, vcpu, None, vcpu % config.pcpus) for vcpu in range(vcpu_count)]
        for index, neighbour in enumerate(config.neighbours):
            pcpu = neighbour.pcpu if neighbour.pcpu is not None else index % config.pcpus
            thread = Thread(vcpu_count + index, None, neighbour, pcpu, weight=neighbour.weight)
            thread.burst_left_ns = neighbour.burst_ns
            self._threads.append(thread)
        self._vcpu_count = vcpu_count
        self._heap: list[_Event] = []
        self._event_number = 0
        self._pending = 0  # events that matter
        self._alarms: dict[int, _Event] = {}
        self._now_ns = 0

    # --- what the recorder asks ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Every thread's first row, at vtime 0, and the first dispatches."""
        for thread in self._threads:
            if thread.vcpu in (None, 0):
                thread.is_online = True
                self._enqueue(thread, 0, "online", "start")
            else:
                self._emit("offline", thread, 0, "start")
        for directive in sorted(self._config.directives, key=lambda one: one.at_ns):
            if directive.vcpu is None or directive.vcpu < self._vcpu_count:
                self._push(directive.at_ns, partial(self._direct, directive), matters=True)
        for pcpu in self._pcpus:
            self._dispatch(pcpu, 0, "start")

    def next(self) -> Enter | Alarm | Deadlock:
        """Advance to the next thing that somebody else must do."""
        while True:
            while self._heap and self._heap[0].is_cancelled:
                heapq.heappop(self._heap)
            event_ns = self._heap[0].at_ns if self._heap else FAR_NS
            running = [p for p in self._pcpus if p.current is not None and p.current.vcpu is not None]
            behind = min((p for p in running if p.local_ns < event_ns), key=lambda p: (p.local_ns, p.index), default=None)
            if behind is not None:
                assert behind.current is not None and behind.current.vcpu is not None
                others = [p.local_ns for p in running if p is not behind]
                horizon = min(event_ns, min(others) + self._config.quantum_ns) if others else event_ns
                loaded, behind.is_loaded = behind.is_loaded, False
                return Enter(behind.current.vcpu, behind.index, behind.local_ns, horizon, loaded)
            if not self._heap or (not self._pending and not running and not self._any_vcpu_waits()):
                return Deadlock(max([self._now_ns, *(p.local_ns for p in self._pcpus)]))
            event = heapq.heappop(self._heap)
            self._pending -= event.matters
            self._now_ns = max(self._now_ns, event.at_ns)
            alarm = event.action(event.at_ns)
            if alarm is not None:
                return alarm

    def _any_vcpu_waits(self) -> bool:
        return any(t.state is not ThreadState.BLOCK for t in self._threads[: self._vcpu_count])

    def ran(self, vcpu: int, now_ns: int) -> None:
        """A vCPU that was entered has reached this local time."""
        thread = self._threads[vcpu]
        assert thread.state is ThreadState.RUN
        self._pcpus[thread.pcpu].local_ns = now_ns

    def block(self, vcpu: int, now_ns: int, reason: str) -> None:
        """The running vCPU's thread goes to sleep."""
        self._leave(self._threads[vcpu], now_ns, "block", reason)

    def offline(self, vcpu: int, now_ns: int, reason: str) -> None:
        """The running vCPU is powered off."""
        self._threads[vcpu].is_online = False
        self._leave(self._threads[vcpu], now_ns, "offline", reason)

    def online(self, vcpu: int, at_ns: int, reason: str) -> None:
        """A vCPU that is off is powered on."""
        thread = self._threads[vcpu]

        def action(now_ns: int) -> None:
            thread.is_online = True
            if thread.vcpu is not None:
                thread.offline_ns += max(now_ns, thread.since_ns) - thread.since_ns
            if thread.is_paused:
                thread.wants_to_run = True
            else:
                self._join(thread, max(now_ns, thread.since_ns), "online", reason)

        self._push(max(at_ns, thread.since_ns), action, matters=True)

    def wake(self, vcpu: int, at_ns: int, reason: str) -> None:
        """A sleeping vCPU becomes runnable at the later of at_ns and the time it fell asleep; else nothing happens."""
        thread = self._threads[vcpu]
        if thread.state is not ThreadState.BLOCK or not thread.is_online or thread.wake_at_ns is not None:
            return
        if thread.is_paused:
            thread.wants_to_run = True
            return
        thread.wake_at_ns = max(at_ns, thread.since_ns)

        def action(now_ns: int) -> None:
            thread.wake_at_ns = None
            if thread.is_paused:
                thread.wants_to_run = True
            elif thread.state is ThreadState.BLOCK:
                self._join(thread, now_ns, "wake", reason)

        self._push(thread.wake_at_ns, action, matters=True)

    def yield_(self, vcpu: int, now_ns: int, reason: str) -> None:
        """The running vCPU gives its pCPU up but stays runnable."""
        thread = self._threads[vcpu]
        pcpu = self._pcpus[thread.pcpu]
        self._stop_running(pcpu, now_ns)
        self._enqueue(thread, now_ns, "yield", reason)
        self._dispatch(pcpu, now_ns, reason)

    def call_at(self, at_ns: int, token: object, *, vcpu: int | None = None) -> None:
        """An Alarm at at_ns; with `vcpu`, not before that vCPU's local time, if it runs."""

        def action(now_ns: int) -> Alarm:
            self._alarms.pop(id(token), None)
            if vcpu is not None and self.is_running(vcpu):
                now_ns = max(now_ns, self.local_ns(vcpu))
            return Alarm(now_ns, token)

        self._alarms[id(token)] = self._push(at_ns, action, matters=True)

    def cancel(self, token: object) -> None:
        """Forget an alarm."""
        event = self._alarms.pop(id(token), None)
        if event is not None:
            event.is_cancelled = True
            self._pending -= 1

    def pause_all(self, now_ns: int) -> int:
        """Pause every vCPU that is not paused; gives the time when all stand still."""
        for thread in self._threads[: self._vcpu_count]:
            if not thread.is_paused:
                thread.is_held = True
                self._pause(thread, now_ns)
        return max([now_ns, *(thread.since_ns for thread in self._threads[: self._vcpu_count])])

    def resume_all(self, now_ns: int) -> None:
        """Resume those that pause_all() paused."""
        for thread in self._threads[: self._vcpu_count]:
            if thread.is_held:
                thread.is_held = False
                self._resume(thread, max(now_ns, thread.since_ns))

    def set_power(self, vcpu: int, is_online: bool, wants_to_run: bool) -> None:
        """What resuming will do with a paused vCPU: runnable, asleep, or powered off."""
        thread = self._threads[vcpu]
        assert thread.is_paused and (is_online or not wants_to_run)
        thread.is_online, thread.wants_to_run = is_online, wants_to_run

    def new_thread(self, vcpu: int, run_delay_ns: int) -> None:
        """The paused vCPU goes on in a thread of a new host, which has waited run_delay_ns so far: all its clocks start anew."""
        thread = self._threads[vcpu]
        assert thread.is_paused
        thread.run_delay_ns, thread.yield_delay_ns = run_delay_ns, 0
        thread.offline_ns = thread.suspended_ns = 0

    def run_delay_ns(self, vcpu: int) -> int:
        """Accumulated WAIT of the vCPU's thread, as sched_info.run_delay."""
        return self._threads[vcpu].run_delay_ns

    def clock_ns(self, vcpu: int, which: str) -> int:
        """One of the thread's accumulated times: `wait` (run_delay), `yield` (the part of it that a yield began), `offline` (powered
        off) or `suspend` (host suspend); ns."""
        thread = self._threads[vcpu]
        return {
            "wait": thread.run_delay_ns,
            "yield": thread.yield_delay_ns,
            "offline": thread.offline_ns,
            "suspend": thread.suspended_ns,
        }[which]

    def local_ns(self, vcpu: int) -> int:
        """Local time of the vCPU: its pCPU's while it runs, else when it stopped running."""
        thread = self._threads[vcpu]
        return self._pcpus[thread.pcpu].local_ns if thread.state is ThreadState.RUN else thread.since_ns

    def is_blocked(self, vcpu: int) -> bool:
        """Whether it sleeps (and is powered on)."""
        thread = self._threads[vcpu]
        return thread.state is ThreadState.BLOCK and thread.is_online

    def is_asleep(self, vcpu: int) -> bool:
        """Whether it sleeps, and would go on sleeping if it is paused now."""
        thread = self._threads[vcpu]
        return self.is_blocked(vcpu) and not (thread.is_paused and thread.wants_to_run)

    def is_running(self, vcpu: int) -> bool:
        """Whether it is on a pCPU."""
        return self._threads[vcpu].state is ThreadState.RUN

    # --- events -----------------------------------------------------------------------------------------------------------------------

    def _push(self, at_ns: int, action: Callable[[int], Alarm | None], *, matters: bool) -> _Event:
        self._event_number += 1
        event = _Event(at_ns, self._event_number, action, matters)
        self._pending += matters
        heapq.heappush(self._heap, event)
        return event

    def _emit(self, event: str, thread: Thread, at_ns: int, reason: str | None, from_pcpu: int | None = None) -> int:
        """One row; a row is never earlier than the one before it of its thread or pCPU. Gives the row's time."""
        pcpu = self._pcpus[thread.pcpu]
        at_ns = max(at_ns, pcpu.last_row_ns, thread.last_row_ns)
        pcpu.last_row_ns = thread.last_row_ns = at_ns
        self._emit_row(Transition(event, thread.number, thread.vcpu, thread.pcpu, from_pcpu, reason, at_ns))
        return at_ns

    # --- queues -------------------------------------------------------------------------------------------------------------------------

    def _enqueue(self, thread: Thread, at_ns: int, event: str, reason: str) -> int:
        at_ns = self._emit(event, thread, at_ns, reason)
        thread.state = ThreadState.WAIT
        thread.has_yielded = event == "yield"
        thread.queued_ns = thread.since_ns = at_ns
        self._pcpus[thread.pcpu].queue.append(thread)
        return at_ns

    def _dequeue(self, thread: Thread, now_ns: int) -> None:
        self._pcpus[thread.pcpu].queue.remove(thread)
        thread.run_delay_ns += now_ns - thread.queued_ns
        if thread.has_yielded:
            thread.yield_delay_ns += now_ns - thread.queued_ns
        thread.queued_ns = now_ns

    def _join(self, thread: Thread, at_ns: int, event: str, reason: str) -> None:
        """A thread becomes runnable: choose its queue, maybe preempt, maybe dispatch."""
        target = self._policy.place(thread, self._pcpus)
        if target != thread.pcpu:
            source, thread.pcpu = thread.pcpu, target
            at_ns = self._emit("migrate", thread, at_ns, "wakeup", source)
        pcpu = self._pcpus[thread.pcpu]
        at_ns = self._enqueue(thread, at_ns, event, reason)
        self._policy.woken(thread, pcpu)
        if pcpu.current is None:
            start = max(at_ns, pcpu.local_ns)
            if self._config.wakeup_latency_ns:
                self._push(start + self._config.wakeup_latency_ns, lambda now: self._dispatch_idle(pcpu, now), matters=True)
            else:
                self._dispatch(pcpu, start, "wakeup")
            return
        now_ns = self._pcpu_now(pcpu, at_ns)
        if self._policy.preempts(thread, pcpu.current, now_ns - pcpu.started_ns):
            self._preempt(pcpu, now_ns, "wakeup")
        else:
            self._ensure_slice(pcpu, now_ns)

    @staticmethod
    def _pcpu_now(pcpu: Pcpu, at_ns: int) -> int:
        """When something of time at_ns can take effect on a busy pCPU."""
        return max(at_ns, pcpu.local_ns)

    def _stop_running(self, pcpu: Pcpu, now_ns: int) -> Thread:
        thread = pcpu.current
        assert thread is not None
        ran_ns = now_ns - pcpu.started_ns
        self._policy.account(thread, ran_ns)
        if thread.neighbour is not None:
            thread.burst_left_ns -= ran_ns
        pcpu.current, pcpu.local_ns = None, now_ns
        pcpu.generation += 1
        pcpu.has_slice_event = False
        return thread

    def _leave(self, thread: Thread, now_ns: int, event: str, reason: str) -> None:
        """The running thread sleeps."""
        pcpu = self._pcpus[thread.pcpu]
        assert pcpu.current is thread
        self._stop_running(pcpu, now_ns)
        at_ns = self._emit(event, thread, now_ns, reason)
        thread.state, thread.since_ns = ThreadState.BLOCK, at_ns
        self._dispatch(pcpu, at_ns, reason)

    def _preempt(self, pcpu: Pcpu, now_ns: int, reason: str) -> None:
        thread = self._stop_running(pcpu, now_ns)
        now_ns = self._enqueue(thread, now_ns, "preempt", reason)
        target = self._policy.move(thread, self._pcpus)
        if target != pcpu.index:
            self._migrate(thread, target, now_ns, "balance")
        self._dispatch(pcpu, now_ns, reason)

    def _migrate(self, thread: Thread, target: int, now_ns: int, reason: str) -> None:
        """Move a waiting thread: its wait is split at the move (pvtime.md 3.2), summed piecewise."""
        source = thread.pcpu
        now_ns = max(now_ns, self._pcpus[source].last_row_ns, self._pcpus[target].last_row_ns, thread.last_row_ns)
        self._dequeue(thread, now_ns)
        thread.pcpu = target
        self._emit("migrate", thread, now_ns, reason, source)
        pcpu = self._pcpus[target]
        pcpu.queue.append(thread)
        if pcpu.current is None:
            self._dispatch(pcpu, max(now_ns, pcpu.local_ns), reason)
        else:
            self._ensure_slice(pcpu, self._pcpu_now(pcpu, now_ns))

    def _dispatch_idle(self, pcpu: Pcpu, now_ns: int) -> None:
        if pcpu.current is None:
            self._dispatch(pcpu, max(now_ns, pcpu.local_ns), "latency")

    def _dispatch(self, pcpu: Pcpu, now_ns: int, reason: str) -> None:
        """A free pCPU takes the next thread, if there is one."""
        if pcpu.current is not None:
            return
        if not pcpu.queue:
            pulled = self._policy.pull(pcpu, self._pcpus)
            if pulled is None:
                pcpu.local_ns = max(pcpu.local_ns, now_ns)
                return
            source = pulled.pcpu
            now_ns = max(now_ns, pulled.queued_ns, self._pcpus[source].last_row_ns, pcpu.last_row_ns)
            self._dequeue(pulled, now_ns)
            pulled.pcpu = pcpu.index
            self._emit("migrate", pulled, now_ns, "balance", source)
            pcpu.queue.append(pulled)
        thread = self._policy.pick(pcpu, now_ns)
        now_ns = max(now_ns, thread.queued_ns)
        now_ns = max(now_ns, pcpu.last_row_ns, thread.last_row_ns)
        self._dequeue(thread, now_ns)
        thread.state, thread.since_ns = ThreadState.RUN, now_ns
        self._emit("run", thread, now_ns, reason)
        pcpu.current, pcpu.started_ns, pcpu.local_ns = thread, now_ns, now_ns
        pcpu.generation += 1
        pcpu.is_loaded = thread.vcpu is not None
        pcpu.slice_ns = self._policy.slice_ns(pcpu, thread)
        pcpu.has_slice_event = False
        if pcpu.queue:
            self._ensure_slice(pcpu, now_ns)
        if thread.neighbour is not None and thread.neighbour.sleep_ns:
            generation = pcpu.generation
            self._push(now_ns + max(0, thread.burst_left_ns), lambda now: self._end_burst(pcpu, generation, now), matters=False)

    def _ensure_slice(self, pcpu: Pcpu, now_ns: int) -> None:
        """Somebody waits: the running thread's slice now has an end."""
        if pcpu.has_slice_event or pcpu.current is None:
            return
        pcpu.has_slice_event = True
        generation = pcpu.generation
        self._push(
            max(now_ns, pcpu.started_ns + pcpu.slice_ns), lambda now: self._end_slice(pcpu, generation, now), matters=False
        )

    def _end_slice(self, pcpu: Pcpu, generation: int, now_ns: int) -> None:
        if pcpu.generation != generation:
            return
        pcpu.has_slice_event = False
        if pcpu.queue:
            self._preempt(pcpu, self._pcpu_now(pcpu, now_ns), "slice")

    # --- neighbours -----------------------------------------------------------------------------------------------------------------------

    def _end_burst(self, pcpu: Pcpu, generation: int, now_ns: int) -> None:
        if pcpu.generation != generation:
            return
        thread = pcpu.current
        assert thread is not None and thread.neighbour is not None
        neighbour = thread.neighbour
        self._stop_running(pcpu, now_ns)
        at_ns = self._emit("block", thread, now_ns, "neighbour")
        thread.state, thread.since_ns = ThreadState.BLOCK, at_ns
        thread.burst_left_ns = neighbour.burst_ns
        self._push(at_ns + neighbour.sleep_ns, lambda now: self._join(thread, now, "wake", "neighbour"), matters=False)
        self._dispatch(pcpu, at_ns, "neighbour")

    # --- directives -------------------------------------------------------------------------------------------------------------------------

    def _direct(self, directive: Directive, now_ns: int) -> Alarm | None:
        if directive.kind in SESSION_KINDS:
            return Alarm(now_ns, directive)
        chosen = self._threads[: self._vcpu_count] if directive.vcpu is None else [self._threads[directive.vcpu]]
        for thread in chosen:
            self._direct_thread(directive, thread, now_ns)
        return None

    def _direct_thread(self, directive: Directive, thread: Thread, now_ns: int) -> None:
        match directive.kind:
            case "pause":
                self._pause(thread, now_ns)
            case "resume":
                self._resume(thread, now_ns)
            case "migrate":
                assert directive.pcpu is not None
                self._move_to(thread, directive.pcpu, now_ns)
            case _:
                raise InputError(f"host.directives.kind = {directive.kind!r}: not carried out by this version")

    def _pause(self, thread: Thread, now_ns: int) -> None:
        """Stopped, not stolen from: the thread is BLOCK until it is resumed (pvtime.md 3.13)."""
        if thread.is_paused:
            return
        thread.is_paused = True
        thread.wants_to_run = thread.state is not ThreadState.BLOCK
        pcpu = self._pcpus[thread.pcpu]
        if thread.state is ThreadState.RUN:
            now_ns = self._pcpu_now(pcpu, now_ns)
            self._leave(thread, now_ns, "pause", "directive")
            return
        if thread.state is ThreadState.WAIT:
            now_ns = max(now_ns, thread.last_row_ns, pcpu.last_row_ns)
            self._dequeue(thread, now_ns)
        at_ns = self._emit("pause", thread, now_ns, "directive")
        thread.state, thread.since_ns = ThreadState.BLOCK, at_ns

    def _resume(self, thread: Thread, now_ns: int) -> None:
        """Runnable again; one that was asleep falls asleep again at once."""
        if not thread.is_paused:
            return
        thread.is_paused = False
        if thread.wants_to_run:
            self._join(thread, now_ns, "resume", "directive")
            return
        at_ns = self._emit("resume", thread, now_ns, "directive")
        at_ns = self._emit("block" if thread.is_online else "offline", thread, at_ns, "directive")
        thread.since_ns = at_ns

    def _move_to(self, thread: Thread, target: int, now_ns: int) -> None:
        source = self._pcpus[thread.pcpu]
        if target == source.index:
            return
        if thread.state is ThreadState.RUN:
            now_ns = self._pcpu_now(source, now_ns)
            self._stop_running(source, now_ns)
            now_ns = self._enqueue(thread, now_ns, "preempt", "directive")
            self._migrate(thread, target, now_ns, "directive")
            self._dispatch(source, now_ns, "directive")
        elif thread.state is ThreadState.WAIT:
            self._migrate(thread, target, now_ns, "directive")
        else:
            now_ns = max(now_ns, thread.last_row_ns)
            thread.pcpu = target
            self._emit("migrate", thread, now_ns, "directive", source.index)
