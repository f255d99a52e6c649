"""`diff` on recordings, and its command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, scenario, tracekit

from tracekit.analyzers.diff import diff
from tracekit.formats import manifest as manifests
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Input, Scenario

MS = 1_000_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Records a scenario once."""
    folder, done = tmp_path_factory.mktemp("diff"), {}

    def get(chosen: Scenario, again: str = "") -> Path:
        key = repr(chosen) + again
        if key not in done:
            done[key] = record(chosen, folder / f"{len(done)}.tkt").path
        return done[key]

    return get


def test_the_same_scenario_twice(recordings: Any) -> None:
    """The same, and not read; exit code 0."""
    chosen = scenario("steal", host=busy_host())
    a, b = recordings(chosen), recordings(chosen, "again")
    found = diff(Trace.open(a), Trace.open(b))
    assert found.is_same and found.batches_read == 0 and not found.settings
    told = tracekit("diff", a, b)
    assert told.returncode == 0 and told.stdout.splitlines()[-1].startswith("verdict: same (") and not told.stderr


def test_a_longer_slice(recordings: Any) -> None:
    """The decision, how much longer the vCPU ran, and what the scenarios differ in."""
    paths = [recordings(scenario("steal", host=busy_host(slice_ns=slice_ns))) for slice_ns in (300_000, 300_212)]
    told = tracekit("diff", *paths, "--context", 2, "--limit", 1)
    assert told.returncode == 1 and not told.stderr
    sentence = (
        "cause: decision 5: A preempted vCPU 0 at position 300,000 (reason slice), B ran it 212 instructions longer "
        "(the scenarios differ in host.slice_ns: 300000 in A, 300212 in B)"
    )
    assert sentence in told.stdout.splitlines()
    found = json.loads(tracekit("diff", *paths, "--json").stdout)
    assert found["verdict"] == "different" and found["first"]["position"] == 300_000 and found["cause"]["kind"] == "schedule"
    assert found["tables"]["schedule"]["changed"] == found["tables"]["schedule"]["only_a"] == 0
    assert [row["side"] for row in found["cause"]["rows"]] == ["a", "b"]


def test_other_seeds(recordings: Any) -> None:
    """The first decision that the host made differently."""
    chosen = scenario("steal", host=busy_host(policy="chaos"))
    paths = [recordings(replace(chosen, seed=seed)) for seed in (1, 2)]
    found = diff(*(Trace.open(path) for path in paths))
    assert found.first is not None and found.first.table == "schedule" and found.first.place == (0, 11)
    assert found.cause is not None
    assert found.cause.sentence == (
        "decision 3: at position 0 A ran vCPU 0 on pCPU 0, B ran neighbour0 there (the scenarios differ in seed: 1 in A, 2 in B)"
    )
    assert [(proof.side, proof.event.row["thread"]) for proof in found.cause.proofs] == [("a", 0), ("b", 2)]


def test_another_input_and_another_directive(recordings: Any) -> None:
    """They are named."""
    chosen = scenario("accounting", host=busy_host())
    paths = [recordings(replace(chosen, inputs=(Input(at, b"r"),))) for at in (3 * MS, 3 * MS + MS // 2)]
    found = diff(*(Trace.open(path) for path in paths))
    assert found.cause is not None and found.cause.kind == "input"
    assert "at position 3,000,000, 3 ms in A, at position 3,000,000, 3.5 ms in B" in found.cause.sentence
    pauses = (Directive(5 * MS, "pause", vcpu=1), Directive(6 * MS, "resume", vcpu=1))
    paths = [recordings(scenario("steal", host=busy_host(directives=one))) for one in ((), pauses)]
    found = diff(*(Trace.open(path) for path in paths))
    assert found.cause is not None and "B paused vCPU 1" in found.cause.sentence and "host.directives" in found.cause.sentence


def test_a_limit_and_another_capture(recordings: Any) -> None:
    """The common part is the same, and what was not compared is said."""
    chosen = scenario("steal", host=busy_host())
    whole = Trace.open(recordings(chosen))
    short = diff(whole, Trace.open(recordings(replace(chosen, max_vtime_ns=9 * MS))))
    assert short.is_same and any("its limit of virtual time" in note for note in short.notes)
    for n in (1_000_001, 3_000_050, 8_770_100):  # the last one ends within a line on the console
        assert diff(Trace.open(recordings(replace(chosen, max_instructions=n))), whole).is_same
    thick = Trace.open(recordings(replace(chosen, capture="writes")))
    found = diff(whole, thick)
    assert found.is_same and any("captured thin, B writes" in note for note in found.notes)
    with pytest.raises(InputError, match="holds no blocks"):
        diff(whole, thick, tables=("blocks",))


def test_a_recovered_recording(recordings: Any, tmp_path: Path) -> None:
    """One that lost the end of a table is the same up to there."""
    whole = recordings(scenario("steal", host=busy_host()))
    damaged = tmp_path / "damaged.tkt"
    shutil.copytree(whole, damaged)
    entry = json.loads((whole / manifests.NAME).read_bytes())["tables"]["states"]["batches"][0]
    spoiled = bytearray((whole / "states.arrow").read_bytes())
    spoiled[entry["offset"] + entry["length"] // 2] ^= 1
    (damaged / "states.arrow").write_bytes(spoiled)
    assert tracekit("recover", damaged, "-o", tmp_path / "saved.tkt").returncode == 0
    found = diff(Trace.open(whole), Trace.open(tmp_path / "saved.tkt"))
    assert found.is_same and found.total.same > 100 and any("it was recovered" in note for note in found.notes)


def test_bad_input(recordings: Any, tmp_path: Path) -> None:
    """Another major is refused with the versions, damage where it is read, unknown names; a closed pipe is silent."""
    good = recordings(scenario("steal", host=busy_host()))
    other = recordings(scenario("steal", host=busy_host(slice_ns=300_000)))
    newer = tmp_path / "newer.tkt"
    newer.mkdir()
    manifest = json.loads((good / manifests.NAME).read_bytes())
    manifest["format"]["major"] = 9
    (newer / manifests.NAME).write_text(json.dumps(manifest))
    told = tracekit("diff", good, newer)
    assert told.returncode == 2 and "format 9." in told.stderr and "1.x" in told.stderr
    told = tracekit("diff", good, other, "--ignore", "colour")
    assert told.returncode == 2 and "no column 'colour' to ignore" in told.stderr
    command = f"{sys.executable} -m tracekit.cli diff {good} {other} --limit 10000 | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"A: {good}\n" and done.stderr == ""
    damaged = tmp_path / "damaged.tkt"
    shutil.copytree(other, damaged)
    raw = bytearray((damaged / "schedule.arrow").read_bytes())
    raw[json.loads((damaged / manifests.NAME).read_bytes())["tables"]["schedule"]["batches"][0]["offset"] + 300] ^= 1
    (damaged / "schedule.arrow").write_bytes(raw)
    told = tracekit("diff", good, damaged)
    assert told.returncode == 2 and "schedule.arrow: batch 0" in told.stderr and not told.stdout
