"""`analyze runtime` against a plain walk over the rows, on recorded and made-up schedules, however they are cut into windows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import Handmade
from support import REPOSITORY, busy_host, recorded, rows

import tracekit as kit
from tracekit.analyzers.runtime import Account, Runtime, runtime
from tracekit.analyzers.spreads import Spreads
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

STATE = {
    "online": "wait", "run": "run", "poll": "run", "preempt": "wait", "wake": "wait", "yield": "wait", "throttle": "wait", "resume": "wait",
    "unsuspend": "wait", "block": "block", "offline": "block", "pause": "block", "suspend": "block",
}  # fmt: skip


class Plain:
    """Row by row, thread by thread, nanosecond intervals in lists."""

    def __init__(self, path: Path) -> None:
        trace = Trace.open(path)
        self.vcpus = int(trace.manifest["machine"]["vcpus"])
        self.end_ns = int(trace.manifest["end"]["vtime_ns"])
        self.pieces: list[tuple[int, str, int | None, bool, int, int]] = []
        self.latencies: dict[int, list[int]] = defaultdict(list)
        self.migrations: dict[int, int] = defaultdict(int)
        self.slices: dict[int, list[int]] = defaultdict(list)
        self._walk(rows(path, "schedule"))

    def _walk(self, schedule: list[dict[str, Any]]) -> None:
        now: dict[int, list[Any]] = {}  # thread: [state, pcpu, throttled, since, woken, instructions at the switch-in]
        retired: dict[int, int] = defaultdict(int)
        holder, position = None, 0
        for row in schedule:
            if holder is not None:
                retired[holder] += row["position"] - position
            position, thread = row["position"], row["thread"]
            if row["event"] == "run" and thread < self.vcpus:
                holder = thread
            if row["reason"] == "turn":
                continue
            before = now.get(thread, ["none", None, False, 0, None, 0])
            state = STATE.get(row["event"], before[0])
            pcpu = before[1] if row["pcpu"] is None else row["pcpu"]
            is_throttled = {"throttle": True, "unthrottle": False, "run": False}.get(row["event"], before[2])
            if before[0] != "none":
                self.pieces.append((thread, before[0], before[1], before[2], before[3], row["vtime_ns"]))
            woken = before[4]
            if row["event"] == "run" and woken is not None:
                self.latencies[thread].append(row["vtime_ns"] - woken)
            if row["event"] not in ("migrate", "throttle", "unthrottle"):
                woken = row["vtime_ns"] if row["event"] == "wake" else None
            self.migrations[thread] += row["event"] == "migrate"
            if before[0] == "run" and state != "run":
                self.slices[thread].append(retired[thread] - before[5])
            entered = retired[thread] if row["event"] == "run" else before[5]
            now[thread] = [state, pcpu, is_throttled, row["vtime_ns"], woken, entered]
        for thread, (state, pcpu, is_throttled, since, _, _) in now.items():
            self.pieces.append((thread, state, pcpu, is_throttled, since, max(since, self.end_ns)))

    def times(self, begin: int, end: int) -> dict[tuple[int, str], int]:
        """(vCPU, kind): ns in [begin, end)."""
        out: dict[tuple[int, str], int] = defaultdict(int)
        for thread, kind, _, _, start, stop in self.pieces:
            if thread < self.vcpus:
                out[thread, kind] += max(0, min(stop, end) - max(start, begin))
        return {key: ns for key, ns in out.items() if ns}

    def waits(self, begin: int, end: int) -> dict[tuple[int, int], int]:
        """(vCPU, whom): ns in [begin, end)."""
        out: dict[tuple[int, int], int] = defaultdict(int)
        for thread, kind, pcpu, is_throttled, start, stop in self.pieces:
            start, stop = max(start, begin), min(stop, end)
            if thread >= self.vcpus or kind != "wait" or stop <= start:
                continue
            left = stop - start
            for other, running, where, _, since, until in [] if is_throttled else self.pieces:
                if running == "run" and where == pcpu:
                    both = max(0, min(stop, until) - max(start, since))
                    out[thread, other] += both
                    left -= both
            out[thread, -2 if is_throttled else -1] += left
        return {key: ns for key, ns in out.items() if ns}


def agrees(path: Path, found: Runtime, begin: int, end: int) -> None:
    """A Runtime without steps is what the plain walk says."""
    plain = Plain(path)
    table = {row["vcpu"]: row for row in found.vcpus.to_dicts()}
    times = {
        (vcpu, kind): row[f"{kind}_ns"] for vcpu, row in table.items() for kind in ("run", "wait", "block") if row[f"{kind}_ns"]
    }
    assert times == plain.times(begin, end)
    waits = {(row["vcpu"], row["whom"]): row["wait_ns"] for row in found.waits.to_dicts()}
    assert waits == plain.waits(begin, end)
    for vcpu, row in table.items():
        assert row["others_ns"] + row["latency_ns"] + row["throttled_ns"] == row["wait_ns"]
        if (begin, end) != (0, plain.end_ns):
            continue
        assert row["migrations"] == plain.migrations[vcpu]
        for prefix, unit, values in (("wake", "_ns", plain.latencies[vcpu]), ("slice", "_instructions", plain.slices[vcpu])):
            assert (row[f"{prefix}s"], row[f"{prefix}_total{unit}"]) == (len(values), sum(values))
            ranked = sorted(values)
            for percent in (50, 90, 99):
                at = -(-len(values) * percent // 100) - 1
                assert row[f"{prefix}_p{percent}{unit}"] == (ranked[at] if values else None)
            assert row[f"{prefix}_max{unit}"] == max(values, default=None)


def eventful() -> Handmade:
    """Two pCPUs, three vCPUs and a neighbour: every kind of row."""
    trace = Handmade(3, pcpus=2, neighbours=1).begin()
    trace.schedule(0, 3, "online", "start", 1)
    trace.schedule(0, 0, "run", "start", 0)
    trace.schedule(100, 1, "online", "power_on", 1)
    trace.schedule(130, 1, "run", "latency", 1)
    trace.schedule(130, 0, "run", "turn", 0)
    trace.schedule(200, 2, "online", "power_on", 0)
    trace.schedule(260, 2, "migrate", "balance", 1)
    trace.schedule(300, 1, "throttle", "quota", 1)
    trace.schedule(310, 3, "run", "quota", 1)
    trace.schedule(350, 1, "unthrottle", "quota", 1)
    trace.schedule(400, 3, "block", "neighbour", 1)
    trace.schedule(420, 2, "run", "neighbour", 1)
    trace.schedule(500, 0, "poll", "wfi", 0)
    trace.schedule(520, 0, "block", "poll", 0)
    trace.schedule(600, 2, "yield", "directive", 1)
    trace.schedule(600, 1, "run", "directive", 1)
    trace.schedule(700, 0, "wake", "timer", 0)
    trace.schedule(750, 0, "throttle", "quota", 0)
    trace.schedule(800, 0, "unthrottle", "quota", 0)
    trace.schedule(860, 0, "run", "latency", 0)
    trace.schedule(900, 1, "preempt", "slice", 1)
    trace.schedule(900, 2, "run", "slice", 1)
    trace.schedule(950, 1, "pause", "directive", 1)
    trace.schedule(1000, 1, "resume", "directive", 1)
    trace.schedule(1100, 2, "block", "wfi", 1)
    trace.schedule(1100, 1, "run", "wfi", 1)
    trace.schedule(1150, 2, "wake", "timer", 1)
    trace.schedule(1200, 2, "suspend", "directive", 1)
    trace.schedule(1300, 2, "unsuspend", "directive", 1)
    trace.schedule(1400, 0, "offline", "power_off", 0)
    return trace


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: made by hand, and recorded on one, two and throttled pCPUs."""
    folder = tmp_path_factory.mktemp("runtime")
    out = {"eventful": eventful().write(folder / "eventful.tkt")}
    recorded(folder / "fair.tkt", "accounting", vcpus=4, host=busy_host("fair", pcpus=2))
    recorded(folder / "chaos.tkt", "spinlock", host=busy_host("chaos", pcpus=2, wakeup_latency_ns=70_000), seed=5)
    out |= {name: folder / f"{name}.tkt" for name in ("fair", "chaos")}
    for name in ("throttle", "polling"):
        kit.record(REPOSITORY / "samples" / "scenarios" / f"{name}.toml", folder / f"{name}.tkt").close()
        out[name] = folder / f"{name}.tkt"
    return out


NAMES = ("eventful", "fair", "chaos", "throttle", "polling")


@pytest.mark.parametrize("name", NAMES)
def test_against_a_plain_walk(traces: dict[str, Path], name: str) -> None:
    """The whole run, and a part of it."""
    path = traces[name]
    end = Plain(path).end_ns
    agrees(path, runtime(Trace.open(path)), 0, end)
    for between in ((end // 3, end // 2), (end // 2, end * 2), (250, 900)):
        begin, until = between[0], min(between[1], end)
        agrees(path, runtime(Trace.open(path), between=between), begin, until)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_windows_change_nothing(traces: dict[str, Path], name: str, size: int) -> None:
    """However the schedule is cut, the frames are the same; with steps too."""
    trace = Trace.open(traces[name])
    schedule = (
        kit.open(traces[name])
        .schedule.select("position", "sequence", "vtime_ns", "vcpu", "thread", "event", "pcpu", "reason")
        .collect()
    )
    schedule = schedule[:150]
    for over_ns in (None, max(1, int(schedule["vtime_ns"].max() or 0) // 13)):  # type: ignore[call-overload, operator]
        whole, cut = Account(trace, over_ns=over_ns), Account(trace, over_ns=over_ns)
        whole.feed(schedule)
        for at in range(0, schedule.height, size):
            cut.feed(schedule[at : at + size])
        one, other = whole.close(), cut.close()
        assert one.vcpus.equals(other.vcpus) and one.waits.equals(other.waits)


@pytest.mark.parametrize("name", NAMES)
def test_steps_add_up(traces: dict[str, Path], name: str) -> None:
    """Every step of every vCPU is whole, and the sums are those of the run; each step is the run between its ends."""
    trace = Trace.open(traces[name])
    whole = runtime(trace)
    over_ns = int(trace.manifest["end"]["vtime_ns"]) // 7 + 1
    steps = runtime(trace, over_ns=over_ns)
    table = steps.vcpus
    assert table.height == 7 * whole.vcpus.height
    assert (table["run_ns"] + table["wait_ns"] + table["block_ns"]).equals((table["end_ns"] - table["start_ns"]).rename("run_ns"))
    added = (
        "run_ns",
        "wait_ns",
        "block_ns",
        "others_ns",
        "latency_ns",
        "throttled_ns",
        "migrations",
        "wakes",
        "slices",
        "slice_total_instructions",
    )
    sums = table.group_by("vcpu").agg(pl.col(added).sum()).sort("vcpu")
    assert sums.equals(whole.vcpus.select("vcpu", *added))
    third = table.filter(pl.col("start_ns") == 2 * over_ns)
    alone = runtime(trace, between=(2 * over_ns, 3 * over_ns)).vcpus
    assert third.select("vcpu", "run_ns", "latency_ns", "others_ns").equals(
        alone.select("vcpu", "run_ns", "latency_ns", "others_ns")
    )


def test_life_agrees_with_steal(traces: dict[str, Path]) -> None:
    """Run, wait and block are those of `analyze steal`."""
    for path in traces.values():
        t = kit.open(path)
        assert (
            runtime(t.trace)
            .vcpus.select("run_ns", "wait_ns", "block_ns")
            .equals(t.steal().select("run_ns", "wait_ns", "block_ns"))
        )


def test_too_many_steps(traces: dict[str, Path]) -> None:
    """The message says how long a step must be."""
    with pytest.raises(InputError, match="at most 10000 of them"):
        runtime(Trace.open(traces["fair"]), over_ns=10)


def test_spreads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound percentiles have three digits, and sums stay exact."""
    monkeypatch.setattr("tracekit.analyzers.spreads.EXACT_MAX", 1000)
    spreads = Spreads({"key": pl.UInt8})
    values = pl.DataFrame({"key": pl.Series([1] * 5000, dtype=pl.UInt8), "value": range(10_000, 15_000)})
    spreads.add(values, "value")
    row = spreads.percentiles("x", "_ns").row(0, named=True)
    assert not spreads.is_exact and row["x_total_ns"] == sum(range(10_000, 15_000)) and row["xs"] == 5000
    assert (row["x_p50_ns"], row["x_p90_ns"], row["x_max_ns"]) == (12_400, 14_400, 14_900)
