"""samples/scenarios: each file shows what its first sentence says, in numbers, and replays identically."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from readings import STEAL, Waits, publication_errors, readings, steals
from support import REPOSITORY, console, replayed, rows

from tracekit.analyzers.invariants import invariants
from tracekit.formats.reader import Trace
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario, read_scenario
from tracekit.recorder.session import EndReason

FOLDER = REPOSITORY / "samples" / "scenarios"
MS = 1_000_000

# What `tracekit analyze` finds: the invariants that each broke, on which vCPUs. The others are clean.
FINDINGS = {
    "forge": {("S5", 0)},
    "hotplug": {("G1", 1), ("L1", 1)},
    "kexec": {("L5", 1)},
    "slots": {("S4", 0)},
    "thread_change": {("L1", 0), ("G1", 0)},
}


def scenario(name: str) -> Scenario:
    """A scenario of the folder."""
    return read_scenario(FOLDER / f"{name}.toml")


def run(path: Path, chosen: Scenario, *, replays: bool = True) -> Path:
    """Record to power-off; what the guest prints at the end is PASS."""
    done = record(chosen, path)
    assert done.end.reason is EndReason.POWER_OFF and console(path).endswith("PASS\n"), console(path)
    assert not replays or replayed(path).is_identical
    return path


def told_ns(path: Path, vcpu: int) -> int:
    """The last total that a vCPU was told."""
    return int([row["stolen_ns"] for row in rows(path, "pvtime") if row["vcpu"] == vcpu][-1])


def directive(path: Path, kind: str, vcpu: int | None = None) -> dict[str, Any]:
    """The only directive of a kind for a vCPU, None: for the whole machine."""
    (row,) = [row for row in rows(path, "directives") if row["kind"] == kind and row["vcpu"] == vcpu]
    return row


def is_exact(path: Path, vcpus: int = 2) -> bool:
    """Every update of every vCPU is the wait since PV_TIME_ST, to the ns."""
    return all(set(publication_errors(path, vcpu)) == {0} for vcpu in range(vcpus))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_says_what_it_shows(path: Path) -> None:
    """It can be read, begins with a sentence, and stands in samples/README.md."""
    read_scenario(path)
    text = path.read_text()
    assert text.startswith("# ") and re.search(r"[.)]\n(?!#)", text)
    assert f"`{path.stem}`" in (REPOSITORY / "samples" / "README.md").read_text()


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("[!l]*.toml"))] + ["live_migration"])
def test_findings(tmp_path: Path, name: str) -> None:
    """Exactly these invariants are broken, each first on this vCPU."""
    found = invariants(Trace.open(run(tmp_path / "a.tkt", scenario(name), replays=False)))
    assert {(one.invariant, one.vcpu) for one in found} == FINDINGS.get(name, set())


@pytest.mark.parametrize("name", ["contended", "pause", "migration", "vmm", "polling", "hotplug", "throttle"])
def test_exact_to_the_ns(tmp_path: Path, name: str) -> None:
    """Whatever the host does here, each vCPU is told exactly what its thread waited."""
    chosen = scenario(name)
    assert is_exact(run(tmp_path / "a.tkt", chosen), chosen.vcpus)


def test_hotplug(tmp_path: Path) -> None:
    """The steal of the CPU that was away falls to 0; with the cursor reset it does not."""
    path = run(tmp_path / "a.tkt", scenario("hotplug"), replays=False)
    assert steals(path, 1) == [0, 12, 18, 18, 2] and steals(path, 0) == sorted(steals(path, 0))
    chosen = scenario("hotplug")
    path = run(tmp_path / "b.tkt", replace(chosen, inputs=(replace(chosen.inputs[0], data=b"hr"),)))
    assert steals(path, 1) == sorted(steals(path, 1)) and steals(path, 1)[-1] > 18


def test_pause(tmp_path: Path) -> None:
    """50 ms and 70 ms of pause are in nobody's stolen time."""
    path = run(tmp_path / "a.tkt", scenario("pause"), replays=False)
    for vcpu, spans in ((0, [(40, 90)]), (1, [(40, 90), (120, 140)])):
        paused = [row for row in rows(path, "schedule") if row["vcpu"] == vcpu and row["event"] in ("pause", "resume")]
        assert [row["event"] for row in paused] == ["pause", "resume"] * len(spans)
        waits = Waits(path, vcpu)
        for begin, end in spans:
            assert waits.between(begin * MS + MS // 2, end * MS) == 0


def test_suspend(tmp_path: Path) -> None:
    """Arm leaves the host's sleep out; the policy of x86's opt-in has exactly 100 ms more."""
    chosen = scenario("suspend")
    assert is_exact(run(tmp_path / "a.tkt", chosen))
    chosen = replace(chosen, hypervisor=replace(chosen.hypervisor, publication="kvm-x86-suspend"))
    path = run(tmp_path / "b.tkt", chosen)
    assert {publication_errors(path, vcpu)[-1] for vcpu in (0, 1)} == {100 * MS}


def test_migration(tmp_path: Path) -> None:
    """Four moves between clocks that differ by a second; the same run with equal clocks tells the same."""
    chosen = scenario("migration")
    path = run(tmp_path / "a.tkt", chosen, replays=False)
    moved = [row["vcpu"] for row in rows(path, "schedule") if row["event"] == "migrate" and row["vcpu"] is not None]
    assert moved == [0, 1, 0, 1]
    equal = run(tmp_path / "b.tkt", replace(chosen, host=replace(chosen.host, clock_skew_ns=())), replays=False)
    assert [told_ns(path, vcpu) for vcpu in (0, 1)] == [told_ns(equal, vcpu) for vcpu in (0, 1)]


def after_restore(path: Path, vcpu: int) -> tuple[int, int, int]:
    """(the last total before a restore, the first after it, the wait between the restored vCPU's start and that) in ns."""
    place = directive(path, "restore")["position"], directive(path, "restore")["sequence"]
    updates = [row for row in rows(path, "pvtime") if row["vcpu"] == vcpu and row["event"] == "publish"]
    before = [row for row in updates if (row["position"], row["sequence"]) < place][-1]
    after = next(row for row in updates if (row["position"], row["sequence"]) > place)
    return (
        before["stolen_ns"],
        after["stolen_ns"],
        Waits(path, vcpu).between(directive(path, "restore")["vtime_ns"], after["vtime_ns"]),
    )


def test_live_migration(tmp_path: Path) -> None:
    """The total goes on, with what the new thread waited before and after its first KVM_RUN; v5.5 begins again at 0."""
    path = run(tmp_path / "a.tkt", scenario("live_migration"))
    for vcpu in (0, 1):
        before, after, waited = after_restore(path, vcpu)
        assert before > 10 * MS and after == before + 7 * MS + waited
    chosen = scenario("live_migration")
    path = run(tmp_path / "b.tkt", replace(chosen, hypervisor=replace(chosen.hypervisor, profile="kvm-5.5")))
    for vcpu in (0, 1):
        before, after, waited = after_restore(path, vcpu)
        assert before > 10 * MS and after == 7 * MS + waited


def test_rollback(tmp_path: Path) -> None:
    """After the restore the guest reads on from the total that stood in the snapshot."""
    path = run(tmp_path / "a.tkt", scenario("rollback"))
    snapshot = next(row for row in rows(path, "directives") if row["kind"] == "snapshot")
    for vcpu in (0, 1):
        updates = [row for row in rows(path, "pvtime") if row["vcpu"] == vcpu and row["event"] == "publish"]
        stood = [row["stolen_ns"] for row in updates if row["position"] <= snapshot["position"] and row["vtime_ns"] <= 60 * MS][
            -1
        ]
        before, after, waited = after_restore(path, vcpu)
        assert after == stood + 2 * MS + waited < before
    assert len(readings(path)) == 6


def test_throttle(tmp_path: Path) -> None:
    """The host is empty, the threads are throttled, and 60 % of the time in which the guest wants to run is stolen."""
    path = run(tmp_path / "a.tkt", scenario("throttle"), replays=False)
    events = {row["event"] for row in rows(path, "schedule") if row["thread"] in (0, 1)}
    assert "throttle" in events and "preempt" not in events
    first = readings(path)[1]
    for columns in first.cpus.values():
        assert columns[STEAL] / (first.end_ns / 10**7) == pytest.approx(0.55, abs=0.05)


def test_thread_change(tmp_path: Path) -> None:
    """vCPU 0 is told less than before, by all that its old thread had waited; vCPU 1 stays exact."""
    path = run(tmp_path / "a.tkt", scenario("thread_change"))
    changed = directive(path, "thread_change", 0)
    updates = [row for row in rows(path, "pvtime") if row["vcpu"] == 0 and row["event"] == "publish"]
    before = [row["stolen_ns"] for row in updates if row["vtime_ns"] < changed["vtime_ns"]][-1]
    after = next(row["stolen_ns"] for row in updates if row["vtime_ns"] >= changed["vtime_ns"])
    assert before > 100 * MS and after < before - 100 * MS
    assert steals(path, 0) != sorted(steals(path, 0)) and "cpu0: steal stepped back" in console(path)
    assert set(publication_errors(path, 1)) == {0} and "cpu1: steal stepped back" not in console(path)


def test_slots(tmp_path: Path) -> None:
    """No update reaches memory while the slot is away; the first one after brings all that was waited meanwhile."""
    path = run(tmp_path / "a.tkt", scenario("slots"))
    for vcpu in (0, 1):
        updates = [row for row in rows(path, "pvtime") if row["vcpu"] == vcpu and row["event"] == "publish"]
        times = [row["vtime_ns"] for row in updates]
        assert not [at for at in times if 60 * MS <= at < 120 * MS]
        last, first = next((a, b) for a, b in pairwise(updates) if b["vtime_ns"] >= 120 * MS)
        jump = first["stolen_ns"] - last["stolen_ns"]
        assert jump == Waits(path, vcpu).between(last["vtime_ns"], first["vtime_ns"]) > 25 * MS
    assert is_exact(path)


def test_kexec(tmp_path: Path) -> None:
    """The data that the new kernel keeps there grows by the wait, and the host's stores come after the note."""
    path = run(tmp_path / "a.tkt", scenario("kexec"))
    noted = directive(path, "kexec")["vtime_ns"]
    changed = dict(re.findall(r"cpu(\d): data changed, word 1 by (\d+)", console(path)))
    assert changed == {"0": "4000000", "1": "4000000"}
    stores = [row for row in rows(path, "memory_writes") if row["origin"] == "host" and row["vtime_ns"] > noted]
    assert {row["vcpu"] for row in stores} == {0, 1}


def test_forge(tmp_path: Path) -> None:
    """A second more than the truth, from then on."""
    path = run(tmp_path / "a.tkt", scenario("forge"))
    forged = re.findall(r"cpu\d: read (\d+), wrote (\d+), read later (\d+)", console(path))
    assert forged == [("4000000", "1000000000", "1004000000")] * 2


def test_vmm(tmp_path: Path) -> None:
    """Both vCPUs lose 15 ms and nothing is stolen: one thread runs the VMM, the other sleeps."""
    path = run(tmp_path / "a.tkt", scenario("vmm"), replays=False)
    assert {steal for vcpu in (0, 1) for steal in steals(path, vcpu)} == {0}
    assert directive(path, "vmm", 0)["value"] == 15 * MS
    stalled = [row for row in rows(path, "schedule") if row["reason"] == "fault"]
    assert [(row["vcpu"], row["event"]) for row in stalled] == [(1, "block"), (1, "wake")]
    assert stalled[1]["vtime_ns"] - stalled[0]["vtime_ns"] == 15 * MS
    chosen = scenario("vmm")
    plain = run(tmp_path / "b.tkt", replace(chosen, host=replace(chosen.host, directives=())), replays=False)
    longer = Trace.open(path).manifest["end"]["vtime_ns"] - Trace.open(plain).manifest["end"]["vtime_ns"]
    assert 15 * MS - 4 * MS <= longer <= 15 * MS + 4 * MS  # to the tick


def test_polling(tmp_path: Path) -> None:
    """Preempted while polling: more is stolen than from the same guest that sleeps at once."""
    path = run(tmp_path / "a.tkt", scenario("polling"), replays=False)
    events = [(row["event"], row["reason"]) for row in rows(path, "schedule") if row["vcpu"] == 0]
    after_poll = {following[0] for this, following in pairwise(events) if this[0] == "poll"}
    assert "preempt" in after_poll and ("poll", "poll") in events  # it goes on polling when its turn comes
    assert invariants(Trace.open(path)) == []  # and nothing need be told before guest code runs
    chosen = scenario("polling")
    asleep = run(tmp_path / "b.tkt", replace(chosen, host=replace(chosen.host, halt_poll_ns=0)), replays=False)
    assert told_ns(path, 0) > told_ns(asleep, 0)


def test_wfe(tmp_path: Path) -> None:
    """All that is stolen was given away in WFE: policy kvm counts it, spec-min does not; without yields the work takes ten times as long."""
    chosen = scenario("wfe")
    path = run(tmp_path / "a.tkt", chosen)
    gave = [row["vcpu"] for row in rows(path, "schedule") if (row["event"], row["reason"]) == ("yield", "wfe")]
    assert sorted(set(gave)) == [0, 1, 2, 3] and len(gave) == 96
    assert is_exact(path, 4) and min(told_ns(path, vcpu) for vcpu in range(4)) > 2 * MS
    spec_min = replace(chosen, hypervisor=replace(chosen.hypervisor, publication="spec-min"))
    least = run(tmp_path / "b.tkt", spec_min)
    assert console(least).count(", told 0 ns stolen") == 4 and invariants(Trace.open(least)) == []
    spinning = run(tmp_path / "c.tkt", replace(chosen, host=replace(chosen.host, yields_on_wfe=False)), replays=False)
    ends = [Trace.open(one).manifest["end"]["vtime_ns"] for one in (path, spinning)]
    assert ends[1] > 10 * ends[0]


def test_smc(tmp_path: Path) -> None:
    """The calls of discovery go over SMC."""
    path = run(tmp_path / "a.tkt", scenario("smc"))
    conduits = {row["conduit"] for row in rows(path, "hypercalls") if row["function"] == "PV_TIME_ST"}
    assert conduits == {"smc"} and "device tree: smc" in console(path)
