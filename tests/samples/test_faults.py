"""Faults: the catalogue, faults of the user's own, and what becomes of a fault whose code fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fault_runs import acting, events, with_faults
from support import busy_host, replayed, rows, scenario, tracekit

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import Recorded, record
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

class RaisesWhenLeft(Fault):
    def left(self, vcpu, reason):
        return {}[reason] if vcpu else None

class RaisesWhenTold(Fault):
    def told(self, kind, vcpu, value):
        return {}[kind]

class RaisesAtOnce(Fault):
    def bases(self, bases):
        return {}[bases]

class CallsAndCalls(Fault):
    def entered(self, vcpu):
        self.due(vcpu)
    def due(self, vcpu):
        self.kit.call_at(vcpu, 0)

class WholeMilliseconds(Fault):
    """A policy: whole milliseconds of all waiting, and of sleeping too, since the beginning of the world; 50 us late."""
    def publish(self, vcpu, default):
        self.kit.call_at(vcpu, self.kit.now_ns() + 50_000)
    def due(self, vcpu):
        self.kit.publish(vcpu, self.kit.clock_ns(vcpu, "wait") // 1_000_000 * 1_000_000)
'''


def _record(path: Path, *faults: str) -> Recorded:
    return record(with_faults(scenario("steal", host=busy_host()), *faults), path)


@pytest.mark.parametrize("name", catalogue())
def test_every_fault_describes_itself(name: str) -> None:
    """Name, what it does, the bugs that it models, the invariant that must find it, what it needs."""
    fault = load_fault(name)
    assert fault.name == name and fault.models and fault.invariant
    assert isinstance(events(fault.needs), tuple)
    assert type(fault).__doc__ and (type(fault).__doc__ or "").splitlines()[0].endswith(".")


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
    assert len(published) > 4 and max(row["stolen_ns"] for row in published) >= 1_000_000
    assert {row["stolen_ns"] % 1_000_000 for row in published} == {0}
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
    assert " kvm, publication kvm, fault Double\n" in tracekit("info", tmp_path / "double.tkt").stdout
    assert replayed(tmp_path / "double.tkt").is_identical


@pytest.mark.parametrize(("name", "line"), [("Raises", 11), ("RaisesInCall", 15), ("RaisesWhenLeft", 19), ("RaisesWhenTold", 23)])
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


def test_a_fault_that_raises_before_the_run(tmp_path: Path) -> None:
    """Nothing was recorded and nothing is left; exit code 2."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    told = tracekit("record", scenario("steal").image, "--fault", f"{file}:RaisesAtOnce", "-o", tmp_path / "a.tkt")
    assert told.returncode == 2 and "mine.py:27: KeyError" in told.stderr and "report" not in told.stderr
    assert [one.name for one in tmp_path.iterdir() if one.suffix != ".py"] == []


def test_a_fault_that_wants_to_be_called_for_ever(tmp_path: Path) -> None:
    """The run goes on all the same."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    chosen = with_faults(scenario("steal", host=busy_host(), max_vtime_ns=2_000_000), f"{file}:CallsAndCalls")
    assert record(chosen, tmp_path / "a.tkt").end.reason is EndReason.LIMIT_VTIME


def test_faults_that_cannot_be_had(tmp_path: Path) -> None:
    """Unknown names list the known ones; files and classes that are not there, or broken, say so."""
    with pytest.raises(InputError, match="torn-update"):
        load_fault("no-such-fault")
    with pytest.raises(InputError, match="cannot read"):
        load_fault(f"{tmp_path}/none.py:Fault")
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    with pytest.raises(InputError, match="it has Double, Raises, RaisesInCall, RaisesWhenLeft"):
        load_fault(f"{file}:Other")
    with pytest.raises(InputError, match=r"FILE\.py:Class"):
        load_fault(str(file))
    file.write_text("x = (\n")
    with pytest.raises(InputError, match=r"mine\.py:1: SyntaxError"):
        load_fault(f"{file}:Other")
    done = tracekit("record", scenario("steal").image, "--fault", "no-such", "-o", tmp_path / "a.tkt")
    assert done.returncode == 2 and "big-endian" in done.stderr and not (tmp_path / "a.tkt").exists()


WRONG = '''
from __future__ import annotations
from dataclasses import dataclass
import sys
from tracekit.hypervisor.fault import Fault

@dataclass
class Hook(Fault):
    """Returns or does the one thing that the environment says."""
    times: int = 0

def returns(hook, value):
    return type("Returns", (Hook,), {hook: lambda self, *arguments: value})

def does(action):
    return type("Does", (Hook,), {"entered": lambda self, vcpu: action(self, vcpu)})

class Leaves(Fault):
    def __init__(self):
        sys.exit(3)

class Unnamed(Fault):
    name = 5

class Frozen(Fault):
    def __setattr__(self, name, value):
        raise AttributeError("frozen")

class Other(Fault):
    def __new__(cls):
        return 5

'''


@pytest.mark.parametrize(
    ("hook", "value"),
    [
        ("answer", "None"), ("answer", "Outcome((-1, 0, 0, 0))"), ("answer", "Outcome((1,))"), ("reaches", "None"),
        ("reaches", "Hypercall(7, 'hvc', 0, 0, 1, (0,) * 18)"), ("reaches", "Hypercall(0, 'hvc', 0, 0, 1, (0,))"),
        ("clears", "None"), ("publishes", "None"), ("passes_slots", "1"), ("begin_ns", "'1'"), ("run_delay_ns", "1.5"),
        ("cursor_ns", "None"), ("value_ns", "None"), ("value_ns", "float('nan')"), ("target", "-64"), ("target", "None"),
        ("stores", "5"), ("stores", "[(1, 2)]"), ("stores", "[(0, 0, 1)]"), ("stores", "[('a', 8, 1)]"), ("stores", "iter(int, 1)"),
        ("stores", "__import__('itertools').repeat((0, 4, 1))"), ("registrations", "iter(int, 1)"), ("bases", "(None,) * 5"),
        ("bases", "None"), ("bases", "('a', 'b')"), ("bases", "(1 << 64, 0)"), ("checks_bases", "None"),
    ],
)  # fmt: skip
def test_a_hook_that_returns_what_it_must_not(tmp_path: Path, hook: str, value: str) -> None:
    """It is named with what it must return: nothing of it reaches the machine. Before the run nothing is left behind."""
    file = tmp_path / "mine.py"
    file.write_text(f"{WRONG}from tracekit.hypervisor.smccc import Hypercall, Outcome\nMine = returns({hook!r}, {value})\n")
    chosen = with_faults(scenario("steal", host=busy_host(), max_vtime_ns=5_000_000), f"{file}:Mine")
    said = rf"fault Mine: mine\.py: TypeError: {hook} returned .*; it must return"
    if hook in ("bases", "registrations"):
        with pytest.raises(InputError, match=said):
            record(chosen, tmp_path / "a.tkt")
        assert [one.name for one in tmp_path.iterdir()] == ["mine.py"]
        return
    end = record(chosen, tmp_path / "a.tkt").end
    assert end.reason is EndReason.FAULT_RAISED and re.match(said, end.detail or ""), end
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("kit.acts(-1)", "ValueError: vcpu"), ("kit.acts(None)", "TypeError: vcpu"), ("kit.base(2)", "ValueError: vcpu"),
        ("kit.publish(-1, 5)", "ValueError: vcpu"), ("kit.publish(0, 1.5)", "TypeError: total_ns"),
        ("kit.call_at(9, 0)", "ValueError: vcpu"), ("kit.call_at(0, 1.5e6)", "TypeError: at_ns"),
        ("kit.clock_ns(0, 'walt')", "ValueError: clock 'walt'"), ("kit.clock_ns(-1, 'wait')", "ValueError: vcpu"),
        ("kit.store(0x40100000, 1 << 20, 1)", "ValueError: size"), ("kit.store(0x40100000, 8, 1.5)", "TypeError: value"),
        ("kit.store(0x8000000, 8, 1)", "GuestFault: no memory"), ("kit.read(0x40100000, 0)", "ValueError: size"),
        ("raises(SystemExit(3))", "SystemExit: 3"), ("raises(GeneratorExit())", "GeneratorExit:"),
        ("raises(ValueError('x\\n' * 100_000))", "ValueError: x x x"),
        ("raises(type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})())", "Odd: \\(its text cannot be had"),
        ("raises(ValueError('\\udc80'))", r"ValueError: \\udc80"),
    ],
)  # fmt: skip
def test_a_hook_that_does_what_it_must_not(tmp_path: Path, action: str, said: str) -> None:
    """The run ends by it in one short line, and is kept."""
    file = tmp_path / "mine.py"
    raises = "def raises(error):\n    raise error\n"
    file.write_text(f"{WRONG}{raises}def act(kit):\n    {action}\nMine = does(lambda self, vcpu: act(self.kit))\n")
    done = record(with_faults(scenario("steal", host=busy_host(), max_vtime_ns=5_000_000), f"{file}:Mine"), tmp_path / "a.tkt")
    assert done.end.reason is EndReason.FAULT_RAISED
    assert re.match(rf"fault Mine: mine\.py:\d+: {said}", done.end.detail or ""), done.end.detail
    assert len(done.end.detail or "") < 500 and "\n" not in (done.end.detail or "")
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Leaves", "SystemExit: 3"), ("Unnamed", "TypeError: name = 5"), ("Frozen", "AttributeError: frozen"),
        ("Other", "TypeError: Other makes no Fault"),
    ],
)  # fmt: skip
def test_a_class_that_is_no_fault_after_all(tmp_path: Path, name: str, said: str) -> None:
    """Said before anything runs, as is a file that ends the program; dataclasses are classes like others."""
    file = tmp_path / "mine.py"
    file.write_text(WRONG)
    assert load_fault(f"{file}:Hook").name == "Hook"
    with pytest.raises(InputError, match=said):
        load_fault(f"{file}:{name}")
    file.write_text("import sys\nsys.exit(4)\n")
    with pytest.raises(InputError, match=r"mine\.py:2: SystemExit: 4"):
        load_fault(f"{file}:{name}")


def test_the_fault_that_is_wrong_is_named(tmp_path: Path) -> None:
    """Also where it acts inside another one's hook."""
    file = tmp_path / "mine.py"
    file.write_text(f"{MINE}{WRONG.replace('from __future__ import annotations', '')}Mine = returns('value_ns', None)\n")
    done = _record(tmp_path / "a.tkt", f"{file}:Double", f"{file}:Mine")
    assert "fault Mine: mine.py: TypeError: value_ns returned None" in (done.end.detail or "")
