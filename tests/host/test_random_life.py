"""Random hosts, guests and directives of every kind: partition, order, clocks, determinism, an end."""

from __future__ import annotations

from host.scripted import Driver, play
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.host.config import Directive, HostConfig, Neighbour

UNTIL_NS = 16_000_000
STEP = st.tuples(
    st.sampled_from(["run", "run", "sleep", "sleep", "suspend", "wfe", "kick", "off"]),
    st.sampled_from([0, 1, 7_000, 400_000, 3_000_000]),
)
SCRIPT = st.lists(STEP, min_size=1, max_size=5).map(lambda steps: [*steps, ("run", 30_000)])  # time goes on
WHEN = st.one_of(st.integers(0, UNTIL_NS), st.sampled_from([0, 1_000_000, 5_000_000, 5_000_000]))
LENGTH = st.sampled_from([1, 1_000, 250_000, 2_000_000])


@st.composite
def directives(draw: st.DrawFn, pcpus: int, vcpus: int) -> Directive:
    """One of any kind that moves threads, the host's or the session's."""
    at_ns = draw(WHEN)
    vcpu = draw(st.one_of(st.none(), st.integers(0, vcpus)))  # vcpus itself: there is none, nothing happens
    kind = draw(
        st.sampled_from(
            ["pause", "resume", "resume", "migrate", "yield", "vmm", "stall", "suspend", "thread_change", "clock_skew", "snapshot", "restore", "reset"]
        )
    )  # fmt: skip
    match kind:
        case "migrate":
            return Directive(at_ns, kind, vcpu or 0, draw(st.integers(0, pcpus - 1)))
        case "vmm" | "stall":
            return Directive(at_ns, kind, vcpu, duration_ns=draw(LENGTH))
        case "suspend" | "snapshot" | "reset":
            return Directive(at_ns, kind, duration_ns=draw(LENGTH))
        case "restore":
            return Directive(at_ns, kind, duration_ns=draw(LENGTH), pre_run_ns=draw(st.integers(0, 10**6)))
        case "thread_change":
            return Directive(at_ns, kind, vcpu, value=draw(st.integers(0, 10**9)))
        case "clock_skew":
            return Directive(at_ns, kind, pcpu=draw(st.integers(0, pcpus - 1)), value=draw(st.integers(-(10**6), 10**6)))
        case _:
            return Directive(at_ns, kind, vcpu)


@st.composite
def lives(draw: st.DrawFn) -> tuple[HostConfig, list[list[tuple[str, int]]], int]:
    """A host, the guests' scripts, a seed."""
    pcpus = draw(st.integers(1, 3))
    scripts = draw(st.lists(SCRIPT, min_size=1, max_size=4))
    quota_ns, period_ns = draw(
        st.sampled_from([(0, 0), (0, 0), (10_000, 100_000), (1_000_000, 4_000_000), (2_000_000, 2_000_000)])
    )
    pins = st.one_of(st.none(), st.integers(0, pcpus - 1))
    neighbours = draw(
        st.lists(
            st.builds(Neighbour, st.just("n"), st.integers(10_000, 1_000_000), st.sampled_from([200_000, 3_000_000]), pins),
            max_size=3,
        )
    )
    config = HostConfig(
        pcpus=pcpus,
        policy=draw(st.sampled_from(["round-robin", "fair", "chaos"])),
        slice_ns=draw(st.sampled_from([100_000, 3_000_000])),
        quantum_ns=draw(st.sampled_from([20_000, 200_000])),
        wakeup_latency_ns=draw(st.sampled_from([0, 50_000])),
        halt_poll_ns=draw(st.sampled_from([0, 1, 200_000, 4_000_000])),
        quota_ns=quota_ns,
        quota_period_ns=period_ns,
        clock_skew_ns=tuple(draw(st.lists(st.integers(-(10**9), 10**9), max_size=pcpus))),
        neighbours=tuple(neighbours),
        directives=tuple(draw(st.lists(directives(pcpus, len(scripts)), max_size=12))),
    )
    return config, scripts, draw(st.integers(0, 1000))


def told_of(driver: Driver) -> object:
    """Everything that a recorder sees."""
    return driver.rows, driver.meter.told, driver.entered, driver.delays


@settings(max_examples=150, deadline=None)
@given(lives())
def test_every_life_is_sound(life: tuple[HostConfig, list[list[tuple[str, int]]], int]) -> None:
    """The driver and its meter check every row and every entry; here: the whole, and that it is repeated exactly."""
    config, scripts, seed = life
    driver = play(config, scripts, UNTIL_NS, seed)
    meter = driver.meter
    for thread, since_ns in meter.since_ns.items():
        assert sum(meter.times_ns[thread].values()) == since_ns or any(one.kind == "restore" for one in config.directives)
    told = [one.kind for one in meter.told]
    assert set(told) <= {"vmm", "thread_change", "clock_skew"}
    assert told_of(play(config, scripts, UNTIL_NS, seed)) == told_of(driver)
