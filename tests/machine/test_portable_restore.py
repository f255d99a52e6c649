"""Going on from a mark: portable values and memory are the whole machine, on another engine and in any order."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from a64 import HVC, NOP, assemble, cbnz, movk, movz, sub
from machines import running
from marks import check, record_marks, spread
from support import busy_host, replayed, rows, scenario

from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.machine.further import FURTHER
from tracekit.machine.portable import decode, encode
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario

SVE_ROUNDS = 3_000
# The longest vectors, all predicates of a kind, and a sum over everything at the end: X1 sum of Z1, X2 P3, X3 FFR.
SVE = assemble(
    movz(0, 0x33, 16), 0xD5181040, movz(0, 0xF), 0xD5181200, 0xD5033FDF,  # CPACR_EL1: ZEN, FPEN; ZCR_EL1; ISB
    0x04E34020, 0x04A13021,  # INDEX Z0.D, #1, #3; EOR Z1.D, Z1.D, Z1.D
    0x25D8E3E0, 0x2518E0E3, 0x25289060,  # PTRUE P0.D; PTRUE P3.B, VL7; WRFFR P3.B
    movz(11, SVE_ROUNDS),
    "more", 0x04E00021, *[NOP] * 20, sub(11, 11, 1), cbnz(11, "more"),  # ADD Z1.D, Z1.D, Z0.D
    0x04C12022, 0x9E660041,  # UADDV D2, P0, Z1.D; FMOV X1, D2
    0x25208C62, 0x2519F001, 0x25208421,  # CNTP X2, P3, P3.B; RDFFR P1.B; CNTP X1.. of P1
    0x9E660041, 0x25208423, movz(0, 0x8400, 16), movk(0, 8), HVC,  # FMOV X1, D2; CNTP X3, P1, P1.B
)  # fmt: skip


def sve_scenario(folder: Path) -> Scenario:
    image = folder / "sve.bin"
    image.write_bytes(SVE)
    return Scenario(
        image=str(image), guest_format="flat", cpu="max", ram=16 << 20, ns_per_instruction=(9_999, 7), max_vtime_ns=2_000_000_000
    )


GUESTS = (
    ("timer", {"ns_per_instruction": (5_000, 1)}, 3),
    ("spinlock", {"ns_per_instruction": (500, 1), "host": busy_host("chaos", pcpus=1)}, 10),
    ("accounting", {"ns_per_instruction": (50, 1), "host": busy_host("fair", pcpus=2)}, 6),
    ("steal", {"ns_per_instruction": (50, 1), "host": busy_host("fair", pcpus=1)}, 6),
    ("faults", {"cpu": "a72", "ns_per_instruction": (20_000, 1), "max_vtime_ns": 300_000_000}, 5),
    ("lse", {"ns_per_instruction": (60_000, 1)}, 1),
)


@pytest.mark.parametrize(("guest", "changes", "count"), GUESTS, ids=[guest for guest, _, _ in GUESTS])
def test_going_on_from_a_mark(tmp_path: Path, guest: str, changes: dict[str, Any], count: int) -> None:
    """Two vCPUs under several hosts."""
    check(record_marks(scenario(guest, **changes), tmp_path / "a.tkt"), count)


def test_vectors(tmp_path: Path) -> None:
    """A guest whose state is in Z, P and FFR."""
    marked = record_marks(sve_scenario(tmp_path), tmp_path / "a.tkt")
    last = rows(tmp_path / "a.tkt", "hypercalls")[-1]
    assert last["x1"] == SVE_ROUNDS * sum(1 + 3 * n for n in range(32))
    assert (last["x2"], last["x3"]) == (7, 7)
    assert all(json.loads(mark.state)["vcpus"][0]["sve"] for mark in marked.marks)
    check(marked, 5)


def test_vectors_that_are_lost(tmp_path: Path) -> None:
    """The sum does depend on them: without, the replay diverges."""
    marked = record_marks(sve_scenario(tmp_path), tmp_path / "a.tkt")
    mark = marked.marks[len(marked.marks) // 2]
    form = json.loads(mark.state)
    form["vcpus"][0]["sve"] = ""
    marked.marks[0] = replace(mark, state=json.dumps(form), changes=marked.pages(len(marked.marks) // 2))
    result, _ = marked.fresh(0)
    assert result.divergence is not None


def test_any_order_in_one_session(tmp_path: Path) -> None:
    """One board goes to and fro between marks; what it ran before leaves nothing."""
    changes = {"ns_per_instruction": (50, 1), "host": busy_host("fair", pcpus=2)}
    marked = record_marks(scenario("accounting", **changes), tmp_path / "a.tkt")
    _, memory = marked.straight()
    numbers = [*spread(marked, 4)] * 2
    random.Random(7).shuffle(numbers)
    replay = marked.replay()
    for number in numbers:
        result, digest = marked.go_on(replay, number)
        assert result.is_identical, (number, str(result.divergence))
        assert digest == memory
    replay.board.close()


# --- nothing is missing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", ["a53", "a72", "max"])
def test_further_registers_round_trip(cpu: str) -> None:
    """Each of them on its own, and none of them touches another."""
    with running("memory", position=20_000, vcpus=2, cpu=cpu) as board:
        for number, one in enumerate(FURTHER):
            if one.is_of_max and cpu != "max":
                continue
            form = encode(board.save_portable())
            form["vcpus"][1]["further"][one.name] = value = (number + 1) * 0x0102_0304_0506_0708 & one.value_max & ~1
            board.restore_portable(decode(form, 2), {})
            assert encode(board.save_portable()) == form, (one.name, value)
        assert board.portable_gap() is None


@pytest.mark.parametrize("cpu", ["a53", "max"])
def test_what_is_missing_is_found(cpu: str) -> None:
    """A bit in every 8 bytes of a context, spoilt: a portable register holds it, or the gap is told, or it is no state.

    No state are the cached flags, bits of the condition flags' form that mean nothing, the bank of the selected stack pointer, the
    clock's and the event counters' notes of when they last were looked at, the last exception's record and the exclusive monitor.
    """
    with running("memory", position=20_000, cpu=cpu) as board:
        engine = board.engine
        context = engine.context(0)
        unseen = []
        for at in range(0, len(context), 8):
            spoilt = bytearray(context)
            spoilt[at] ^= 0x10
            engine.set_context(0, bytes(spoilt))
            before = engine.portable(0)
            if board.portable_gap() is None:
                engine.set_context(0, context)
                if engine.portable(0) == before:
                    unseen.append(at)
        engine.set_context(0, context)
    assert 8 <= len(unseen) <= 1 + 2 + 1 + 1 + 4 + 3 + 3, unseen


def test_hardware_breakpoints_are_told() -> None:
    """The engine keeps more of them than registers: such a machine cannot be kept."""
    with running("memory", position=20_000) as board:
        assert board.portable_gap() is None
        board.engine._write_system(0, 0, 2, 0, 5, 1)
        assert "dbgbcr0_el1" in str(board.portable_gap())


def test_checkpoints_that_nobody_could_go_on_from_are_left_out(tmp_path: Path) -> None:
    """The manifest says where and why; once the breakpoint is off again there are some."""
    code = assemble(
        movz(0, 1), 0xD51000A0, movz(11, 40_000), "on", sub(11, 11, 1), cbnz(11, "on"),  # MSR DBGBCR0_EL1, X0
        movz(0, 0), 0xD51000A0, movz(11, 40_000), "off", sub(11, 11, 1), cbnz(11, "off"),
        movz(0, 0x8400, 16), movk(0, 8), HVC,
    )  # fmt: skip
    image, path = tmp_path / "breakpoint.bin", tmp_path / "a.tkt"
    image.write_bytes(code)
    record(Scenario(str(image), guest_format="flat", ram=16 << 20, ns_per_instruction=(999, 1), checkpoint_every=1), path)
    trace = Trace.open(path)
    left_out = trace.manifest["checkpoints_left_out"]
    entries = trace.checkpoints().entries

    assert "hardware breakpoint (dbgbcr0_el1)" in left_out["reason"]
    assert 0 < left_out["position"] < 80_000 < entries[0].position
    assert verify(path) == []
    result = replayed(path)
    assert result.is_identical, str(result.divergence)
