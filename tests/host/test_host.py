"""The host model with a scripted guest: golden schedules, partition, order, the local-time rule."""

from __future__ import annotations

import pytest
from host.scripted import play
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.formats.errors import InputError
from tracekit.host.config import Directive, HostConfig, Neighbour
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Transition

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
    for vcpu in range(len(scripts)):
        assert driver.host.run_delay_ns(vcpu) == driver.meter.wait_ns(vcpu)
    for one in driver.entered:
        assert one.now_ns < one.horizon_ns
    assert play(config, scripts, 40_000_000, seed).rows == driver.rows


def test_golden_a_preempted() -> None:
    """A neighbour takes the pCPU from 4 to 7 ms: the vCPU waits 3 ms."""
    config = HostConfig(slice_ns=4_000_000, neighbours=(Neighbour("n", 300_000, 10_000_000),))
    driver = play(config, [[("run", 100_000_000)]], 9_000_000)
    assert driver.meter.pieces[0][0] == (4_000_000, 7_000_000)
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
    assert driver.meter.pieces[0][:2] == [(4_000_000, 5_000_000), (5_000_000, 7_000_000)]
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


def test_no_quantum_for_whom_nobody_runs_beside() -> None:
    """While the others sleep, a vCPU runs up to the next event, however far that is."""
    config = HostConfig(pcpus=3, quantum_ns=100_000)
    driver = play(config, [[("run", 10**9)], [("sleep", 30_000_000)], [("sleep", 30_000_000)]], 40_000_000)
    alone = [enter for enter in driver.entered if enter.vcpu == 0 and enter.now_ns < 29_000_000]
    assert len(alone) < 10
    assert max(enter.horizon_ns - enter.now_ns for enter in alone) > 29_000_000


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
    assert len({str(run.rows) for run in runs}) == 3
    for run in runs:
        assert max(end - begin for pieces in run.meter.pieces.values() for begin, end in pieces) < 200_000_000
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
