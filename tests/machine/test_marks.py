"""Marks: at the places of `states` rows no exclusive monitor is set, in the recording and in every replay of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from a64 import HVC, NOP, WFI, add, adr, assemble, branch, cbnz, movk, movz, sub
from support import busy_host, files_of, replayed, rows

from tracekit.formats.errors import TraceDamaged
from tracekit.host.config import HostConfig
from tracekit.machine.description import board_config, describe_machine
from tracekit.machine.engine import EngineConfig
from tracekit.recorder import session
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario

ROUNDS = 600
# Each vCPU adds to a counter with a long way from LDXR to STXR, so that most marks fall between the two; X19 counts stores that
# failed. vCPU 0 starts vCPU 1 and at the end powers off with its count in X1.
EXCLUSIVE = assemble(
    movz(0, 0xC400, 16), movk(0, 3), movz(1, 1), adr(2, "both"), movz(3, 0), HVC,
    "both", adr(10, "counter"), movz(11, ROUNDS), movz(19, 0),
    "try", 0xC85F7D4C, *[NOP] * 40, add(12, 12, 1), 0xC80E7D4C,  # LDXR X12, [X10]; STXR W14, X12, [X10]
    0x8B0E0273, cbnz(14, "try"),  # ADD X19, X19, X14
    sub(11, 11, 1), cbnz(11, "try"),
    0xD53800B1, 0x92401E31, cbnz(17, "rest"),  # MRS X17, MPIDR_EL1; AND X17, X17, #0xff
    0xAA1303E1, movz(0, 0x8400, 16), movk(0, 8), HVC,  # MOV X1, X19
    "rest", WFI, branch("rest"), NOP, "counter", 0, 0,
)  # fmt: skip


def exclusive(folder: Path, **changes: Any) -> Scenario:
    """10 ms of virtual time are 50,000 instructions less a few: marks fall on all kinds of places."""
    image = folder / "exclusive.bin"
    image.write_bytes(EXCLUSIVE)
    base = Scenario(
        image=str(image), guest_format="flat", ram=16 << 20, ns_per_instruction=(19_999, 7), max_vtime_ns=2_000_000_000
    )
    return replace(base, **changes)


def failed_stores(path: Path) -> int:
    """X1 of the last call."""
    return int(rows(path, "hypercalls")[-1]["x1"])


@pytest.mark.parametrize("counting", ["block", "instruction"])
@pytest.mark.parametrize("capture", ["thin", "full"])
@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_mark_between_load_and_store(tmp_path: Path, counting: str, capture: str, vcpus: int) -> None:
    """The store fails, in the recording and in every replay."""
    path = tmp_path / "a.tkt"
    host = HostConfig(pcpus=vcpus) if vcpus == 1 else busy_host("round-robin", pcpus=1)
    done = record(exclusive(tmp_path, vcpus=vcpus, engine_counting=counting, capture=capture, host=host), path)

    assert done.end.reason.value == "power_off"
    assert failed_stores(path) >= 3
    for options in ({}, {"counting": "instruction"}, {"mode": "safe", "page_size": 1024}):
        result = replayed(path, **options)
        assert result.is_identical, str(result.divergence)


def test_straight_runs_end_at_marks(tmp_path: Path) -> None:
    """Whatever counts the instructions, and in a replay that captures what a thin recording did not."""
    for counting in ("block", "instruction"):
        path = tmp_path / f"{counting}.tkt"
        record(exclusive(tmp_path, capture="full", engine_counting=counting), path)
        marks = {row["position"] for row in rows(path, "states")}
        runs = [(row["position"], row["position"] + row["instructions"]) for row in rows(path, "blocks")]
        assert len(marks) > 5
        assert not [(begin, end, mark) for begin, end in runs for mark in marks if begin < mark < end]
    assert files_of(tmp_path / "block.tkt")["blocks.arrow"] == files_of(tmp_path / "instruction.tkt")["blocks.arrow"]


def test_older_recordings_have_no_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the manifest's key a mark changes nothing, and the replay knows."""
    made = session.board_config
    monkeypatch.setattr(session, "board_config", lambda *given: replace(made(*given), marks=False))
    path = tmp_path / "old.tkt"
    record(exclusive(tmp_path), path)

    assert "marks" not in json.loads((path / "trace.json").read_text())["machine"]
    assert failed_stores(path) == 0
    for options in ({}, {"counting": "instruction"}):
        result = replayed(path, **options)
        assert result.is_identical, str(result.divergence)


def test_the_manifest_says_so() -> None:
    """`clear`, no key, and nothing else."""
    engine = EngineConfig()
    machine = describe_machine(session.board_config(Scenario()), 0, 0, [])
    assert machine["marks"] == "clear"
    assert board_config(machine, engine).marks
    assert not board_config({key: value for key, value in machine.items() if key != "marks"}, engine).marks
    for wrong in ("keep", True, [], {}):
        with pytest.raises(TraceDamaged, match="machine"):
            board_config({**machine, "marks": wrong}, engine)
