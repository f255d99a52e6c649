"""What a scenario does to the host and to threads, where one thing meets another. Times in us."""

from __future__ import annotations

import pytest
from host.scripted import Driver, Meter, play

from tracekit.formats.errors import InputError
from tracekit.host.config import Directive, HostConfig, Neighbour
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Told

US = 1_000
BUSY = [("run", 1_000_000)]
HOG = Neighbour("hog", 1_000_000)
THREE = Neighbour("three", 30_000, 100_000_000)


def host(*directives: Directive, **changes: object) -> HostConfig:
    """4 ms slices."""
    return HostConfig(slice_ns=4_000 * US, directives=directives, **changes)  # type: ignore[arg-type]


def at(us: int, kind: str, vcpu: int | None = 0, duration: int | None = None, value: int | None = None) -> Directive:
    """A directive; duration in us."""
    return Directive(us * US, kind, vcpu, duration_ns=None if duration is None else duration * US, value=value)


def seen(driver: Driver, thread: int = 0) -> list[tuple[str, str | None, int]]:
    """A thread's rows after its first."""
    return [(row.event, row.reason, row.vtime_ns // US) for row in driver.rows if row.thread == thread][1:]


def loads(driver: Driver) -> list[tuple[int, bool]]:
    """(time, resumes) of the entries that load."""
    return [(one.now_ns // US, one.resumes) for one in driver.entered if one.loaded]


# --- polling -------------------------------------------------------------------------------------------------------------------------


def test_a_poll_that_is_woken_enters_the_guest_anew() -> None:
    """No row of the host: the session tells the turn."""
    driver = play(host(halt_poll_ns=5_000 * US), [[("run", 1_000 * US), ("sleep", 2_000 * US)]], 4_000 * US)
    assert seen(driver) == [("run", "start", 0), ("poll", "wfi", 1_000)]
    assert loads(driver) == [(0, False), (3_000, True)]


def test_a_poll_ends_in_sleep() -> None:
    """After halt_poll_ns."""
    driver = play(host(halt_poll_ns=500 * US), [[("run", 1_000 * US), ("sleep", 2_000 * US)]], 3_500 * US)
    assert seen(driver) == [
        ("run", "start", 0), ("poll", "wfi", 1_000), ("block", "poll", 1_500), ("wake", "timer", 3_000), ("run", "wakeup", 3_000),
    ]  # fmt: skip


def test_woken_while_it_waits_for_the_end_of_its_poll() -> None:
    """Preempted while polling at 4, woken at 5: at 7 it enters the guest."""
    driver = play(
        host(halt_poll_ns=9_000 * US, neighbours=(THREE,)), [[("run", 3_000 * US), ("sleep", 2_000 * US), *BUSY]], 8_000 * US
    )
    assert loads(driver) == [(0, False), (7_000, False)]


def test_a_poller_is_asleep_for_whoever_asks() -> None:
    """is_blocked, not is_running; its local time is the poll's begin."""
    meter = Meter()
    one = Host(host(halt_poll_ns=5_000 * US), 1, 0, meter.row)
    one.start()
    assert isinstance(one.next(), Enter)
    one.block(0, 1_000 * US, "wfi")
    assert one.is_blocked(0) and one.is_asleep(0) and not one.is_running(0) and one.local_ns(0) == 1_000 * US
    one.wake(0, 0, "sgi")
    assert one.next() == Enter(0, 0, 1_000 * US, 1 << 62, True, True)


def test_a_poll_that_nothing_ends_is_a_deadlock() -> None:
    """After it has fallen asleep."""
    meter = Meter()
    one = Host(host(halt_poll_ns=5_000 * US), 1, 0, meter.row)
    one.start()
    assert isinstance(one.next(), Enter)
    one.block(0, 1_000 * US, "wfi")
    assert one.next() == Deadlock(6_000 * US)


def test_a_wake_up_preempts_a_poller() -> None:
    """Fair: the neighbour that wakes has run less."""
    config = HostConfig(policy="fair", halt_poll_ns=50_000 * US, neighbours=(Neighbour("n", 100_000, 10_000_000),))
    driver = play(config, [[("run", 6_000 * US), ("sleep", 30_000 * US), *BUSY]], 30_000 * US)
    assert ("preempt", "wakeup") in [row[:2] for row in seen(driver)[3:]]
    assert driver.meter.wait_ns(0) == driver.host.clock_ns(0, "wait") > 0


def test_pause_ends_a_poll() -> None:
    """It is asleep when it is resumed."""
    config = host(at(2_000, "pause"), at(3_000, "resume"), halt_poll_ns=9_000 * US)
    driver = play(config, [[("run", 1_000 * US), ("sleep", 4_000 * US), *BUSY]], 7_000 * US)
    assert seen(driver)[1:] == [
        ("poll", "wfi", 1_000), ("pause", "directive", 2_000), ("resume", "directive", 3_000), ("block", "directive", 3_000),
        ("wake", "timer", 5_000), ("run", "wakeup", 5_000),
    ]  # fmt: skip


# --- the VMM -------------------------------------------------------------------------------------------------------------------------


def test_vmm_time_is_run_without_guest_code() -> None:
    """Told when it begins; the guest goes on after it, loaded."""
    driver = play(host(at(1_000, "vmm", duration=2_000)), [BUSY], 4_000 * US)
    assert driver.meter.told == [Told("vmm", 0, None, 2_000 * US, 1_000 * US)]
    assert loads(driver) == [(0, False), (3_000, True)]


def test_vmm_preempted_goes_on_with_what_is_left() -> None:
    """1 of 2 ms done before it is preempted at 4: the guest enters at 8."""
    driver = play(host(at(3_000, "vmm", duration=2_000), neighbours=(THREE,)), [BUSY], 9_000 * US)
    assert loads(driver) == [(0, False), (8_000, True)] and driver.delays[-1] == (0, 3_000 * US)


def test_vmm_time_of_a_sleeper_comes_before_its_guest_code() -> None:
    """Told when it begins, after the wake; two of them add up."""
    config = host(at(2_000, "vmm", duration=300), at(2_500, "vmm", duration=700))
    driver = play(config, [[("run", 1_000 * US), ("sleep", 4_000 * US), *BUSY]], 7_000 * US)
    assert driver.meter.told == [Told("vmm", 0, None, 1_000 * US, 5_000 * US)]
    assert loads(driver) == [(0, False), (6_000, True)]


def test_vmm_time_during_vmm_time_comes_after_it() -> None:
    """And is told then; the guest goes on once."""
    driver = play(host(at(1_000, "vmm", duration=2_000), at(2_000, "vmm", duration=500)), [BUSY], 4_000 * US)
    assert [(one.at_ns // US, one.value // US) for one in driver.meter.told] == [(1_000, 2_000), (3_000, 500)]
    assert loads(driver) == [(0, False), (3_500, True)]


def test_a_vcpu_that_is_off_has_no_vmm_time_and_no_fault() -> None:
    """Nothing is told, nothing is kept for later."""
    config = host(at(2_000, "vmm", 1, duration=300), at(2_000, "stall", 1, duration=300), pcpus=2)
    driver = play(config, [BUSY, [("run", 1_000 * US), ("off", 3_000 * US)]], 6_000 * US)
    assert driver.meter.told == []
    assert [row for row in seen(driver, 1) if row[0] == "block"] == []


# --- faults --------------------------------------------------------------------------------------------------------------------------


def test_an_interrupt_does_not_end_a_stall() -> None:
    """wake() has no effect before the fault is served."""
    meter = Meter()
    one = Host(host(at(1_000, "stall", duration=5_000)), 1, 0, meter.row)
    one.start()
    first = one.next()
    assert isinstance(first, Enter) and first.horizon_ns == 1_000 * US
    one.ran(0, 1_000 * US)
    one.call_at(2_000 * US, "interrupt")
    assert one.next() == Alarm(2_000 * US, "interrupt")
    assert not one.is_blocked(0) and not one.is_asleep(0)
    one.wake(0, 2_000 * US, "interrupt")
    assert one.next() == Enter(0, 0, 6_000 * US, 1 << 62, True)


def test_a_sleeper_meets_no_fault() -> None:
    """Nor does a poller."""
    for poll_ns in (0, 9_000 * US):
        config = host(at(2_000, "stall", duration=5_000), halt_poll_ns=poll_ns)
        driver = play(config, [[("run", 1_000 * US), ("sleep", 2_000 * US), *BUSY]], 4_000 * US)
        assert loads(driver)[-1][0] == 3_000


def test_a_waiting_vcpu_meets_the_fault_when_it_runs() -> None:
    """Preempted at 4, fault at 5, run and block at 7, guest code at 9."""
    driver = play(host(at(5_000, "stall", duration=2_000), neighbours=(THREE,)), [BUSY], 10_000 * US)
    assert seen(driver)[2:] == [
        ("run", "neighbour", 7_000), ("block", "fault", 7_000), ("wake", "fault", 9_000), ("run", "wakeup", 9_000),
    ]  # fmt: skip
    assert loads(driver) == [(0, False), (9_000, False)]


def test_a_fault_is_served_while_paused() -> None:
    """Resumed before the end: asleep again until it; after the end: runnable."""
    before = play(host(at(1_000, "stall", duration=5_000), at(2_000, "pause"), at(4_000, "resume")), [BUSY], 7_000 * US)
    assert seen(before)[1:] == [
        ("block", "fault", 1_000), ("pause", "directive", 2_000), ("resume", "directive", 4_000), ("block", "fault", 4_000),
        ("wake", "fault", 6_000), ("run", "wakeup", 6_000),
    ]  # fmt: skip
    after = play(host(at(1_000, "stall", duration=2_000), at(2_000, "pause"), at(4_000, "resume")), [BUSY], 7_000 * US)
    assert seen(after)[2:] == [("pause", "directive", 2_000), ("resume", "directive", 4_000), ("run", "wakeup", 4_000)]


# --- yields and bandwidth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["round-robin", "fair", "chaos"])
def test_a_yield_lets_another_run(policy: str) -> None:
    """Whatever the policy would have picked."""
    driver = play(HostConfig(policy=policy, neighbours=(HOG,)), [[("wfe", 100 * US)]], 40_000 * US)
    rows = driver.rows
    yields = [index for index, row in enumerate(rows) if row.event == "yield"]
    assert yields and all(rows[index + 1].event == "run" and rows[index + 1].thread == 1 for index in yields)
    assert driver.host.clock_ns(0, "yield") == driver.meter.time_ns(0, "yield") > 0


def test_everybody_yields_once() -> None:
    """Whoever runs because another yields does not yield itself."""
    driver = play(host(at(1_000, "yield", None)), [BUSY, BUSY], 2_000 * US)
    assert [row.thread for row in driver.rows if row.event == "yield"] == [0]


def test_quota_is_not_saved_up() -> None:
    """Asleep for two periods, it still has one quota."""
    config = host(quota_ns=1_000 * US, quota_period_ns=5_000 * US)
    driver = play(config, [[("run", 500 * US), ("sleep", 14_500 * US), *BUSY]], 20_000 * US)
    assert seen(driver)[2:6] == [
        ("wake", "timer", 15_000), ("run", "wakeup", 15_000), ("throttle", "quota", 16_000), ("unthrottle", "quota", 20_000),
    ]  # fmt: skip


def test_what_ran_before_a_preemption_is_charged() -> None:
    """4 of 5 ms before it; 1 after it; a wait is not charged."""
    config = host(quota_ns=5_000 * US, quota_period_ns=50_000 * US, neighbours=(THREE,))
    driver = play(config, [BUSY], 10_000 * US)
    assert seen(driver)[1:4] == [("preempt", "slice", 4_000), ("run", "neighbour", 7_000), ("throttle", "quota", 8_000)]


def test_a_throttling_ends_a_yield() -> None:
    """What follows is not waited for the yield's sake."""
    config = host(quota_ns=1_000 * US, quota_period_ns=5_000 * US, neighbours=(THREE,))
    driver = play(config, [[("wfe", 1_000 * US), *BUSY]], 5_500 * US)
    assert seen(driver)[1:] == [
        ("yield", "wfe", 1_000), ("throttle", "quota", 1_000), ("unthrottle", "quota", 5_000), ("run", "quota", 5_000),
        ("throttle", "quota", 6_000), ("unthrottle", "quota", 10_000), ("run", "quota", 10_000),
    ]  # fmt: skip
    assert driver.host.clock_ns(0, "yield") == 0 and driver.delays[1] == (0, 4_000 * US)


def test_polling_and_the_vmm_use_the_quota() -> None:
    """They are the thread's own time."""
    config = host(at(4_000, "vmm", duration=2_000), quota_ns=3_000 * US, quota_period_ns=4_000 * US, halt_poll_ns=9_000 * US)
    driver = play(
        config, [[("run", 1_000 * US), ("sleep", 2_500 * US), ("run", 1_500 * US), ("sleep", 50_000 * US)]], 20_000 * US
    )
    assert seen(driver)[1:7] == [
        ("poll", "wfi", 1_000), ("throttle", "quota", 3_000), ("unthrottle", "quota", 4_000), ("run", "quota", 4_000),
        ("throttle", "quota", 7_000), ("unthrottle", "quota", 8_000),
    ]  # fmt: skip
    assert loads(driver) == [(0, False), (6_000, True), (8_000, False)]


def test_a_throttled_thread_can_be_moved_paused_and_suspended() -> None:
    """It stays out of every queue until its next period."""
    config = host(
        Directive(1_500 * US, "migrate", 0, 1), at(2_000, "pause"), at(3_000, "resume"), at(4_000, "suspend", None, 100),
        pcpus=2, quota_ns=1_000 * US, quota_period_ns=5_000 * US,
    )  # fmt: skip
    driver = play(config, [BUSY], 6_000 * US)
    assert seen(driver)[1:] == [
        ("throttle", "quota", 1_000), ("migrate", "directive", 1_500), ("pause", "directive", 2_000), ("resume", "directive", 3_000),
        ("throttle", "quota", 3_000), ("suspend", "directive", 4_000), ("unsuspend", "directive", 4_100), ("throttle", "quota", 4_100),
        ("unthrottle", "quota", 5_000), ("run", "quota", 5_000), ("throttle", "quota", 6_000), ("unthrottle", "quota", 10_000),
        ("run", "quota", 10_000),
    ]  # fmt: skip


# --- the whole host ------------------------------------------------------------------------------------------------------------------


def test_suspend_stops_everybody_and_what_lay_inside_comes_after_it() -> None:
    """Runner, waiter, sleeper, neighbour and one that is off, which has no row; the sleeper's timer at 3 fires at 11."""
    config = host(
        at(2_000, "suspend", None, 9_000), at(4_000, "pause", 1), pcpus=3, neighbours=(Neighbour("hog", 1_000_000, pcpu=2),)
    )
    scripts = [[("run", 1_000 * US), ("sleep", 2_000 * US), *BUSY], BUSY, BUSY, [("run", 100 * US), ("off", 90_000 * US)]]
    driver = play(config, scripts, 12_000 * US)
    ends = {row.thread: row for row in driver.rows if row.event == "unsuspend"}
    assert sorted(ends) == [0, 1, 2, 4] and {row.vtime_ns for row in ends.values()} == {11_000 * US}
    after = [row for row in driver.rows if row.vtime_ns >= 11_000 * US]
    assert [(row.event, row.reason) for row in after if row.thread == 0][:3] == [
        ("unsuspend", "directive"), ("block", "directive"), ("wake", "timer"),
    ]  # fmt: skip
    assert [row.event for row in after if row.thread == 1][:3] == ["unsuspend", "run", "pause"]
    for vcpu in (0, 1, 2):
        assert driver.host.clock_ns(vcpu, "suspend") == driver.meter.time_ns(vcpu, "suspend") >= 9_000 * US
    assert driver.host.clock_ns(3, "suspend") == 0


def test_suspend_keeps_the_order_of_what_it_postpones() -> None:
    """Twice, the second during the first's end."""
    meter = Meter()
    one = Host(host(at(1_000, "suspend", None, 5_000), at(1_500, "suspend", None, 1_000)), 1, 0, meter.row)
    times = [5_900 - 100 * (index * 7 % 20) for index in range(20)]
    for index, when in enumerate(times):
        one.call_at(when * US, (when, index))
    one.start()
    alarms: list[tuple[object, int]] = []
    while len(alarms) < 20:
        step = one.next()
        if isinstance(step, Enter):
            one.ran(0, step.horizon_ns)
        elif isinstance(step, Alarm):
            alarms.append((step.token, step.at_ns // US))
    assert alarms == [((when, index), 7_000) for when, index in sorted((when, index) for index, when in enumerate(times))]


def test_a_paused_vcpu_stays_paused_over_a_suspend() -> None:
    """And counts what the host slept."""
    driver = play(host(at(1_000, "pause"), at(2_000, "suspend", None, 1_000), at(5_000, "resume")), [BUSY], 6_000 * US)
    assert seen(driver)[1:] == [
        ("pause", "directive", 1_000), ("suspend", "directive", 2_000), ("unsuspend", "directive", 3_000), ("pause", "directive", 3_000),
        ("resume", "directive", 5_000), ("run", "wakeup", 5_000),
    ]  # fmt: skip
    assert driver.host.clock_ns(0, "suspend") == 1_000 * US


# --- other threads, other hosts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (2_000, [(0, 0), (0, 77), (0, 77 + 3_000 * US)]),  # it runs: loaded at once
        (5_000, [(0, 0), (0, 77 + 2_000 * US)]),  # it waits: the new thread from 5 on
    ],
)
def test_thread_change(when: int, expected: list[tuple[int, int]]) -> None:
    """The new thread has a run_delay of its own; the schedule says nothing of it."""
    driver = play(host(at(when, "thread_change", value=77), neighbours=(THREE,)), [BUSY], 8_000 * US)
    assert driver.delays == expected
    assert driver.meter.told == [Told("thread_change", 0, None, 77, when * US)]
    assert driver.meter.wait_ns(0) == 3_000 * US


def test_thread_change_of_all() -> None:
    """vcpu None; the default is a thread that has not waited yet."""
    driver = play(host(at(1_000, "thread_change", None), pcpus=2), [BUSY, [("run", 500 * US), ("sleep", 900 * US)]], 2_000 * US)
    assert [(one.vcpu, one.value) for one in driver.meter.told] == [(0, 0), (1, 0)]


def test_pauses_of_session_and_directives_add_up() -> None:
    """Whoever is paused twice is resumed twice."""
    meter = Meter()
    one = Host(host(at(1_000, "pause", 1), pcpus=2), 2, 0, meter.row)
    one.start()
    one.online(1, 0, "power_on")
    while not isinstance(step := one.next(), Deadlock) and one.local_ns(0) < 3_000 * US:
        assert isinstance(step, Enter)
        one.ran(step.vcpu, min(step.horizon_ns, step.now_ns + 500 * US))
    still_ns = one.pause_all(2_000 * US)
    assert still_ns == one.local_ns(0) >= 3_000 * US
    assert one.pause_all(still_ns) == still_ns
    one.resume_all(still_ns + 1)
    assert meter.state == {0: "pause", 1: "pause"}
    one.resume_all(still_ns + 2)
    one.resume_all(still_ns + 3)
    assert meter.state == {0: "run", 1: "pause"} and meter.last_ns[0] == still_ns + 2


def test_power_of_a_paused_machine() -> None:
    """Running, asleep and off change places; wakes and power-ons under way are forgotten; a new thread's clocks start anew."""
    meter = Meter()
    one = Host(host(pcpus=2), 3, 0, meter.row)
    one.start()
    one.online(1, 0, "power_on")
    for _ in range(2):
        step = one.next()
        assert isinstance(step, Enter)
        if step.vcpu:
            one.block(1, step.now_ns + 100 * US, "wfi")
        else:
            one.ran(0, step.now_ns + 50 * US)
    one.wake(1, 900 * US, "sgi")
    one.online(2, 900 * US, "power_on")
    still_ns = one.pause_all(200 * US)
    for vcpu, (is_online, runs) in enumerate([(True, False), (False, False), (True, True)]):
        one.set_power(vcpu, is_online, runs)
        one.new_thread(vcpu, 1_000 + vcpu)
    one.resume_all(still_ns)
    assert meter.state == {0: "sleep", 1: "offline", 2: "run"}
    assert [one.is_asleep(vcpu) for vcpu in range(3)] == [True, False, False]
    assert [one.clock_ns(2, which) for which in ("wait", "yield", "offline", "suspend")] == [1_002, 0, 0, 0]
    step = one.next()
    assert isinstance(step, Enter) and step.vcpu == 2 and step.loaded and step.horizon_ns == 1 << 62


def test_directives_of_the_session_are_alarms() -> None:
    """Their token is the directive."""
    snapshot = Directive(1_000 * US, "snapshot")
    assert [alarm for alarm in play(host(snapshot), [BUSY], 2_000 * US).alarms if alarm.token is snapshot] == [
        Alarm(1_000 * US, snapshot)
    ]


@pytest.mark.parametrize(
    ("directive", "text"),
    [
        (Directive(0, "vmm", 0), "host.directives.duration: vmm needs it"),
        (Directive(0, "stall", 0, duration_ns=0), "host.directives.duration = 0: stall takes 1 to"),
        (Directive(0, "suspend", 0, duration_ns=1), "host.directives.vcpu: suspend has none"),
        (Directive(0, "pause", 0, pcpu=0), "host.directives.pcpu: pause has none"),
        (Directive(0, "migrate", pcpu=0), "host.directives.vcpu: migrate needs it"),
        (Directive(0, "migrate", 0, pcpu=1), "host.directives.pcpu: there is no pCPU 1; the host has 1"),
        (Directive(0, "clock_skew", pcpu=0), "host.directives.value: clock_skew needs it"),
        (Directive(0, "thread_change", 0, value=-1), "host.directives.value = -1: thread_change takes 0 to"),
        (Directive(0, "slot_add", ipa=0), "host.directives.size: slot_add needs it"),
        (Directive(0, "slot_delete", ipa=0, readonly=True), "host.directives.readonly: slot_delete has none"),
        (Directive(0, "pause", 0, pre_run_ns=1), "host.directives.pre_run: pause has none"),
        (Directive(-1, "kexec"), "host.directives.at = -1: must be from 0 to"),
        (Directive(0, "explode"), "host.directives.kind = 'explode': must be one of pause, resume, migrate, yield, vmm, stall"),
    ],
)
def test_wrong_directives(directive: Directive, text: str) -> None:
    """One line that names the key."""
    with pytest.raises(InputError) as caught:
        HostConfig(directives=(directive,))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"halt_poll_ns": -1}, "host.halt_poll = -1: must be from 0 to"),
        ({"quota_ns": 1_000_000}, "host.quota, host.quota_period: at least 10us in a period of at least 100us"),
        ({"quota_period_ns": 1_000_000}, "host.quota, host.quota_period"),
        ({"quota_ns": 2_000_000, "quota_period_ns": 1_000_000}, "host.quota = 2000000: must be from 0 to 1000000"),
        ({"clock_skew_ns": (0, 1)}, "host.clock_skew: at most one offset for each of the 1 pCPUs"),
        ({"clock_skew_ns": (10**13,)}, "host.clock_skew"),
    ],
)
def test_wrong_hosts(changes: dict[str, object], text: str) -> None:
    """One line that names the key."""
    with pytest.raises(InputError) as caught:
        HostConfig(**changes)  # type: ignore[arg-type]
    assert text in str(caught.value)
