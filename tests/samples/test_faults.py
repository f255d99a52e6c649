"""Faults: the catalogue, faults of the user's own, and what becomes of a fault whose code fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
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
'''


def _record(path: Path, *faults: str) -> Recorded:
    chosen = scenario("steal", host=busy_host())
    return record(replace(chosen, hypervisor=replace(chosen.hypervisor, faults=faults)), path)


@pytest.mark.parametrize("name", catalogue())
def test_every_fault_describes_itself(name: str) -> None:
    """Name, the bugs that it models, and the invariant that must find it."""
    fault = load_fault(name)
    assert fault.name == name and fault.models and fault.invariant
    assert fault.models in (catalogue()[name].read_text().replace('"\n        "', ""))


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
    with pytest.raises(InputError, match="it has Double, Raises, RaisesInCall"):
        load_fault(f"{file}:Other")
    with pytest.raises(InputError, match=r"FILE\.py:Class"):
        load_fault(str(file))
    file.write_text("x = (\n")
    with pytest.raises(InputError, match=r"mine\.py:1: SyntaxError"):
        load_fault(f"{file}:Other")
    done = tracekit("record", scenario("steal").image, "--fault", "no-such", "-o", tmp_path / "a.tkt")
    assert done.returncode == 2 and "big-endian" in done.stderr and not (tmp_path / "a.tkt").exists()
