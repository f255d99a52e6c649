"""Faults: the catalogue, faults of the user's own, and what becomes of a fault whose code fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import busy_host, replayed, rows, scenario, tracekit

from tracekit.analyzers.invariants import invariants
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import Recorded, record
from tracekit.recorder.scenario import Input, Scenario
from tracekit.recorder.session import EndReason

MINE = '''
from tracekit.hypervisor.fault import Fault

class Double(Fault):
    """Says twice as much."""
    def value_ns(self, vcpu, base_ns, delta_ns):
        return base_ns + 2 * delta_ns

class Raises(Fault):
    def value_ns(self, vcpu, base_ns, delta_ns):
        return 1 // 0 if delta_ns else base_ns

class RaisesInCall(Fault):
    def answer(self, call, outcome):
        return {}[call.function_id]

class WholeMilliseconds(Fault):
    """A policy: whole milliseconds of all waiting, and of sleeping too, since the beginning of the world; 50 us late."""
    def publish(self, vcpu, default):
        self.kit.call_at(vcpu, self.kit.now_ns() + 50_000)
    def due(self, vcpu):
        self.kit.publish(vcpu, self.kit.clock_ns(vcpu, "wait") // 1_000_000 * 1_000_000)
'''

MS = 1_000_000
PAGE = 0x090A_0000
# What must happen to the machine for a fault to act (Fault.needs).
EVENTS: dict[str, tuple[Directive, ...]] = {
    "": (),
    "online": (),
    "restore": (Directive(8 * MS, "restore", duration_ns=MS, pre_run_ns=300_000),),
    "slot_readonly": (Directive(8 * MS, "slot_readonly", ipa=PAGE),),
    "slot_delete": (Directive(8 * MS, "slot_delete", ipa=PAGE),),
    "kexec": (Directive(8 * MS, "kexec"),),
    "pause": (Directive(6 * MS, "pause", vcpu=1), Directive(8 * MS, "resume", vcpu=1)),
    "migrate": tuple(Directive(3 * MS + 700_000 * n, "migrate", vcpu=n // 2 % 2, pcpu=n % 2) for n in range(20)),
}


# What the same run breaks under a faithful hypervisor (docs/pvtime.md 8.1 e and f).
FAITHFUL = {"slot_readonly": {"S4"}, "slot_delete": {"S4"}, "kexec": {"L5"}}
# What a fault breaks beside the invariant that it names, on the guest `steal`.
BESIDE = {
    "after-entry": {"S4"},
    "backward-clock": {"S2", "S4"},
    "wrong-thread": {"S4"},
    "zeroed-online": set(),
}


def acting(name: str, guest: str = "steal") -> Scenario:
    """A run of a bundled guest in which a fault of the catalogue has something to act on."""
    needs = load_fault(name).needs
    host = busy_host(pcpus=2 if needs == "migrate" else 1, directives=EVENTS[needs])
    if needs == "online":  # the last CPU goes down and up, and the guest's cursor with it
        return scenario("accounting", host=host, inputs=(Input(0, b"hr"),))
    return scenario(guest, host=host)


def found(path: Path) -> set[str]:
    """The invariants that a trace breaks."""
    return {finding.invariant for finding in invariants(Trace.open(path))}


def with_faults(chosen: Scenario, *names: str) -> Scenario:
    """The same run under a wrong hypervisor."""
    return replace(chosen, hypervisor=replace(chosen.hypervisor, faults=names))


def _record(path: Path, *faults: str) -> Recorded:
    return record(with_faults(scenario("steal", host=busy_host()), *faults), path)


@pytest.mark.parametrize("name", catalogue())
def test_every_fault_describes_itself(name: str) -> None:
    """Name, what it does, the bugs that it models, the invariant that must find it, what it needs."""
    fault = load_fault(name)
    assert fault.name == name and fault.models and fault.invariant and fault.needs in EVENTS
    assert type(fault).__doc__ and (type(fault).__doc__ or "").splitlines()[0].endswith(".")


_TABLES = ("hypercalls", "memory_writes", "pvtime", "directives")


@pytest.mark.parametrize("name", catalogue())
def test_every_fault_is_found_and_replays(tmp_path: Path, name: str) -> None:
    """By the invariant that it names and by no others than are listed; the run without it breaks what a faithful KVM breaks."""
    fault = load_fault(name)
    record(acting(name), tmp_path / "clean.tkt")
    record(with_faults(acting(name), name), tmp_path / "wrong.tkt")
    assert found(tmp_path / "clean.tkt") == FAITHFUL.get(fault.needs, set())
    assert found(tmp_path / "wrong.tkt") == {fault.invariant} | BESIDE.get(name, set())
    assert replayed(tmp_path / "wrong.tkt").is_identical


# `tick-only`: this guest is entered once a tick, by its own.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in catalogue() if name not in ("tick-only", "zeroed-online")])
def test_every_fault_is_found_on_another_guest(tmp_path: Path, name: str) -> None:
    """One that sleeps, ticks, and accounts as Linux does."""
    record(with_faults(acting(name, "accounting"), name), tmp_path / "wrong.tkt")
    assert load_fault(name).invariant in found(tmp_path / "wrong.tkt")


def test_a_fault_says_where_it_acts(tmp_path: Path) -> None:
    """A `fault` row names it by its number in the manifest; here it stands where the update does not."""
    record(with_faults(acting("skipped-update"), "wrong-unit", "skipped-update"), tmp_path / "a.tkt")
    named = Trace.open(tmp_path / "a.tkt").manifest["scenario"]["hypervisor"]["faults"]
    told = [row for row in rows(tmp_path / "a.tkt", "directives") if row["kind"] == "fault"]
    assert len(told) > 2 and {named[row["value"]]["name"] for row in told} == {"skipped-update"}
    published = {row["position"] for row in rows(tmp_path / "a.tkt", "pvtime") if row["event"] == "publish"}
    assert not published & {row["position"] for row in told}


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    """It decides alone what is published and when; the trace replays after its file is gone."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    _record(tmp_path / "policy.tkt", f"{file}:WholeMilliseconds")
    file.unlink()
    published = [row for row in rows(tmp_path / "policy.tkt", "pvtime") if row["event"] == "publish"]
    entries = {(row["vcpu"], row["vtime_ns"]) for row in rows(tmp_path / "policy.tkt", "schedule") if row["event"] == "run"}
    assert len(published) > 4 and max(row["stolen_ns"] for row in published) >= MS
    assert {row["stolen_ns"] % MS for row in published} == {0}
    assert all((row["vcpu"], row["vtime_ns"] - 50_000) in entries for row in published)
    assert replayed(tmp_path / "policy.tkt").is_identical


def test_a_scenario_file_names_faults(tmp_path: Path) -> None:
    """Of the catalogue, and by a file beside the scenario."""
    (tmp_path / "mine.py").write_text(MINE)
    text = f'[guest]\nimage = "{scenario("steal").image}"\n[hypervisor]\nfaults = ["torn-update", "mine.py:Double"]\n'
    (tmp_path / "a.toml").write_text(text)
    done = tracekit("record", "--scenario", tmp_path / "a.toml", "--max-vtime", "2ms", "-o", tmp_path / "a.tkt")
    assert done.returncode == 0, done.stderr
    described = Trace.open(tmp_path / "a.tkt").manifest["scenario"]["hypervisor"]["faults"]
    assert [one["name"] for one in described] == ["torn-update", "Double"]


def test_the_catalogue_is_listed() -> None:
    """`tracekit faults`, in words and as JSON."""
    told = tracekit("faults")
    assert told.returncode == 0 and all(name in told.stdout for name in catalogue())
    listed = {one["name"]: one for one in json.loads(tracekit("faults", "--json").stdout)}
    assert list(listed) == list(catalogue())
    assert listed["stale-page"]["invariant"] == "M5" and listed["stale-page"]["needs"] == "slot_delete"
    assert "bug 22" in listed["stale-page"]["models"]


def test_a_fault_of_ones_own(tmp_path: Path) -> None:
    """It changes what is published, the manifest names it, and the trace replays after its file is gone."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    _record(tmp_path / "clean.tkt")
    _record(tmp_path / "double.tkt", f"{file}:Double")
    file.unlink()
    told = [max(row["stolen_ns"] for row in rows(tmp_path / f"{name}.tkt", "pvtime")) for name in ("clean", "double")]
    assert told[1] > told[0] * 1.9 > 0
    (described,) = Trace.open(tmp_path / "double.tkt").manifest["scenario"]["hypervisor"]["faults"]
    assert described["name"] == "Double"
    assert replayed(tmp_path / "double.tkt").is_identical


@pytest.mark.parametrize(("name", "line"), [("Raises", 11), ("RaisesInCall", 15)])
def test_a_fault_that_raises(tmp_path: Path, name: str, line: int) -> None:
    """The end says where; the run is kept and replays; exit code 1."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    done = _record(tmp_path / "a.tkt", f"{file}:{name}")
    assert done.end.reason is EndReason.FAULT_RAISED and f"mine.py:{line}:" in (done.end.detail or "")
    assert Trace.open(tmp_path / "a.tkt", verify="all").manifest["end"]["reason"] == "fault_raised"
    assert replayed(tmp_path / "a.tkt").is_identical
    guest = scenario("steal").image
    told = tracekit(
        "record", guest, "--vcpus", "2", "--neighbour", "50%:2ms", "--fault", f"{file}:{name}", "-o", tmp_path / "b.tkt"
    )
    assert told.returncode == 1 and f"mine.py:{line}:" in told.stdout + told.stderr


def test_faults_that_cannot_be_had(tmp_path: Path) -> None:
    """Unknown names list the known ones; files and classes that are not there, or broken, say so."""
    with pytest.raises(InputError, match="torn-update"):
        load_fault("no-such-fault")
    with pytest.raises(InputError, match="cannot read"):
        load_fault(f"{tmp_path}/none.py:Fault")
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    with pytest.raises(InputError, match="it has Double, Raises, RaisesInCall, WholeMilliseconds"):
        load_fault(f"{file}:Other")
    with pytest.raises(InputError, match=r"FILE\.py:Class"):
        load_fault(str(file))
    file.write_text("x = (\n")
    with pytest.raises(InputError, match=r"mine\.py:1: SyntaxError"):
        load_fault(f"{file}:Other")
    done = tracekit("record", scenario("steal").image, "--fault", "no-such", "-o", tmp_path / "a.tkt")
    assert done.returncode == 2 and "big-endian" in done.stderr and not (tmp_path / "a.tkt").exists()
