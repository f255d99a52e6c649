"""What counts as stolen: the table of docs/pvtime.md 5.4, row by row, and its golden vectors 5.8 where they are the host's. Times in us."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from host.scripted import Driver, play

from tracekit.host.config import Directive, HostConfig, Neighbour

US = 1_000
BUSY = [("run", 1_000_000)]
HOG = Neighbour("hog", 1_000_000)  # never sleeps
THREE = Neighbour("three", 30_000, 100_000_000)  # 3 ms of 100 ms, wanted from the beginning
RUN = ("run", "start", 0)


def at(us: int, kind: str, **fields: int) -> Directive:
    """A directive for vCPU 0; duration in us."""
    if "duration" in fields:
        fields["duration_ns"] = fields.pop("duration") * US
    whole = kind in ("suspend", "clock_skew")
    return Directive(us * US, kind, None if whole else 0, **fields)


@dataclass(frozen=True)
class Row:
    """One row of 5.4: what is scripted, what vCPU 0's thread does (event, reason, time), and how much of it is stolen."""

    situation: str
    config: HostConfig
    guest: list[tuple[str, int]]
    rows: list[tuple[str, str, int]]
    stolen: int
    until: int = 10_000


def host(**changes: object) -> HostConfig:
    """4 ms slices."""
    return HostConfig(slice_ns=4_000 * US, **changes)  # type: ignore[arg-type]


SLEEP = [("run", 2_000 * US), ("sleep", 3_000 * US), ("run", 20_000 * US)]

CLASSIFICATION = [
    Row("guest executing", host(), BUSY, [RUN], 0),
    Row(
        "preempted by another task", host(neighbours=(THREE,)), BUSY,
        [RUN, ("preempt", "slice", 4_000), ("run", "neighbour", 7_000)], 3_000,
    ),
    Row(
        "guest WFI, trap off: its thread stays", host(halt_poll_ns=1_000_000 * US), SLEEP, [RUN, ("poll", "wfi", 2_000)], 0,
    ),
    Row(
        "guest WFI trapped, polling, woken meanwhile", host(halt_poll_ns=4_000 * US), SLEEP, [RUN, ("poll", "wfi", 2_000)], 0,
    ),
    Row(
        "polling, preempted: the guest is idle", host(halt_poll_ns=4_000 * US, neighbours=(THREE,)),
        [("run", 3_000 * US), ("sleep", 3_000 * US), ("run", 20_000 * US)],
        [RUN, ("poll", "wfi", 3_000), ("preempt", "slice", 4_000), ("run", "neighbour", 7_000)], 3_000,
    ),
    Row(
        "polling, preempted, goes on polling, sleeps",
        host(halt_poll_ns=2_000 * US, neighbours=(THREE,)),
        [("run", 3_000 * US), ("sleep", 6_000 * US), ("run", 20_000 * US)],
        [RUN, ("poll", "wfi", 3_000), ("preempt", "slice", 4_000), ("run", "neighbour", 7_000), ("poll", "poll", 7_000), ("block", "poll", 8_000),
         ("wake", "timer", 9_000), ("run", "wakeup", 9_000)], 3_000,
    ),
    Row(
        "guest WFI trapped, sleeping", host(), SLEEP,
        [RUN, ("block", "wfi", 2_000), ("wake", "timer", 5_000), ("run", "wakeup", 5_000)], 0,
    ),
    Row(
        "wake-up latency", host(wakeup_latency_ns=500 * US), SLEEP,
        [RUN, ("block", "wfi", 2_000), ("wake", "timer", 5_000), ("run", "latency", 5_500)], 500,
    ),
    Row(
        "WFE exit, yield", host(neighbours=(THREE,)), [("wfe", 2_000 * US), *BUSY],
        [RUN, ("yield", "wfe", 2_000), ("run", "neighbour", 5_000)], 3_000, 6_000,
    ),
    Row("WFE of a lone thread", host(), [("wfe", 2_000 * US), *BUSY], [RUN], 0),
    Row(
        "directed yield", host(neighbours=(HOG,), directives=(at(1_000, "yield"),)), BUSY,
        [RUN, ("yield", "directive", 1_000), ("run", "slice", 5_000)], 4_000, 6_000,
    ),
    Row(
        "PSCI CPU_SUSPEND", host(halt_poll_ns=500 * US), [("run", 2_000 * US), ("suspend", 3_000 * US), ("run", 20_000 * US)],
        [RUN, ("block", "suspend", 2_000), ("wake", "timer", 5_000), ("run", "wakeup", 5_000)], 0,
    ),
    Row("exit handling in the VMM on the same thread", host(directives=(at(1_000, "vmm", duration=2_000),)), BUSY, [RUN], 0),
    Row(
        "VMM thread preempted", host(neighbours=(THREE,), directives=(at(3_000, "vmm", duration=2_000),)), BUSY,
        [RUN, ("preempt", "slice", 4_000), ("run", "neighbour", 7_000)], 3_000,
    ),
    Row(
        "stage-2 fault that waits", host(directives=(at(1_000, "stall", duration=2_000),)), BUSY,
        [RUN, ("block", "fault", 1_000), ("wake", "fault", 3_000), ("run", "wakeup", 3_000)], 0,
    ),
    Row("host IRQ under the thread, SMT, frequency", host(), [("run", 500), ("run", 500)], [RUN], 0, 2_000),
    Row(
        "CFS bandwidth", host(quota_ns=2_000 * US, quota_period_ns=5_000 * US), BUSY,
        [RUN, ("throttle", "quota", 2_000), ("unthrottle", "quota", 5_000), ("run", "quota", 5_000), ("throttle", "quota", 7_000),
         ("unthrottle", "quota", 10_000), ("run", "quota", 10_000)], 6_000, 11_000,
    ),
    Row(
        "pause", host(directives=(at(1_000, "pause"), at(6_000, "resume"))), BUSY,
        [RUN, ("pause", "directive", 1_000), ("resume", "directive", 6_000), ("run", "wakeup", 6_000)], 0,
    ),
    Row(
        "host suspend", host(directives=(at(1_000, "suspend", duration=5_000),)), BUSY,
        [RUN, ("suspend", "directive", 1_000), ("unsuspend", "directive", 6_000), ("run", "directive", 6_000)], 0,
    ),
    Row(
        "moved while queued, run-queue clocks 0 and 1 us apart",
        host(
            pcpus=2, clock_skew_ns=(0, 1_000), directives=(at(5_000, "migrate", pcpu=1),),
            neighbours=(Neighbour("a", 1_000_000, 10_000_000, 0), Neighbour("c", 100_000, 30_000_000, 1), Neighbour("b", 1_000_000, 10_000_000, 1)),
        ),
        BUSY, [RUN, ("preempt", "slice", 4_000), ("migrate", "directive", 5_000), ("run", "slice", 7_000)], 3_000,
    ),
]  # fmt: skip


def seen(driver: Driver) -> list[tuple[str, str | None, int]]:
    """vCPU 0's rows after its first."""
    return [(row.event, row.reason, row.vtime_ns // US) for row in driver.rows if row.thread == 0][1:]


@pytest.mark.parametrize("row", CLASSIFICATION, ids=lambda row: row.situation)
def test_classification(row: Row) -> None:
    """Thread states as listed, and stolen is WAIT, by a plain sum over the rows as by the host's clock."""
    driver = play(row.config, [row.guest], row.until * US)
    assert seen(driver) == row.rows
    assert driver.host.clock_ns(0, "wait") == driver.meter.wait_ns(0) == row.stolen * US
    assert driver.entered[-1].vcpu == 0 and (driver.delays[-1] == (0, row.stolen * US))


def test_golden_a() -> None:
    """RUN 0-4, WAIT 4-7, RUN 7-10 ms: 0 before 7, 3 from there."""
    driver = play(host(neighbours=(THREE,)), [BUSY], 10_000 * US)
    assert driver.delays == [(0, 0), (0, 3_000 * US)]
    assert [one.now_ns for one in driver.entered if one.loaded] == [0, 7_000 * US]


def test_golden_b() -> None:
    """RUN 0-2, BLOCK 2-9 (WFI), WAIT 9-10 ms: 1 from 10."""
    driver = play(host(wakeup_latency_ns=1_000 * US), [[("run", 2_000 * US), ("sleep", 7_000 * US), *BUSY]], 11_000 * US)
    assert driver.delays == [(0, 0), (0, 1_000 * US)]
    assert driver.meter.pieces[0] == [(9_000 * US, 10_000 * US)]


@pytest.mark.parametrize("skews", [(), (0, 1_000 * US), (7_000_000 * US, -3_000 * US)])
def test_golden_d(skews: tuple[int, ...]) -> None:
    """As A, moved at 5 ms to a run queue whose clock is another: still 3."""
    pinned = (
        Neighbour("a", 1_000_000, 10_000_000, 0), Neighbour("c", 100_000, 30_000_000, 1), Neighbour("b", 1_000_000, 10_000_000, 1)
    )  # fmt: skip
    driver = play(
        host(pcpus=2, clock_skew_ns=skews, directives=(at(5_000, "migrate", pcpu=1),), neighbours=pinned), [BUSY], 8_000 * US
    )
    assert driver.meter.pieces[0] == [(4_000 * US, 5_000 * US), (5_000 * US, 7_000 * US)]
    assert driver.delays == [(0, 0), (0, 3_000 * US)]


@pytest.mark.parametrize(("step_us", "delay_us"), [(1_000, 4_000), (-5_000, -2_000)])
def test_a_clock_that_steps_while_it_waits(step_us: int, delay_us: int) -> None:
    """run_delay is by the run queue's clock; the truth, WAIT, is not."""
    driver = play(
        host(neighbours=(THREE,), directives=(at(5_000, "clock_skew", pcpu=0, value=step_us * US),)), [BUSY], 8_000 * US
    )
    assert driver.delays == [(0, 0), (0, delay_us * US)]
    assert driver.meter.wait_ns(0) == 3_000 * US
    assert [(one.kind, one.vcpu, one.size, one.value, one.at_ns) for one in driver.meter.told] == [
        ("clock_skew", None, 0, step_us * US, 5_000 * US)
    ]
