"""The host model with a scripted guest: golden schedules, partition, order, the local-time rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.formats.errors import InputError
from tracekit.host.config import Directive, HostConfig, Neighbour
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Transition

AFTER = {
    "online": "wait", "offline": "block", "run": "run", "preempt": "wait", "block": "block", "wake": "wait", "yield": "wait",
    "pause": "block", "resume": "wait",
}  # fmt: skip


@dataclass
class Script:
    """What a vCPU's guest does: ("run", ns) and ("sleep", ns), again and again."""

    steps: list[tuple[str, int]]
    index: int = 0
    left: int = 0


@dataclass
class Driver:
    """Plays the guests against a Host until a time."""

    host: Host
    scripts: list[Script]
    rows: list[Transition]
    entered: list[Enter] = field(default_factory=list)
    delays: list[tuple[int, int]] = field(default_factory=list)

    def run(self, until_ns: int) -> None:
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
                self.host.wake(int(str(step.token)[2:]), step.at_ns, "timer")
                continue
            if step.now_ns >= until_ns:
                return
            self._enter(step)

    def _enter(self, step: Enter) -> None:
        self.entered.append(step)
        if step.loaded:
            self.delays.append((step.vcpu, self.host.run_delay_ns(step.vcpu)))
        script = self.scripts[step.vcpu]
        kind, length = script.steps[script.index % len(script.steps)]
        if script.left == 0:
            script.left = length
        ran = min(script.left, step.horizon_ns - step.now_ns)
        script.left -= ran
        now = step.now_ns + ran
        if script.left:
            self.host.ran(step.vcpu, now)
            return
        script.index += 1
        if kind == "sleep":
            self.host.block(step.vcpu, now, "wfi")
            self.host.call_at(now + length, f"w:{step.vcpu}", vcpu=step.vcpu)
        else:
            self.host.ran(step.vcpu, now)


def play(config: HostConfig, scripts: list[list[tuple[str, int]]], until_ns: int, seed: int = 0) -> Driver:
    """A finished run."""
    rows: list[Transition] = []
    driver = Driver(Host(config, len(scripts), seed, rows.append), [Script(list(one)) for one in scripts], rows)
    driver.run(until_ns)
    return driver


def waits(rows: list[Transition]) -> dict[int, list[tuple[int, int]]]:
    """WAIT pieces of each thread, recomputed from the rows alone; asserts that every change is legal."""
    state: dict[int, tuple[str, int]] = {}
    out: dict[int, list[tuple[int, int]]] = {}
    on: dict[int, int] = {}
    thread_time: dict[int, int] = {}
    pcpu_time: dict[int, int] = {}
    for row in rows:
        assert row.vtime_ns >= thread_time.get(row.thread, 0), row
        assert row.pcpu is None or row.vtime_ns >= pcpu_time.get(row.pcpu, 0), row
        thread_time[row.thread] = row.vtime_ns
        if row.pcpu is not None:
            pcpu_time[row.pcpu] = row.vtime_ns
        before, since = state.get(row.thread, ("none", 0))
        if before == "wait":
            out.setdefault(row.thread, []).append((since, row.vtime_ns))
        if row.event in AFTER:
            after = AFTER[row.event]
            if before == "run":
                on = {pcpu: thread for pcpu, thread in on.items() if thread != row.thread}
            if after == "run":
                assert before == "wait" and row.pcpu is not None and row.pcpu not in on, row
                on[row.pcpu] = row.thread
            state[row.thread] = (after, row.vtime_ns)
        else:
            assert row.event == "migrate" and before != "run", row
            state[row.thread] = (before, row.vtime_ns)
    return out


POLICIES = ("round-robin", "fair", "chaos")
STEP = st.tuples(st.sampled_from(["run", "run", "sleep"]), st.integers(20_000, 5_000_000))


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    pcpus=st.integers(1, 3),
    scripts=st.lists(st.lists(STEP, min_size=1, max_size=5), min_size=1, max_size=4),
    duties=st.lists(st.integers(1, 100), max_size=3),
    seed=st.integers(0, 1000),
    latency=st.sampled_from([0, 50_000]),
)
def test_every_schedule_is_sound(
    policy: str, pcpus: int, scripts: list[list[tuple[str, int]]], duties: list[int], seed: int, latency: int
) -> None:
    """Partition, order, one thread on a pCPU, run_delay = WAIT, the quantum, and determinism."""
    neighbours = tuple(Neighbour(f"n{i}", duty * 10_000, 3_000_000) for i, duty in enumerate(duties))
    config = HostConfig(pcpus=pcpus, policy=policy, neighbours=neighbours, wakeup_latency_ns=latency)
    driver = play(config, scripts, 40_000_000, seed)
    pieces = waits(driver.rows)
    for vcpu in range(len(scripts)):
        total = sum(end - begin for begin, end in pieces.get(vcpu, []))
        assert driver.host.run_delay_ns(vcpu) in (total, *(total - (e - b) for b, e in pieces.get(vcpu, [])[-1:]))
    for one in driver.entered:
        assert one.now_ns < one.horizon_ns
    assert play(config, scripts, 40_000_000, seed).rows == driver.rows


def test_golden_a_preempted() -> None:
    """A neighbour takes the pCPU from 4 to 7 ms: the vCPU waits 3 ms."""
    config = HostConfig(slice_ns=4_000_000, neighbours=(Neighbour("n", 300_000, 10_000_000),))
    driver = play(config, [[("run", 100_000_000)]], 9_000_000)
    assert next(piece for piece in waits(driver.rows)[0] if piece[0] != piece[1]) == (4_000_000, 7_000_000)
    assert (0, 3_000_000) in driver.delays


def test_golden_b_sleep_is_not_wait() -> None:
    """Blocked from 2 to 9 ms, then 1 ms of wake-up latency."""
    config = HostConfig(wakeup_latency_ns=1_000_000)
    rows: list[Transition] = []
    host = Host(config, 1, 0, rows.append)
    host.start()
    first = host.next()
    assert isinstance(first, Enter)
    host.block(0, 2_000_000, "wfi")
    host.call_at(9_000_000, "alarm", vcpu=0)
    alarm = host.next()
    assert alarm == Alarm(9_000_000, "alarm")
    host.wake(0, 9_000_000, "timer")
    again = host.next()
    assert isinstance(again, Enter) and again.now_ns == 10_000_000 and again.loaded
    assert host.run_delay_ns(0) == 1_000_000


def test_golden_d_migrated_while_waiting() -> None:
    """The wait is split at the move and summed piecewise."""
    config = HostConfig(
        pcpus=2,
        slice_ns=4_000_000,
        neighbours=(
            Neighbour("a", 1_000_000, 10_000_000, 0),
            Neighbour("c", 100_000, 30_000_000, 1),
            Neighbour("b", 1_000_000, 10_000_000, 1),
        ),
        directives=(Directive(5_000_000, "migrate", 0, 1),),
    )
    driver = play(config, [[("run", 100_000_000)]], 12_000_000)
    moves = [row for row in driver.rows if row.event == "migrate"]
    assert [(row.vtime_ns, row.from_pcpu, row.pcpu) for row in moves] == [(5_000_000, 0, 1)]
    pieces = [piece for piece in waits(driver.rows)[0] if piece[0] != piece[1]]
    assert pieces[:2] == [(4_000_000, 5_000_000), (5_000_000, 7_000_000)]
    assert (0, 3_000_000) in driver.delays


def test_two_pcpus_stay_within_the_quantum() -> None:
    """The engine advances the pCPU that is behind, never more than the quantum past the other."""
    config = HostConfig(pcpus=2, quantum_ns=100_000)
    driver = play(config, [[("run", 10**9)], [("run", 10**9)]], 5_000_000)
    local = [0, 0]
    for enter in driver.entered:
        other = local[1 - enter.pcpu]
        assert enter.now_ns <= other or local[enter.pcpu] <= other
        assert enter.horizon_ns <= other + 100_000 or len(driver.entered) < 3
        local[enter.pcpu] = enter.horizon_ns
    assert abs(local[0] - local[1]) <= 100_000


def test_a_wake_lands_at_the_later_time() -> None:
    """A wake from a vCPU that is behind reaches a sleeper no earlier than it fell asleep."""
    rows: list[Transition] = []
    host = Host(HostConfig(pcpus=2, quantum_ns=500_000), 2, 0, rows.append)
    host.start()
    host.online(1, 0, "power_on")
    seen: list[Enter] = []
    while len(seen) < 2:
        step = host.next()
        assert isinstance(step, Enter)
        seen.append(step)
        if step.vcpu == 0:
            host.ran(0, 300_000)
        else:
            host.block(1, 400_000, "wfi")
    host.wake(1, 310_000, "sgi")
    while not [row for row in rows if row.event == "wake"]:
        step = host.next()
        if isinstance(step, Enter) and step.vcpu == 0:
            host.ran(0, step.horizon_ns)
    assert [row.vtime_ns for row in rows if row.event == "wake"] == [400_000]


def test_pause_is_not_wait() -> None:
    """A paused vCPU is BLOCK, and goes on where it stood."""
    config = HostConfig(directives=(Directive(1_000_000, "pause", 0), Directive(6_000_000, "resume", 0)))
    driver = play(config, [[("run", 100_000_000)]], 8_000_000)
    assert [(row.event, row.vtime_ns) for row in driver.rows[2:]] == [
        ("pause", 1_000_000),
        ("resume", 6_000_000),
        ("run", 6_000_000),
    ]
    assert driver.host.run_delay_ns(0) == 0


def test_nobody_can_wake() -> None:
    """Neighbours alone do not keep a guest alive."""
    rows: list[Transition] = []
    host = Host(HostConfig(neighbours=(Neighbour("n"),)), 1, 0, rows.append)
    host.start()
    while not isinstance(step := host.next(), Enter):
        pass
    host.block(0, step.now_ns + 10, "wfi")
    assert isinstance(host.next(), Deadlock)


def test_chaos_differs_by_seed() -> None:
    """Another seed, another schedule; nobody starves."""
    config = HostConfig(policy="chaos", neighbours=(Neighbour("n", 1_000_000),))
    runs = [play(config, [[("run", 10**9)], [("run", 10**9)]], 200_000_000, seed) for seed in range(3)]
    assert len({tuple(run.rows) for run in runs}) == 3
    for run in runs:
        assert max(end - begin for pieces in waits(run.rows).values() for begin, end in pieces) < 200_000_000
        assert len({enter.vcpu for enter in run.entered}) == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"policy": "lottery"}, "host.policy = 'lottery': must be one of round-robin, fair, chaos"),
        ({"pcpus": 0}, "host.pcpus = 0: must be from 1 to 16"),
        ({"slice_ns": 1}, "host.slice"),
        ({"neighbours": (Neighbour("n", 0),)}, "duty must be above 0%"),
        ({"neighbours": (Neighbour("n", pcpu=3),)}, "there is no pCPU 3"),
        ({"directives": (Directive(0, "explode", 0),)}, "host.directives.kind"),
        ({"directives": (Directive(0, "migrate", 0),)}, "host.directives.pcpu"),
    ],
)
def test_wrong_configuration(changes: dict[str, object], text: str) -> None:
    """One line that names the key."""
    with pytest.raises(InputError, match=text.replace("(", r"\(")):
        HostConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "fast", "50%:soon", "50%@first"])
def test_wrong_neighbours(text: str) -> None:
    """DUTY[:PERIOD][@PCPU]."""
    with pytest.raises(InputError):
        Neighbour.parse(text, 0)


def test_neighbours_are_parsed() -> None:
    """Duty in parts of a million, period in ns."""
    assert Neighbour.parse("12.5%:4ms@1", 3) == Neighbour("neighbour3", 125_000, 4_000_000, 1)
