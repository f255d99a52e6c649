"""A Perfetto trace says what the tables and the analyzers say: lanes, states, flows, counters, instants."""

from __future__ import annotations

import sys
import tempfile
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from handmade import Handmade
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto_reader import Read, read
from random_trace import RandomTrace
from support import busy_host, recorded, rows, tracekit

from tracekit.analyzers.analysis import analyse
from tracekit.analyzers.export.export import export
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.ledger import FORMULAS
from tracekit.analyzers.steal import publications
from tracekit.analyzers.timeline import intervals
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

LEAVES = {"preempt", "block", "yield", "throttle", "offline", "pause", "suspend"}


def table(path: Path, name: str) -> list[dict[str, Any]]:
    """A table's rows by column."""
    names = [column.name for column in TABLES[name].columns]
    return [dict(zip(names, row, strict=True)) for row in Trace.open(path).rows(name)]


def plain_runs(path: Path) -> dict[int, list[tuple[int, int, int]]]:
    """Of each pCPU (tid, start, end), by a plain loop over `schedule`."""
    runs: dict[int, list[tuple[int, int, int]]] = {}
    on: dict[int, tuple[int, int]] = {}

    def leave(thread: int, at_ns: int) -> None:
        if thread in on:
            pcpu, since = on.pop(thread)
            if at_ns > since:
                runs.setdefault(pcpu, []).append((1000 + thread, since, at_ns))

    for row in table(path, "schedule"):
        enters = row["event"] == "run" and row["reason"] != "turn"
        if enters or row["event"] in LEAVES:
            leave(row["thread"], row["vtime_ns"])
        if enters:
            on[row["thread"]] = row["pcpu"], row["vtime_ns"]
    for thread in list(on):
        leave(thread, Trace.open(path).manifest["end"]["vtime_ns"])
    return {pcpu: sorted(found, key=lambda run: run[1]) for pcpu, found in runs.items()}


def exported(path: Path, window: Window | None = None) -> Read:
    """The trace through a Perfetto file."""
    output = path.with_suffix(".pftrace")
    export(path, "perfetto", output, window=window, force=True)
    return read(output)


def value_before(samples: list[tuple[int, int]], at_ns: int) -> int | None:
    """What a counter shows until a time."""
    place = bisect_left(samples, (at_ns, -1 << 63))
    return samples[place - 1][1] if place else None


def check(path: Path) -> Read:
    """Everything that must agree; gives what was read."""
    found = exported(path)
    trace = Trace.open(path)
    assert found.runs() == plain_runs(path)
    pieces = intervals(trace)
    for vcpu in pieces["vcpu"].unique():
        of = pieces.filter((pieces["vcpu"] == vcpu) & (pieces["start_ns"] < pieces["end_ns"]))
        shown = found.slices[f"vCPU {vcpu} states"]
        assert [(one.category, one.name, one.start, one.end) for one in shown] == of.select(
            "kind", "state", "start_ns", "end_ns"
        ).rows()
    check_flows(found)
    for row in publications(trace).iter_rows(named=True):
        told = row["told_ns"] - (1 << 64 if row["told_ns"] >> 63 else 0)
        for name, value in (("told", told), ("true", row["true_ns"]), ("error", row["error_ns"])):
            samples = found.counters[f"vCPU {row['vcpu']} stolen time, {name}"]
            times = [at_ns for at_ns, _ in samples]
            assert times == sorted(times)
            now = [shown for at_ns, shown in samples if at_ns == row["vtime_ns"]]  # more than one where a restore follows at once
            assert value in (value_before(samples, row["vtime_ns"]), *now), (row, name)
            assert now or value == value_before(samples, row["vtime_ns"])
    check_instants(found, path)
    return found


def check_flows(found: Read) -> None:
    """Each begins at a run that others cut short and ends at the next run of that vCPU; no preemption that ends in a run lacks one."""
    begins: dict[int, int] = {}
    for track, slices in found.slices.items():
        runs = [one for one in slices if one.category == "run"]
        for one in slices:
            assert one.category == "run" or one.flows == ([], [])
        for one, following in pairwise(slices):
            if one.category == "run" and following.category == "wait" and any(later.start > one.start for later in runs):
                assert len(one.flows[0]) == 1, (track, one)
                following_run = next(later for later in runs if later.start >= one.end)
                assert following_run.flows[1] == one.flows[0]
                begins[one.flows[0][0]] = begins.get(one.flows[0][0], 0) + 1
    everything = [one for slices in found.slices.values() for one in slices]
    assert sorted(begins) == sorted(flow for one in everything for flow in one.flows[0])
    assert sorted(begins) == sorted(flow for one in everything for flow in one.flows[1])
    assert set(begins.values()) <= {1}


def check_instants(found: Read, path: Path) -> None:
    """One for each row, with its place and values."""
    tracks = {"hypercalls": lambda row: True, "interrupts": lambda row: row["event"] == "take", "pvtime": lambda row: True,
              "directives": lambda row: True, "console": lambda row: True}  # fmt: skip
    for name, is_shown in tracks.items():
        wanted = sorted(
            (row["position"], row["sequence"], row["vtime_ns"], row["vcpu"]) for row in table(path, name) if is_shown(row)
        )
        shown = []
        for track, instants in found.instants.items():
            owner, _, kind = track.rpartition(" ")
            if kind == name:
                vcpu = None if owner == "board" else int(owner.removeprefix("vCPU "))
                shown += [(one.arguments["position"], one.arguments["sequence"], one.start, vcpu) for one in instants]
        assert sorted(shown, key=lambda one: one[:2]) == wanted


@pytest.mark.parametrize("guest", ["steal", "accounting"])
def test_a_recorded_run(guest: str, tmp_path: Path) -> None:
    """Two vCPUs and a neighbour on one physical CPU."""
    path = tmp_path / "run.tkt"
    recorded(path, guest, host=busy_host())
    found = check(path)
    assert any(one.flows[0] for slices in found.slices.values() for one in slices)
    calls = [one for track, instants in found.instants.items() if track.endswith("hypercalls") for one in instants]
    by_place = {(row["position"], row["sequence"]): row for row in rows(path, "hypercalls")}
    for one in calls:
        row = by_place[one.arguments["position"], one.arguments["sequence"]]
        assert one.name == (row["function"] or "unknown function")
        assert all(
            one.arguments[name] == row[name] for name in ("function_id", "pc", "x0", "x1", "x7", "ret0", "ret3", "conduit")
        )
    assert found.wakings and {event.sched_waking.pid for event in found.wakings} <= set(found.threads)
    assert {"vCPU 0 states", "vCPU 0 hypercalls", "vCPU 0 pvtime", "board directives"} <= set(found.tracks.values())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), policy=st.sampled_from(sorted(FORMULAS)), batch_rows=st.sampled_from([5, 40, 65_536]))
def test_random_lives(seed: int, policy: str, batch_rows: int) -> None:
    """Whatever the host does and whatever is told, and however the trace is cut into batches."""
    made = RandomTrace(seed, policy, is_faithful=seed % 2 == 0)
    with tempfile.TemporaryDirectory() as folder:
        check(made.trace.write(Path(folder) / "a.tkt", batch_rows))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32), first=st.integers(0, 900), length=st.integers(1, 900), is_time=st.booleans())
def test_random_windows(seed: int, first: int, length: int, is_time: bool) -> None:
    """Any window is a part of the whole, and is well formed itself."""
    made = RandomTrace(seed, "kvm").trace
    end = made.end_ns if is_time else made.position
    first, last = first * end // 1000, first * end // 1000 + 1 + length * end // 1000
    window = Window(from_ns=first, to_ns=last) if is_time else Window(first, last)
    with tempfile.TemporaryDirectory() as folder:
        path = made.write(Path(folder) / "a.tkt", 7)
        whole, part = exported(path), exported(path, window)
        check_flows(part)
        part.runs()
        for track, slices in part.slices.items():
            assert {(one.start, one.name) for one in slices} <= {(one.start, one.name) for one in whole.slices[track]}
        for track, samples in part.counters.items():
            assert set(samples) <= set(whole.counters[track])
        inside = {(one.start, one.name) for instants in whole.instants.values() for one in instants
                  if first <= (one.start if is_time else one.arguments["position"]) < last and one.category != "findings"}  # fmt: skip
        assert inside == {(one.start, one.name) for of in part.instants.values() for one in of if one.category != "findings"}


def wrong() -> Handmade:
    """One publication that tells 5 ns too much."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    made.schedule(4, 0, "preempt", "slice")
    made.enter(7, 0, 8)
    made.schedule(20, 0, "block", "wfi")
    return made


def test_findings_are_instants(tmp_path: Path) -> None:
    """With what was expected and found, at their time on their vCPU; and the counters show the error."""
    path = wrong().write(tmp_path / "a.tkt")
    found = check(path)
    findings = analyse(Trace.open(path), ("invariants",)).findings
    assert findings
    shown = found.instants["vCPU 0 findings"]
    assert [one.name for one in shown] == [f"{finding.invariant} broken" for finding in findings]
    for one, finding in zip(shown, findings, strict=True):
        assert one.start == finding.vtime_ns == 7 and one.arguments["command"] == finding.command("a.tkt")
        for name in ("table", "position", "sequence", "expected", "found", "count"):
            assert one.arguments[name] == getattr(finding, name)
    assert found.counters["vCPU 0 stolen time, error"] == [(0, 0), (7, 5)]
    assert found.counters["vCPU 0 stolen time, told"] == [(0, 0), (7, 8)]
    assert found.counters["vCPU 0 stolen time, true"] == [(0, 0), (7, 3)]


def test_an_underflow_is_negative(tmp_path: Path) -> None:
    """A total with its top bit set is drawn below zero."""
    made = wrong()
    made.schedule(25, 0, "wake", "timer")
    made.enter(30, 0, (1 << 64) - 2)
    found = exported(made.write(tmp_path / "a.tkt"))
    assert found.counters["vCPU 0 stolen time, told"][-1] == (30, -2)


def test_a_window_begins_with_what_is_so(tmp_path: Path) -> None:
    """Its slices and counters reach back to their own begins; instants outside are left out."""
    path = tmp_path / "run.tkt"
    recorded(path, "steal", host=busy_host())
    whole = check(path)
    end = Trace.open(path).manifest["end"]["position"]
    window = Window(from_position=end // 3, to_position=end // 2)
    part = exported(path, window)
    for track, slices in part.slices.items():
        assert {(one.start, one.name) for one in slices} <= {(one.start, one.name) for one in whole.slices[track]}
        assert slices[0].arguments["position"] <= window.from_position, "what is so at its begin"
        assert all(one.arguments["position"] < end // 2 for one in slices)
    places = [one.arguments["position"] for instants in part.instants.values() for one in instants]
    assert places and all(window.from_position <= position < end // 2 for position in places)
    for track, samples in part.counters.items():
        assert set(samples) <= set(whole.counters[track])
    check_flows(part)


def test_equal_bytes(tmp_path: Path) -> None:
    """The same trace gives the same bytes, plain and packed, also when it is packed itself."""
    path = tmp_path / "run.tkt"
    recorded(path, "steal", host=busy_host())
    for suffix in ("pftrace", "pftrace.gz"):
        outputs = [tmp_path / f"{name}.{suffix}" for name in "ab"]
        for output in outputs:
            export(path, "perfetto", output)
        assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install, and nothing is left behind."""
    path = wrong().write(tmp_path / "a.tkt")
    blocker = tmp_path / "block" / "perfetto"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", f"{blocker.parent}:{':'.join(one for one in sys.path if one)}")
    done = tracekit("export", path, "--to", "perfetto", "-o", tmp_path / "o.pftrace")
    assert done.returncode == 2 and 'pip install "tracekit[perfetto]"' in done.stderr and done.stdout == ""
    assert not list(tmp_path.glob("o.*"))


def test_thread_states(tmp_path: Path) -> None:
    """A reader that follows switches and wakings, as Perfetto's does, comes to what the vCPU did: also where all happens at once."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.schedule(10, 0, "block", "wfi")
    made.schedule(10, 0, "wake", "timer")  # behind the block
    made.enter(14, 0, 4)
    made.schedule(20, 0, "block", "wfi")
    made.schedule(30, 0, "wake", "timer")
    made.enter(30, 0, 4)  # behind the wake
    made.schedule(40, 0, "pause", "directive")
    made.schedule(50, 0, "resume", "directive")
    made.enter(60, 0, 14)
    made.schedule(70, 0, "block", "fault")
    made.schedule(80, 0, "offline", "power_off")
    found = exported(made.write(tmp_path / "a.tkt"))
    states, state = [], None
    for event in sorted(found.order, key=lambda event: event.timestamp):
        new = state
        if event.HasField("sched_waking"):
            new = "R" if state not in ("run", "R") else state
        elif event.sched_switch.next_pid == 1000:
            new = "run"
        elif event.sched_switch.prev_pid == 1000:
            new = {0: "R", 1: "S", 2: "D", 4: "T", 16: "X"}[event.sched_switch.prev_state]
        if new != state:
            states.append((event.timestamp, new))
        state = new
    assert states == [(0, "R"), (0, "run"), (10, "S"), (10, "R"), (14, "run"), (20, "S"), (30, "R"), (30, "run"), (40, "T"), (50, "R"),
                      (60, "run"), (70, "D")]  # fmt: skip
