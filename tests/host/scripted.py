"""Guests that follow a script, and a meter that knows of the host only what its rows say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tracekit.host.config import Directive, HostConfig
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Told, Transition

# State of a thread after a row; `run` with reason turn, migrate and unthrottle change nothing (SPEC 5). yield is a WAIT.
AFTER = {
    "online": "wait", "offline": "offline", "run": "run", "poll": "run", "preempt": "wait", "block": "sleep", "wake": "wait",
    "yield": "yield", "throttle": "wait", "pause": "pause", "resume": "wait", "suspend": "suspend", "unsuspend": "wait",
}  # fmt: skip
# The states in which a row may find its thread.
BEFORE = {
    "online": {"none", "offline"}, "offline": {"none", "run", "wait"}, "run": {"wait", "yield"}, "poll": {"run"},
    "preempt": {"run"}, "block": {"run", "wait"}, "wake": {"sleep"}, "yield": {"run"},
    "migrate": {"wait", "yield", "sleep", "offline", "pause"}, "throttle": {"run", "wait", "yield"}, "unthrottle": {"wait"},
    "pause": {"run", "wait", "yield", "sleep", "offline"}, "resume": {"pause"}, "suspend": {"run", "wait", "yield", "sleep", "pause"},
    "unsuspend": {"suspend"},
}  # fmt: skip
REASONS = {
    "online": {"start", "power_on"}, "offline": {"start", "power_off", "directive"}, "poll": {"wfi", "poll"},
    "run": {"start", "slice", "wakeup", "latency", "balance", "wfi", "wfe", "poll", "suspend", "power_off", "neighbour", "quota",
            "fault", "directive"},
    "preempt": {"slice", "wakeup", "quota", "directive"}, "block": {"wfi", "suspend", "poll", "fault", "neighbour", "directive"},
    "wake": {"timer", "sgi", "fault", "neighbour"}, "yield": {"wfe", "directive"}, "migrate": {"wakeup", "balance", "directive"},
    "throttle": {"quota"}, "unthrottle": {"quota"}, "pause": {"directive"}, "resume": {"directive"}, "suspend": {"directive"},
    "unsuspend": {"directive"},
}  # fmt: skip
ROWS_MAX = 200_000


@dataclass
class Meter:
    """Measures each thread's states from the rows alone; asserts that every row is legal and no time runs backward."""

    rows: list[Transition] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    state: dict[int, str] = field(default_factory=dict)
    since_ns: dict[int, int] = field(default_factory=dict)
    times_ns: dict[int, dict[str, int]] = field(default_factory=dict)
    last_ns: dict[int, int] = field(default_factory=dict)
    pcpu_last_ns: dict[int, int] = field(default_factory=dict)
    on: dict[int, int] = field(default_factory=dict)
    pieces: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    owed_ns: dict[int, int] = field(default_factory=dict)  # run_delay less WAIT, since a thread was changed
    vmm_until_ns: dict[int, int] = field(default_factory=dict)  # the RUN time up to which the VMM has the thread

    def row(self, row: Transition) -> None:
        """One row of `schedule`."""
        self.rows.append(row)
        assert len(self.rows) < ROWS_MAX, "the host does not come to an end"
        thread, now_ns = row.thread, row.vtime_ns
        before = self.state.get(thread, "none")
        assert before in BEFORE[row.event], (row, before)
        assert row.reason in REASONS[row.event], row
        assert now_ns >= self.last_ns.get(thread, 0), row
        assert row.pcpu is not None and now_ns >= self.pcpu_last_ns.get(row.pcpu, 0), row
        if before == "run":
            assert self.on.get(row.pcpu) == thread, row
        passed_ns = now_ns - self.since_ns.get(thread, 0)
        self.last_ns[thread] = self.pcpu_last_ns[row.pcpu] = now_ns
        times = self.times_ns.setdefault(thread, {})
        times[before] = times.get(before, 0) + passed_ns
        if before in ("wait", "yield") and passed_ns:
            self.pieces.setdefault(thread, []).append((now_ns - passed_ns, now_ns))
        self.since_ns[thread] = now_ns
        after = AFTER.get(row.event, before)
        if before == "run" and after != "run":
            del self.on[row.pcpu]
        if row.event == "run":
            assert row.pcpu not in self.on, row
            self.on[row.pcpu] = thread
        self.state[thread] = after

    def tell(self, told: Told) -> None:
        """One row of `directives`."""
        self.told.append(told)
        if told.kind == "thread_change":
            assert told.vcpu is not None
            self.change_thread(told.vcpu, told.value, told.at_ns)
        if told.kind == "vmm":
            assert told.vcpu is not None and self.state[told.vcpu] == "run"
            begin_ns = self.run_ns(told.vcpu, told.at_ns)
            assert begin_ns >= self.vmm_until_ns.get(told.vcpu, 0)
            self.vmm_until_ns[told.vcpu] = begin_ns + told.value

    def change_thread(self, vcpu: int, run_delay_ns: int, now_ns: int) -> None:
        """From now_ns on, another thread with this run_delay."""
        self.owed_ns[vcpu] = run_delay_ns - self.wait_ns(vcpu, now_ns)

    def wait_ns(self, thread: int, now_ns: int | None = None) -> int:
        """WAIT up to the last row, or up to now_ns."""
        times = self.times_ns.get(thread, {})
        ongoing = self.state.get(thread) in ("wait", "yield") and now_ns is not None
        return times.get("wait", 0) + times.get("yield", 0) + ((now_ns or 0) - self.since_ns[thread] if ongoing else 0)

    def run_ns(self, thread: int, now_ns: int) -> int:
        """RUN of a running thread up to now_ns."""
        return self.time_ns(thread, "run") + now_ns - self.since_ns[thread]

    def time_ns(self, thread: int, state: str) -> int:
        """Time in a state up to the last row."""
        return self.times_ns.get(thread, {}).get(state, 0)


@dataclass
class Script:
    """What a vCPU's guest does, again and again: (kind, ns). run; sleep: WFI until a timer in ns; suspend: the same by CPU_SUSPEND; wfe: run,
    then WFE; kick: run, then wake everybody who sleeps; off: CPU_OFF, and somebody calls CPU_ON in ns."""

    steps: list[tuple[str, int]]
    index: int = 0
    left: int = 0


@dataclass
class Driver:
    """Plays the guests, and the session's part, against a Host until a time."""

    host: Host
    scripts: list[Script]
    meter: Meter
    checks_run_delay: bool = True
    entered: list[Enter] = field(default_factory=list)
    delays: list[tuple[int, int]] = field(default_factory=list)  # (vCPU, run_delay) at each entry that loads
    alarms: list[Alarm] = field(default_factory=list)
    timers: int = 0

    @property
    def rows(self) -> list[Transition]:
        """All rows so far."""
        return self.meter.rows

    def run(self, until_ns: int) -> None:
        """Until the first thing that is due at until_ns or later."""
        self.host.start()
        for vcpu in range(1, len(self.scripts)):
            self.host.online(vcpu, 0, "power_on")
        while True:
            step = self.host.next()
            if isinstance(step, Deadlock):
                return
            if isinstance(step, Alarm):
                if step.at_ns >= until_ns:
                    return
                self.alarms.append(step)
                self._alarm(step)
                continue
            if step.now_ns >= until_ns:
                return
            self._enter(step)

    def _alarm(self, alarm: Alarm) -> None:
        if isinstance(alarm.token, Directive):
            self._direct(alarm.token, alarm.at_ns)
        elif alarm.token is self:
            self.host.resume_all(alarm.at_ns)
        else:
            vcpu = int(str(alarm.token).split(":")[1])
            self.host.wake(vcpu, alarm.at_ns, "timer")

    def _direct(self, directive: Directive, now_ns: int) -> None:
        """As the session does: everybody stands still, a new host or a new beginning, and after the downtime all go on."""
        still_ns = self.host.pause_all(now_ns)
        assert {self.meter.state[vcpu] for vcpu in range(len(self.scripts))} == {"pause"}
        for vcpu in range(len(self.scripts)):
            if directive.kind == "restore":
                self.host.new_thread(vcpu, directive.pre_run_ns)
                self.meter.change_thread(vcpu, directive.pre_run_ns, still_ns)
                times = self.meter.times_ns[vcpu]
                times["wait"] = self.meter.wait_ns(vcpu)
                times.update({"yield": 0, "offline": 0, "suspend": 0})
            elif directive.kind == "reset":
                self.host.set_power(vcpu, vcpu == 0, vcpu == 0)
                self.meter.vmm_until_ns.pop(vcpu, None)
                self.scripts[vcpu].index = self.scripts[vcpu].left = 0
        if directive.kind == "reset":
            for vcpu in range(1, len(self.scripts)):
                self.host.online(vcpu, still_ns + (directive.duration_ns or 0) + 50_000 * vcpu, "power_on")
        self.host.call_at(still_ns + (directive.duration_ns or 0), self)

    def _enter(self, step: Enter) -> None:
        self.entered.append(step)
        assert step.now_ns < step.horizon_ns and self.host.is_running(step.vcpu) and not self.host.is_blocked(step.vcpu)
        assert self.meter.state[step.vcpu] == "run" and step.now_ns >= self.meter.last_ns[step.vcpu]
        assert not step.resumes or (step.loaded and step.now_ns >= self.meter.pcpu_last_ns[step.pcpu])
        assert self.meter.run_ns(step.vcpu, step.now_ns) >= self.meter.vmm_until_ns.get(step.vcpu, 0)
        if step.loaded:
            self.delays.append((step.vcpu, self.host.run_delay_ns(step.vcpu)))
        self._check_clocks(step.vcpu)
        script = self.scripts[step.vcpu]
        kind, length = script.steps[script.index % len(script.steps)]
        if kind in ("run", "wfe", "kick") and script.left == 0:
            script.left = length
        ran = min(script.left, step.horizon_ns - step.now_ns)
        script.left -= ran
        now = step.now_ns + ran
        if script.left:
            self.host.ran(step.vcpu, now)
            return
        script.index += 1
        self._end(kind, length, step.vcpu, now)

    def _end(self, kind: str, length: int, vcpu: int, now_ns: int) -> None:
        host = self.host
        if kind in ("sleep", "suspend"):
            host.block(vcpu, now_ns, "wfi" if kind == "sleep" else "suspend")
            self.timers += 1
            host.call_at(now_ns + length, f"w:{vcpu}:{self.timers}", vcpu=vcpu)
        elif kind == "off" and vcpu:
            host.offline(vcpu, now_ns, "power_off")
            host.online(vcpu, now_ns + length, "power_on")
        elif kind == "wfe":
            others_wait = any(state in ("wait", "yield") for state in self.meter.state.values())
            assert host.yield_(vcpu, now_ns, "wfe") <= others_wait
        else:
            for other in range(len(self.scripts)):
                if kind == "kick" and other != vcpu and host.is_blocked(other):
                    host.wake(other, now_ns, "sgi")
            host.ran(vcpu, now_ns)

    def _check_clocks(self, vcpu: int) -> None:
        """While guest code runs, the thread's clocks are what its rows say."""
        meter = self.meter
        if not self.checks_run_delay:
            return
        assert self.host.clock_ns(vcpu, "wait") == meter.wait_ns(vcpu) + meter.owed_ns.get(vcpu, 0)
        assert self.host.clock_ns(vcpu, "offline") == meter.time_ns(vcpu, "offline")
        assert self.host.clock_ns(vcpu, "suspend") == meter.time_ns(vcpu, "suspend")
        if vcpu not in meter.owed_ns:
            assert self.host.clock_ns(vcpu, "yield") == meter.time_ns(vcpu, "yield")


def play(config: HostConfig, scripts: Sequence[Sequence[tuple[str, int]]], until_ns: int, seed: int = 0) -> Driver:
    """A finished run."""
    meter = Meter()
    host = Host(config, len(scripts), seed, meter.row, meter.tell)
    driver = Driver(host, [Script(list(one)) for one in scripts], meter)
    driver.checks_run_delay = not any(one.kind == "clock_skew" for one in config.directives)
    driver.run(until_ns)
    return driver
