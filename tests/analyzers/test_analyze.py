"""`tracekit analyze`: recordings of the bundled guests, tolerance, JSON, traces that ended early, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import ST, Handmade
from support import busy_host, files_of, recorded, tracekit

from tracekit.analyzers.analysis import analyse
from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.steal import per_vcpu, publications, reads
from tracekit.analyzers.timeline import over
from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.pack import pack
from tracekit.formats.reader import Trace
from tracekit.formats.recovery import recover
from tracekit.host.config import Directive

MS = 1_000_000


def judged(path: Path, *arguments: object, code: int = 0) -> dict[str, Any]:
    """The command's JSON."""
    done = tracekit("analyze", path, "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("policy", ["round-robin", "fair", "chaos"])
@pytest.mark.parametrize("guest", ["steal", "timer", "spinlock", "hello"])
def test_a_faithful_run_is_good(tmp_path: Path, guest: str, policy: str) -> None:
    """No finding, and no error at any guest entry or read; RUN + WAIT + BLOCK is the whole time."""
    recorded(tmp_path / "a.tkt", guest, host=busy_host(policy, pcpus=1 if guest != "timer" else 2))
    trace = Trace.open(tmp_path / "a.tkt")
    done = analyse(trace, ("steal", "invariants"))
    assert done.findings == [] and done.steal is not None and done.steal.error_ns == 0
    assert set(publications(trace)["error_ns"]) <= {0} and set(reads(trace)["error_ns"]) <= {0}
    vcpus = per_vcpu(trace)
    assert set(vcpus["conservation_ns"]) == {0} and vcpus["missing"].sum() == 0
    assert guest != "steal" or (vcpus["reads"].min() > 0 and vcpus["stolen_ns"].min() > MS)


def test_over_time_adds_up(tmp_path: Path) -> None:
    """The steps of the table partition each vCPU's time, with a pause and a migration among them."""
    moves = (Directive(3 * MS, "pause", 1), Directive(5 * MS, "resume", 1), Directive(6 * MS, "migrate", 0, 1))
    recorded(tmp_path / "a.tkt", "steal", host=busy_host(pcpus=2, directives=moves))
    trace = Trace.open(tmp_path / "a.tkt")
    table, whole = over(trace, 700_000), per_vcpu(trace)
    assert (table["run_ns"] + table["wait_ns"] + table["block_ns"] == table["end_ns"] - table["begin_ns"]).all()
    for name in ("run_ns", "wait_ns", "block_ns", "stolen_ns"):
        summed = table.group_by("vcpu").agg(pl.col(name).sum()).sort("vcpu")[name]
        assert summed.to_list() == whole[name].to_list()
    assert table["entries"].sum() == whole["entries"].sum() and table["error_ns"].max() == 0
    last = table.group_by("vcpu", maintain_order=True).last().sort("vcpu")
    assert last.select("true_ns", "told_ns", "untold_ns").equals(whole.select("true_ns", "told_ns", "untold_ns"))


def wrong_by(error_ns: int, path: Path) -> Path:
    """One update that says so much too much."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    made.schedule(1000, 0, "preempt", "slice")
    told_ns = (2000 + error_ns) % (1 << 64)
    made.enter(3000, 0, told_ns)
    made.read(3500, 0, told_ns)
    return made.write(path)


def test_json(tmp_path: Path) -> None:
    """Numbers for programs: the verdict, each vCPU, the worst place, findings with their command."""
    found = judged(wrong_by(50, tmp_path / "a.tkt"), "--over", "2us", code=1)
    assert found["is_good"] is False and found["end"]["early"] is None
    steal = found["steal"]
    assert (steal["policy"], steal["tolerance_ns"], steal["is_within"], steal["error_ns"]) == ("kvm", 0, False, 50)
    assert steal["worst"]["table"] == "pvtime" and steal["worst"]["true_ns"] == 2000 and steal["worst"]["error_ns"] == 50
    (vcpu,) = steal["vcpus"]
    expected = {
        "wall_ns": 3500,
        "run_ns": 1500,
        "wait_ns": 2000,
        "block_ns": 0,
        "conservation_ns": 0,
        "stolen_ns": 2000,
        "epochs": 1,
    }
    assert {name: vcpu[name] for name in expected} == expected
    assert (vcpu["true_ns"], vcpu["told_ns"], vcpu["read_ns"], vcpu["read_true_ns"], vcpu["error_ns"]) == (
        2000,
        2050,
        2050,
        2000,
        50,
    )
    assert steal["distribution"]["entry_error_ns"]["max"] == 50 and steal["distribution"]["read_age_ns"]["p50"] == 500
    assert [(step["begin_ns"], step["end_ns"], step["stolen_ns"]) for step in found["over"]] == [
        (0, 2000, 1000),
        (2000, 3500, 1000),
    ]
    (finding,) = found["invariants"]["findings"]
    assert finding["invariant"] == "S4" and finding["command"].startswith(f"tracekit dump {tmp_path / 'a.tkt'} pvtime --from ")


def test_text(tmp_path: Path) -> None:
    """The same for people."""
    done = tracekit("analyze", wrong_by(50, tmp_path / "a.tkt"))
    assert done.returncode == 1 and not done.stderr
    assert "2,050 ns instead of 2,000 (+50)" in done.stdout and "BEYOND the tolerance of 0 ns" in done.stdout
    assert "expected 2000 ns more" in done.stdout and "1 broken of the 19" in done.stdout
    only = tracekit("analyze", tmp_path / "a.tkt", "invariants")
    assert only.returncode == 1 and "tolerance" not in only.stdout and "S4" in only.stdout


@pytest.mark.parametrize(("tolerance", "code"), [("49ns", 1), ("50ns", 0), ("1ms", 0)])
def test_tolerance(tmp_path: Path, tolerance: str, code: int) -> None:
    """Of `steal`; an invariant has none."""
    path = wrong_by(50, tmp_path / "a.tkt")
    judged(path, "steal", "--tolerance", tolerance, code=code)
    judged(path, "--tolerance", tolerance, code=1)


def test_an_underflow_is_small_and_negative(tmp_path: Path) -> None:
    """Two's complement (docs/pvtime.md 5.9)."""
    found = judged(wrong_by(-2007, tmp_path / "a.tkt"), "steal", code=1)["steal"]
    assert found["worst"]["told_ns"] == (1 << 64) - 7 and found["worst"]["error_ns"] == -2007


def test_another_policy_is_another_truth(tmp_path: Path) -> None:
    """--policy judges a run by a formula that it was not made for."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    made.schedule(1000, 0, "yield", "wfe")
    made.enter(3000, 0, 2000)
    judged(made.write(tmp_path / "a.tkt"))
    assert judged(tmp_path / "a.tkt", "--policy", "spec-min", code=1)["steal"]["error_ns"] == 2000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "no analysis 'nonsense'; there are steal, invariants"),
        (["--policy", "nonsense"], "no publication policy 'nonsense'; there are kvm, "),
        (["--tolerance", "much"], "'much' is not a duration"),
        (["--over", "0ns"], "steps in"),
        (["invariants", "--over", "1ms"], "--over belongs to steal"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], says: str) -> None:
    """One line, exit code 2."""
    done = tracekit("analyze", wrong_by(0, tmp_path / "a.tkt"), *arguments)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout


def test_too_many_steps_are_refused(tmp_path: Path) -> None:
    """With what would do."""
    made = Handmade().begin()
    made.end_ns = 10**12
    with pytest.raises(InputError, match="--over 100000000ns or more"):
        over(Trace.open(made.write(tmp_path / "a.tkt")), 1000)


def test_nothing_to_judge(tmp_path: Path) -> None:
    """A guest that never asked, and a trace without rows, are said to be so."""
    for name, made in (("silent", Handmade().begin()), ("empty", Handmade())):
        done = tracekit("analyze", made.write(tmp_path / name), "--over", "1us")
        assert done.returncode == 0 and "nothing to judge" in done.stdout, done.stderr


def test_accounted(tmp_path: Path) -> None:
    """The last steal column of each CPU beside what that vCPU had read before."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    made.schedule(10 * MS, 0, "preempt", "slice")
    made.enter(27 * MS, 0, 17 * MS)
    made.read(28 * MS, 0, 17 * MS)
    made.stat(30 * MS, "1 0 0 0 0 0 0 1 0 0")
    made.read(31 * MS, 0, 17 * MS)
    (vcpu,) = judged(made.write(tmp_path / "a.tkt"))["steal"]["vcpus"]
    assert (vcpu["accounted_ns"], vcpu["accounted_read_ns"], vcpu["accounted_at_ns"]) == (10 * MS, 17 * MS, 30 * MS)
    assert "accounted" in tracekit("analyze", tmp_path / "a.tkt", "steal").stdout


def test_packed(tmp_path: Path) -> None:
    """The same from one file."""
    path = wrong_by(50, tmp_path / "a.tkt")
    pack(path, tmp_path / "packed.tkt")
    mine, theirs = judged(path, code=1), judged(tmp_path / "packed.tkt", code=1)
    assert mine["steal"]["vcpus"] == theirs["steal"]["vcpus"]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """And how to get what is left."""
    path = wrong_by(0, tmp_path / "a.tkt")
    (path / "hypercalls.arrow").unlink()
    done = tracekit("analyze", path)
    assert done.returncode == 2 and "hypercalls.arrow is missing; `tracekit recover`" in done.stderr


def test_damage_is_trouble_and_what_is_left_is_analysed(tmp_path: Path) -> None:
    """Exit code 2 with the place; after recovery everything up to there, and marked so."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host())
    name, content = "schedule.arrow", files_of(tmp_path / "a.tkt")["schedule.arrow"]
    spoiled = bytearray(content)
    spoiled[len(spoiled) // 2] ^= 0xFF
    (tmp_path / "a.tkt" / name).write_bytes(spoiled)
    done = tracekit("analyze", tmp_path / "a.tkt")
    assert done.returncode == 2 and "schedule.arrow: batch 0" in done.stderr and "recover" in done.stderr
    recover(tmp_path / "a.tkt", tmp_path / "b.tkt")
    found = judged(tmp_path / "b.tkt")
    assert "recovered" in found["end"]["early"] and found["end"]["missing"]
    text = tracekit("analyze", tmp_path / "b.tkt").stdout.splitlines()
    assert text[0].startswith("analysed up to position") and "recovered" in text[0] and "missing: " in text[1]


@pytest.mark.parametrize(
    ("machine", "scenario", "says"),
    [
        ([], None, "machine is no object"), ({"vcpus": None}, None, "None is no count"), ({"vcpus": 1 << 70}, None, "is no count"),
        ({"vcpus": 1 << 20}, None, "1048576 vCPUs"), ({"segments": [[1]]}, None, "the form"),
        ({"segments": [{"ipa": "x", "size": 1, "image": ""}]}, None, "'x' is no count"),
        ({"reserved": [None]}, None, "the form"), ({"pv_structures": None}, None, "pv_structures is no list"),
        (None, [], "scenario is no object"), (None, {"hypervisor": "kvm"}, "hypervisor is no object"),
        (None, {"hypervisor": {"faults": ["mine"]}}, "a fault is no object"), (None, {"host": {"neighbours": 5}}, "neighbours is no list"),
        (None, {"host": {"pcpus": []}}, r"\[\] is no count"),
    ],
)  # fmt: skip
def test_a_description_of_another_form(tmp_path: Path, machine: Any, scenario: Any, says: str) -> None:
    """A manifest that somebody else wrote, digest and all, is trouble with a name, not an internal error."""
    trace = Handmade(1)
    if machine is not None:
        trace._manifest["machine"] = {**trace._manifest["machine"], **machine} if machine else machine
    if scenario is not None:
        trace._manifest["scenario"] = scenario
    with pytest.raises(TraceDamaged, match=says):
        Trace.open(trace.begin().write(tmp_path / "a.tkt"))


def test_a_time_that_is_none(tmp_path: Path) -> None:
    """Beyond 2^63 ns, in any table: damage that names the batch."""
    for table in ("schedule", "hypercalls", "directives"):
        trace = Handmade(1).begin()
        trace.enable(5, 0)
        trace.rows[table][-1]["vtime_ns"] = 1 << 63
        with pytest.raises(TraceDamaged, match=rf"{table}.arrow: batch 0 .* a time of 9223372036854775808 ns"):
            analyse(Trace.open(trace.write(tmp_path / table)), ("steal", "invariants"))


def test_a_structure_at_the_end_of_addresses(tmp_path: Path) -> None:
    """Above 2^63, where no i64 reaches: as an answer it is an error, so that nobody listens, and a store there is nobody's business."""
    base = (1 << 64) - 128
    trace = Handmade(1)
    trace.directive("slot_add", 0, ipa=base, size=128)
    trace.begin([base]).call(5, 0, ST, 0, base)
    trace.schedule(5, 0, "run", "start")
    trace.store(10, 0, base + 8, 7, cause=None)
    assert analyse(Trace.open(trace.write(tmp_path / "a.tkt")), ("invariants",)).findings == []


def test_a_run_that_ended_early_is_marked(tmp_path: Path) -> None:
    """Analysed to its end; a vCPU that was switched in but not entered by then owes nothing."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host(), max_vtime_ns=4 * MS)
    found = judged(tmp_path / "a.tkt")
    assert "limit vtime" in found["end"]["early"] and found["end"]["vtime_ns"] == 4 * MS


def test_every_cut_of_a_trace_is_good(tmp_path: Path) -> None:
    """Wherever a faithful trace ends, its end is no finding."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host())
    position = Trace.open(tmp_path / "a.tkt").manifest["end"]["position"]
    for part in range(1, 8):
        recorded(tmp_path / f"{part}.tkt", "steal", host=busy_host(), max_instructions=position * part // 8)
        assert judged(tmp_path / f"{part}.tkt")["is_good"]


def test_distribution() -> None:
    """Percentiles are exact while there are few values, and right to three digits when there are many."""
    few, many = Distribution(), Distribution()
    few.add(pl.Series([0, -5, 10, 20], dtype=pl.Int64))
    few.add(pl.Series([10], dtype=pl.Int64))
    assert few.percentiles() == {"p50": 10, "p90": 20, "p99": 20, "p99.9": 20, "max": 20}
    assert Distribution().percentiles() == {}
    many.add(pl.int_range(100_000, eager=True))
    assert not many.is_exact and many.count == 100_000
    assert abs(many.percentiles()["p50"] - 50_000) <= 500 and abs(many.percentiles()["p99"] - 99_000) <= 990
