"""The truth: golden vectors, and agreement of the polars ledger with plain loops on random lives, in windows of any size."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from handmade import Handmade
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trace import RandomTrace

from tracekit.analyzers.analysis import analyse
from tracekit.analyzers.ledger import FORMULAS
from tracekit.analyzers.steal import per_vcpu, publications, reads, steal
from tracekit.analyzers.timeline import intervals
from tracekit.formats.reader import Trace

POLICIES = sorted(FORMULAS)
CASES = st.tuples(st.integers(0, 1 << 32), st.sampled_from(POLICIES), st.sampled_from([3, 7, 50]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(case=st.tuples(st.integers(0, 1 << 32), st.sampled_from([7, 20, 65_536])))
def test_two_oracles_agree(policy: str, case: tuple[int, int]) -> None:
    """On PV_TIME_ST, hotplug, pauses, suspends, yields, throttling, polls, snapshots and restores; whatever was told."""
    seed, batch_rows = case
    made = RandomTrace(seed, policy, is_faithful=seed % 2 == 0)
    plain = made.oracle()
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace.open(made.trace.write(Path(folder) / "a.tkt", batch_rows))
        told = publications(trace)
        told = told.filter(told["event"] == "publish")
        assert dict(told.select("position", "true_ns").rows()) == plain.told
        assert dict(reads(trace).select("position", "true_ns").rows()) == plain.seen
        for row in per_vcpu(trace).iter_rows(named=True):
            spent = plain.lives[row["vcpu"]].at(made.trace.end_ns)
            assert row["run_ns"] == spent["run"]
            assert row["wait_ns"] == spent["wait"] + spent["yield"]
            assert row["block_ns"] == spent["block"] + spent["offline"] + spent["suspend"]
            assert row["conservation_ns"] == 0
            assert row["stolen_ns"] == plain.lives[row["vcpu"]].clock(made.trace.end_ns, policy)


@settings(max_examples=10, deadline=None)
@given(case=CASES, rows=st.integers(1, 40))
def test_windows_change_nothing(case: tuple[int, str, int], rows: int) -> None:
    """The same findings and report, however a trace is cut."""
    seed, policy, batch_rows = case
    made = RandomTrace(seed, policy, is_faithful=seed % 2 == 0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Trace.open(made.trace.write(Path(folder) / "whole.tkt"))
        cut = Trace.open(made.trace.write(Path(folder) / "cut.tkt", batch_rows))
        asked, over_ns = ("steal", "invariants"), 1 + made.trace.end_ns // 7
        mine, theirs = analyse(cut, asked, over_ns=over_ns, rows=rows), analyse(whole, asked, over_ns=over_ns)
        assert mine.as_json("a", 0) == theirs.as_json("a", 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32), policy=st.sampled_from(POLICIES))
def test_a_faithful_life_breaks_nothing(seed: int, policy: str) -> None:
    """Whatever the host does, as long as every entry is told."""
    made = RandomTrace(seed, policy)
    with tempfile.TemporaryDirectory() as folder:
        done = analyse(Trace.open(made.trace.write(Path(folder) / "a.tkt")), ("steal", "invariants"))
        assert done.findings == [] and done.steal is not None and done.steal.error_ns == 0


# --- golden vectors (docs/pvtime.md 5.8; ns; PV_TIME_ST at 0, policy kvm) ---------------------------------------------------------


def enabled() -> Handmade:
    """vCPU 0 runs from 0 on and has asked for its stolen time."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    return made


def vector_a() -> Handmade:
    """RUN 0-4, WAIT 4-7, RUN 7-10."""
    made = enabled()
    made.schedule(4, 0, "preempt", "slice")
    made.enter(7, 0, 3)
    return made


def told_of(made: Handmade, path: Path) -> list[tuple[int, int, int]]:
    """(time, told, true) of every update; nothing may be broken."""
    trace = Trace.open(made.write(path))
    done = analyse(trace, ("steal", "invariants"))
    assert done.findings == [], done.findings
    return publications(trace).select("vtime_ns", "told_ns", "true_ns").rows()


def test_vector_a(tmp_path: Path) -> None:
    """3 from 7 on."""
    made = vector_a()
    made.schedule(10, 0, "block", "wfi")
    assert told_of(made, tmp_path / "a.tkt") == [(0, 0, 0), (7, 3, 3)]
    trace = Trace.open(tmp_path / "a.tkt")
    pieces = intervals(trace).select("kind", "start_ns", "end_ns").rows()
    assert [piece for piece in pieces if piece[1] < piece[2]] == [("run", 0, 4), ("wait", 4, 7), ("run", 7, 10)]


def test_vector_b(tmp_path: Path) -> None:
    """RUN 0-2, BLOCK 2-9 (WFI), WAIT 9-10, RUN 10-: 1 from 10."""
    made = enabled()
    made.schedule(2, 0, "block", "wfi")
    made.schedule(9, 0, "wake", "timer")
    made.enter(10, 0, 1)
    assert told_of(made, tmp_path / "b.tkt") == [(0, 0, 0), (10, 1, 1)]


def test_vector_c(tmp_path: Path) -> None:
    """As A, but PV_TIME_ST again at 8: 0 from 8, a new epoch and no fault."""
    made = vector_a()
    made.read(7, 0, 3)
    made.enable(8, 0)
    made.read(9, 0, 0)
    assert told_of(made, tmp_path / "c.tkt") == [(0, 0, 0), (7, 3, 3), (8, 0, 0)]


def test_vector_d(tmp_path: Path) -> None:
    """As A, with a forced migration at 5 to a run queue whose clock is 1000 ahead: still 3."""
    made = enabled()
    made.directive("clock_skew", 0, size=1, value=1000)
    made.schedule(4, 0, "preempt", "directive")
    made.schedule(5, 0, "migrate", "directive", pcpu=1)
    made.enter(7, 0, 3, pcpu=1)
    assert told_of(made, tmp_path / "d.tkt") == [(0, 0, 0), (7, 3, 3)]


@pytest.mark.parametrize("is_rollback", [False, True])
def test_vector_e(tmp_path: Path, is_rollback: bool) -> None:
    """Snapshot at 9 in A, restored into a VM whose thread had waited 5 before its first KVM_RUN: first visible value 8."""
    made = vector_a()
    made.schedule(9, 0, "pause", "directive")
    made.directive("snapshot", 9, value=0)
    if is_rollback:  # what happens after it is forgotten, and 2 ns of waiting are never told
        made.schedule(12, 0, "resume", "directive")
        made.enter(14, 0, 5)
        made.schedule(16, 0, "preempt", "slice")
        made.schedule(18, 0, "pause", "directive")
    made.directive("restore", 20, value=0, size=int(is_rollback))
    made.directive("restore", 20, 0, value=5)
    made.directive("attribute_set", 20, 0, ipa=made.base(0))
    made.schedule(20, 0, "resume", "directive")
    made.enter(20, 0, 8)
    assert told_of(made, tmp_path / "e.tkt")[-1] == (20, 8, 8)


def test_what_is_implied_is_kept_apart(tmp_path: Path) -> None:
    """A read of another vCPU's structure sees its last entry: no error, but 6 ns that nobody could tell yet (docs/pvtime.md 2.9)."""
    made = Handmade(2, pcpus=2).begin()
    made.schedule(0, 1, "online", "power_on")
    for vcpu in range(2):
        made.schedule(0, vcpu, "run", "start", vcpu)
        made.publish(0, vcpu, 0)
        made.enable(0, vcpu)
    made.schedule(4, 1, "preempt", "slice", 1)
    made.read(10, 0, 0, of=1)
    made.schedule(14, 1, "run", "slice", 1)
    made.publish(14, 1, 10)
    trace = Trace.open(made.write(tmp_path / "a.tkt"))
    (read,) = reads(trace).iter_rows(named=True)
    assert (read["vcpu"], read["reader"]) == (1, 0)
    assert (read["told_ns"], read["true_ns"], read["error_ns"], read["untold_ns"], read["age_ns"]) == (0, 0, 0, 6, 10)
    report = steal(trace)
    assert report.error_ns == 0 and report.untold.percentiles()["max"] == 6
