"""Metrics against plain loops over a trace's rows, in windows of any size."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trace import RandomTrace
from support import busy_host, rows, scenario

from tracekit.analyzers.invariants import invariants
from tracekit.analyzers.metric import CATALOGUE, Value
from tracekit.analyzers.metrics import metrics
from tracekit.analyzers.steal import steal
from tracekit.analyzers.timeline import intervals
from tracekit.formats.reader import Trace
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario

RUNS = {
    "steal": scenario("steal", host=busy_host("fair"), exit_cost_ns=300),
    "accounting": scenario("accounting", host=busy_host(pcpus=2), ns_per_instruction=(8, 1)),
    "spinlock": scenario("spinlock", host=busy_host("chaos", pcpus=2)),
}


def values(trace: Trace, **options: int) -> dict[str, Value]:
    """By key."""
    return {one.key: one.value for one in metrics(trace, **options)}


@pytest.fixture(scope="module", params=RUNS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several guests."""
    folder = tmp_path_factory.mktemp("metrics")
    chosen: Scenario = RUNS[request.param]
    record(chosen, folder / f"{request.param}.tkt")
    return folder / f"{request.param}.tkt"


def percentile(lengths: list[int], percent: int) -> int | None:
    """The least value that so many per cent do not exceed."""
    ordered = sorted(lengths)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None


def pieces(trace: Trace) -> list[tuple[int, str, str, int]]:
    """Stays of each vCPU in RUN, WAIT or BLOCK: (vCPU, kind, first state, length in ns); of `timeline.intervals`, joined."""
    out: list[tuple[int, str, str, int]] = []
    for row in intervals(trace).iter_rows(named=True):
        length = row["end_ns"] - row["start_ns"]
        if out and out[-1][0] == row["vcpu"] and out[-1][1] == row["kind"]:
            vcpu, kind, state, before = out.pop()
            out.append((vcpu, kind, state if before else row["state"], before + length))
        else:
            out.append((row["vcpu"], row["kind"], row["state"], length))
    return [one for one in out if one[3]]


def test_stays(path: Path) -> None:
    """Percentiles of runs and waits, as joined pieces of the timeline give them."""
    trace = Trace.open(path)
    found = values(trace)
    for kind in ("run", "wait"):
        for vcpu in (None, 0, 1):
            lengths = [length for who, what, _, length in pieces(trace) if what == kind and vcpu in (None, who)]
            part = "" if vcpu is None else f"[vcpu{vcpu}]"
            assert lengths or vcpu is not None
            for percent in (50, 90, 99):
                assert found[f"{kind}.p{percent}_ns{part}"] == percentile(lengths, percent)
            assert found[f"{kind}.max_ns{part}"] == max(lengths, default=None)


def test_counts(path: Path) -> None:
    """Preemptions, migrations, wake-ups, wake-up latencies and hypercalls, row by row."""
    found = values(Trace.open(path))
    schedule = [row for row in rows(path, "schedule") if row["vcpu"] is not None]
    for name, event in (("preemptions", "preempt"), ("migrations", "migrate"), ("wakeups", "wake")):
        count = Counter(row["vcpu"] for row in schedule if row["event"] == event)
        assert found[f"sched.{name}"] == count.total()
        assert [found[f"sched.{name}[vcpu{vcpu}]"] for vcpu in (0, 1)] == [count[0], count[1]]
    latencies, woken = [], {}
    for row in schedule:
        if row["event"] == "wake":
            woken[row["vcpu"]] = row["vtime_ns"]
        elif row["event"] == "run" and row["reason"] != "turn" and row["vcpu"] in woken:
            latencies.append(row["vtime_ns"] - woken.pop(row["vcpu"]))
    latencies = [one for one in latencies if one]
    assert (found["wakeup.max_ns"], found["wakeup.p50_ns"]) == (max(latencies, default=None), percentile(latencies, 50))
    calls = Counter(row["function"] or f"{row['function_id']:#010x}" for row in rows(path, "hypercalls"))
    refused = sum(row["ret0"] == (1 << 64) - 1 for row in rows(path, "hypercalls"))
    assert {key[17:-1]: value for key, value in found.items() if key.startswith("hypercalls.count[")} == calls
    assert (found["hypercalls.count"], found["hypercalls.refused"]) == (calls.total(), refused)
    cost = Trace.open(path).manifest["machine"]["exit_cost_ns"]
    assert found["hypercalls.cost_ns"] == calls.total() * cost


def test_the_rest(path: Path) -> None:
    """End, console, sizes, steal and findings are those of the manifest, the tables and the other analyses."""
    trace = Trace.open(path)
    found = values(trace)
    end = trace.manifest["end"]
    assert (found["run.instructions"], found["run.vtime_ns"], found["run.powered_off"]) == (end["position"], end["vtime_ns"], 1)
    printed = b"".join(row["data"] for row in rows(path, "console"))
    assert printed and found["console.sha256"] == hashlib.sha256(printed).hexdigest()
    assert found["trace.rows"] == sum(len(rows(path, table)) for table in trace.manifest["tables"])
    assert found["trace.bytes"] == sum(file.stat().st_size for file in path.glob("*.arrow"))
    report = steal(trace).vcpus
    assert found["steal.total_ns"] == report["stolen_ns"].sum() and found["life.wait_ns"] == report["wait_ns"].sum()
    assert found["steal.told_ns[vcpu1]"] == report["told_ns"][1] and found["steal.error_ns"] == report["error_ns"].max()
    assert found["findings"] == 0 == len(invariants(trace))
    named = {one.name for one in metrics(trace)}
    assert named == set(CATALOGUE) and len(found) == len(metrics(trace))


def test_a_run_that_ends_early(tmp_path: Path) -> None:
    """It has no instructions to power-off."""
    record(scenario("steal", max_vtime_ns=2_000_000), tmp_path / "a.tkt")
    found = values(Trace.open(tmp_path / "a.tkt"))
    assert (found["run.powered_off"], found["run.instructions"], found["run.vtime_ns"]) == (0, None, None)
    assert found["run.end"] == "limit_vtime"


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 32), batch=st.sampled_from([3, 7, 50]), window=st.integers(1, 40))
def test_windows_change_nothing(seed: int, batch: int, window: int) -> None:
    """The same values however a trace is cut: polls, pauses, yields, hotplug, restores."""
    made = RandomTrace(seed, "kvm", is_faithful=seed % 2 == 0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Trace.open(made.trace.write(Path(folder) / "whole.tkt"))
        cut = Trace.open(made.trace.write(Path(folder) / "cut.tkt", batch))
        plain, windows = values(whole), values(cut, rows=window)
        assert {key: one for key, one in plain.items() if "bytes" not in key} == {
            key: one for key, one in windows.items() if "bytes" not in key
        }
        lengths = [length for _, kind, _, length in pieces(whole) if kind == "wait"]
        assert plain["wait.max_ns"] == max(lengths, default=None)
