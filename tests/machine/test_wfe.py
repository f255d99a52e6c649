"""Stopping behind every WFE: against the slow reference, which looks at each instruction's word."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from a64 import NOP, SEV, WFE, Word, add, adr, assemble, branch, cbz, movz, sub
from small_engine import CODE, RAM, REWRITTEN, SIZE, Program, Stop, engine, lock_scenario, stops
from support import busy_host, replayed, rows

from tracekit.formats.verify import verify
from tracekit.host.config import HostConfig
from tracekit.machine.engine import Engine, EngineConfig
from tracekit.machine.registers import Registers
from tracekit.recorder.record import load_guest, record
from tracekit.recorder.session import Recording

ENGINES = [
    pytest.param(EngineConfig(mode=mode, page_size=page_size, stops_at_wfe=True), id=f"{mode}-{page_size}")
    for mode in ("fast", "exact", "safe")
    for page_size in (1024, 4096)
]
REFERENCE = EngineConfig(counting="instruction", stops_at_wfe=True)


def stops_of(config: EngineConfig, images: dict[int, bytes], limit: int) -> list[Stop]:
    with engine(config, images) as made:
        return stops(made, limit)


STRAIGHT = Program(
    assemble("a", NOP, WFE, NOP, SEV, WFE, WFE, branch("a")), [(2, 8), (5, 20), (6, 24), (9, 8), (12, 20), (13, 24)]
)
INTO_THE_MIDDLE = Program(  # the WFE at 16 is reached by falling into it, then by a jump to it
    assemble(movz(1, 2), "a", cbz(1, "b"), sub(1, 1, 1), NOP, "b", WFE, branch("a")),
    [(5, 20), (10, 20), (13, 20), (16, 20)],
)


@pytest.mark.parametrize("config", [*ENGINES, pytest.param(REFERENCE, id="reference")])
@pytest.mark.parametrize("program", [STRAIGHT, INTO_THE_MIDDLE], ids=["straight", "middle"])
def test_stops_behind_each(config: EngineConfig, program: Program) -> None:
    """Position and PC are those behind the WFE, each time that it executes."""
    limit = program.wfes[-1][0] + 1
    wanted = [("WFE", 0, position, CODE + pc) for position, pc in program.wfes]

    assert stops_of(config, {CODE: program.code}, limit)[:-1] == wanted


@pytest.mark.parametrize("config", ENGINES)
def test_rewritten_code(config: EngineConfig) -> None:
    """An instruction becomes a WFE and something else again: only the WFE stops."""
    found = stops_of(config, {CODE: REWRITTEN.code}, 60)

    assert found[0] == ("WFE", 0, REWRITTEN.wfes[0][0], CODE + REWRITTEN.wfes[0][1])
    assert found == stops_of(REFERENCE, {CODE: REWRITTEN.code}, 60)
    assert 2 <= len(found) < 10


@pytest.mark.parametrize("config", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_random_code(config: EngineConfig, seed: int) -> None:
    """Random code with jumps over three pages, stopped at random places: the slow reference sees the same WFEs."""
    chance = random.Random(seed)
    words: list[Word] = ["w0", movz(1, 1)]
    for index in range(1, 700):
        words.append(f"w{index}")
        target = f"w{chance.randrange(700)}"
        kinds: list[Word] = [
            NOP,
            WFE,
            WFE,
            SEV,
            add(1, 1, 1),
            ("tbz", 0x36000001 | chance.randrange(4) << 19, target),
            branch(target),
        ]
        chosen = chance.choices(kinds, [20, 4, 4, 2, 20, 8, 1])[0]
        if isinstance(chosen, tuple) and chosen[0] == "tbz":
            chosen = (
                ("imm19", 0xB5000000 | 2, target) if chance.random() < 0.1 else cbz(2 if chance.random() < 0.3 else 1, target)
            )
        words.append(chosen)
    words.append(branch("w0"))
    images = {CODE: assemble(*words)}
    wanted = stops_of(REFERENCE, images, 20_000)
    with engine(config, images) as made:
        found: list[Stop] = []
        while made.position < 20_000:
            found += stops(made, min(20_000, made.position + chance.randrange(1, 90)))

    assert [stop for stop in found if stop[0] == "WFE"] == [stop for stop in wanted if stop[0] == "WFE"]
    assert found[-1] == wanted[-1]
    assert len(wanted) > 20


@pytest.mark.parametrize("config", ENGINES)
def test_more_sites_than_are_kept(config: EngineConfig) -> None:
    """More WFEs than the engine keeps hooks for, twice around."""
    images = {CODE: assemble("a", *([NOP, WFE] * 600), branch("a"))}

    assert stops_of(config, images, 2_402) == [
        *(("WFE", 0, round_ * 1_201 + 2 * n + 2, CODE + 8 * n + 8) for round_ in range(2) for n in range(600)),
        ("LIMIT", 0, 2_402, CODE),
    ]


def tables(images: dict[int, bytes], at: int, pages: dict[int, int]) -> None:
    """Page tables at `at` (three pages): page number in RAM as the guest sees it, to page number in RAM."""
    level1, level3 = bytearray(4096), bytearray(4096)
    struct.pack_into("<Q", level1, 8, at + 0x1000 | 3)
    for virtual, physical in pages.items():
        struct.pack_into("<Q", level3, 8 * virtual, RAM + 0x1000 * physical | 0x703)
    images[at] = bytes(level1) + struct.pack("<Q", at + 0x2000 | 3).ljust(4096, b"\0") + bytes(level3)


def turn_mmu_on(made: Engine, vcpu: int, table: int, sctlr: int = 0x30D00801) -> None:
    wanted = made.registers(vcpu).as_dict()
    wanted |= {"ttbr0_el1": table, "tcr_el1": 25 | 1 << 23, "mair_el1": 0xFF, "sctlr_el1": sctlr, "vbar_el1": RAM + 0x8000}
    made.set_registers(vcpu, Registers(tuple(wanted.values())))


@pytest.mark.parametrize("config", [*ENGINES, pytest.param(REFERENCE, id="reference")])
def test_at_the_end_of_a_page(config: EngineConfig) -> None:
    """The next instruction cannot be fetched: the WFE has retired and stops, then the abort comes."""
    images = {CODE + 0xFF8: assemble(NOP, WFE), RAM + 0x8200: assemble("a", branch("a"))}
    tables(images, RAM + 0x10000, {4: 4, 8: 8})
    with engine(config, images, CODE + 0xFF8) as made:
        turn_mmu_on(made, 0, RAM + 0x10000)
        assert stops(made, 3) == [("WFE", 0, 2, CODE + 0x1000), ("LIMIT", 0, 3, RAM + 0x8200)]
        registers = made.registers(0)
        assert (registers["elr_el1"], registers["esr_el1"] >> 26) == (CODE + 0x1000, 0x21)


@pytest.mark.parametrize("config", [*ENGINES, pytest.param(REFERENCE, id="reference")])
def test_at_the_end_of_memory(config: EngineConfig) -> None:
    """The same with an external abort, MMU off."""
    end = RAM + SIZE
    with engine(config, {end - 8: assemble(NOP, WFE), RAM + 0x200: assemble("a", branch("a"))}, end - 8) as made:
        wanted = made.registers(0).as_dict() | {"vbar_el1": RAM}
        made.set_registers(0, Registers(tuple(wanted.values())))
        assert stops(made, 3) == [("WFE", 0, 2, end), ("LIMIT", 0, 3, RAM + 0x200)]


@pytest.mark.parametrize("config", [*ENGINES, pytest.param(REFERENCE, id="reference")])
def test_two_address_spaces(config: EngineConfig) -> None:
    """One address is a WFE on vCPU 0 and none on vCPU 1, which has the WFE at an address of its own for the same memory."""
    images = {CODE: assemble("a", NOP, WFE, NOP, branch("a")), CODE + 0x1000: assemble("a", *[NOP] * 3, branch("a"))}
    tables(images, RAM + 0x10000, {4: 4})
    tables(images, RAM + 0x20000, {4: 5, 9: 4})
    other = RAM + 0x9000
    with engine(config, images, vcpus=2) as made:
        turn_mmu_on(made, 0, RAM + 0x10000)
        turn_mmu_on(made, 1, RAM + 0x20000)
        found = stops(made, 8)
        for vcpu, limit in ((1, 16), (0, 20)):
            made.switch(vcpu)
            made.set_clock(0)
            found += stops(made, limit)
        wanted = made.registers(1).as_dict() | {"pc": other}
        made.set_registers(1, Registers(tuple(wanted.values())))
        made.switch(1)
        made.set_clock(0)
        found += stops(made, 24)

    assert found == [
        ("WFE", 0, 2, CODE + 8), ("WFE", 0, 6, CODE + 8), ("LIMIT", 0, 8, CODE),
        ("LIMIT", 1, 16, CODE),
        ("WFE", 0, 18, CODE + 8), ("LIMIT", 0, 20, CODE),
        ("WFE", 1, 22, other + 8), ("LIMIT", 1, 24, other),
    ]  # fmt: skip


@pytest.mark.parametrize("counting", ["block", "instruction"])
def test_a_wfe_that_takes_an_exception(counting: str) -> None:
    """An indirect jump to a WFE on a guarded page (BTI): the exception comes instead, nothing retires."""
    config = EngineConfig(cpu="max", counting=counting, stops_at_wfe=True)
    code = assemble(adr(16, "to"), 0xD61F0200, "to", WFE, "end", branch("end"))  # BR X16
    images = {CODE: code, RAM + 0x8200: assemble("a", WFE, branch("a"))}
    tables(images, RAM + 0x10000, {4: 4, 8: 8})
    level3 = bytearray(images[RAM + 0x10000])
    struct.pack_into("<Q", level3, 0x2000 + 8 * 4, CODE | 0x703 | 1 << 50)  # guarded
    images[RAM + 0x10000] = bytes(level3)
    with engine(config, images) as made:
        turn_mmu_on(made, 0, RAM + 0x10000, sctlr=0x30D00801 | 1 << 36)  # BT1
        assert stops(made, 3) == [("WFE", 0, 3, RAM + 0x8204), ("LIMIT", 0, 3, RAM + 0x8204)]
        registers = made.registers(0)
        assert (registers["elr_el1"], registers["esr_el1"] >> 26) == (CODE + 8, 0x0D)


def test_every_limit() -> None:
    """A stop asked for at any position loses no WFE and tells none twice."""
    for limit in range(1, 15):
        with engine(EngineConfig(stops_at_wfe=True), {CODE: STRAIGHT.code}) as made:
            found = stops(made, limit) + stops(made, 15)
        assert [stop[2] for stop in found if stop[0] == "WFE"] == [position for position, _ in STRAIGHT.wfes]
        assert [stop[2] for stop in found if stop[0] == "LIMIT"] == [limit, 15]


def test_only_where_asked_for() -> None:
    """Off by default, and for as long as stop_at_wfe(False) says so."""
    safe = EngineConfig(mode="safe")
    assert safe.hook_set() == [hook for hook in replace(safe, stops_at_wfe=True).hook_set() if hook != "edge"]
    assert stops_of(EngineConfig(), {CODE: STRAIGHT.code}, 14) == [("LIMIT", 0, 14, CODE)]
    for config in (EngineConfig(stops_at_wfe=True), REFERENCE):
        with engine(config, {CODE: STRAIGHT.code}) as made:
            made.stop_at_wfe(False)
            assert [stop[0] for stop in stops(made, 7)] == ["LIMIT"]
            made.stop_at_wfe(True)
            assert [stop[2] for stop in stops(made, 14)] == [9, 12, 13, 14]


# --- yields ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "pcpus"), [("round-robin", 1), ("fair", 1), ("chaos", 2)])
@pytest.mark.parametrize("mode", ["fast", "safe"])
def test_yields_replay(tmp_path: Path, policy: str, pcpus: int, mode: str) -> None:
    """A WFE yields to whoever waits, between it and the next instruction; the trace alone brings the run back."""
    host = busy_host(policy, pcpus, slice_ns=20_000, yields_on_wfe=True)
    path = tmp_path / "locked.tkt"
    done = record(lock_scenario(tmp_path, host, engine_mode=mode), path)
    yields = [row for row in rows(path, "schedule") if row["event"] == "yield"]

    assert done.end.reason.value == "power_off"
    assert len(yields) > 20
    assert {row["reason"] for row in yields} == {"wfe"}
    assert {row["vcpu"] for row in yields} == {0, 1}
    assert verify(path) == []
    for options in ({}, {"counting": "instruction"}, {"page_size": 1024, "mode": "safe"}):
        result = replayed(path, **options)
        assert result.is_identical, str(result.divergence)


def test_yields_are_the_same_in_every_engine(tmp_path: Path) -> None:
    """What the reference records is what the others record."""
    host = busy_host("round-robin", 1, slice_ns=20_000, yields_on_wfe=True)
    found = []
    for number, changes in enumerate(({}, {"engine_counting": "instruction"}, {"engine_mode": "safe", "engine_page_size": 1024})):
        path = tmp_path / f"{number}.tkt"
        record(lock_scenario(tmp_path, host, **changes), path)
        found.append(rows(path, "schedule"))

    assert found[0] == found[1] == found[2]


def test_a_lone_vcpu_does_not_yield(tmp_path: Path) -> None:
    """As KVM, which traps WFE only while somebody waits for the CPU; and the waiter wastes no slice where it does."""
    ends = {}
    for name, host in {
        "alone": HostConfig(pcpus=2, yields_on_wfe=True),
        "deaf": HostConfig(pcpus=1, slice_ns=20_000),
        "yields": HostConfig(pcpus=1, slice_ns=20_000, yields_on_wfe=True),
    }.items():
        chosen = lock_scenario(tmp_path, host)
        seen: list[str] = []
        session = Recording(chosen, load_guest(chosen), None)
        emit = session.board.emit_at
        session.board.emit_at = lambda table, *row, seen=seen, emit=emit: (  # type: ignore[method-assign]
            seen.append(row[4]) if table == "schedule" else None,
            emit(table, *row),
        )
        ends[name] = session.run().vtime_ns, seen.count("yield")
        session.board.close()

    assert ends["alone"][1] == ends["deaf"][1] == 0
    assert ends["yields"][1] > 20
    assert ends["yields"][0] < 0.8 * ends["deaf"][0]
