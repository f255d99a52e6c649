"""Every engine mode cuts blocks off at the same instruction; `fast` is proven at start-up, or is not there."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from a64 import Word, add, assemble, branch, cbz
from support import busy_host, recorded, replayed, scenario

from tracekit.formats.reader import Trace
from tracekit.machine import engine as engine_module
from tracekit.machine import native, probe
from tracekit.machine.description import describe_engine
from tracekit.machine.engine import Engine, EngineConfig, StopReason
from tracekit.machine.registers import Registers
from tracekit.recorder.record import load_guest
from tracekit.recorder.session import Recording

RAM, SIZE = 0x4000_0000, 1 << 20
CODE, VECTORS, LOG, DATA, HOLE, MORE, NOWHERE = (RAM + 0x1000 * page for page in (4, 8, 9, 12, 13, 14, 15))
TABLE = RAM + 0x10000
LENGTH = 300
REFERENCE = EngineConfig(mode="exact", counting="instruction")
ENGINES = [
    pytest.param(mode, page_size, id=f"{mode}-{page_size}") for mode in ("fast", "exact", "safe") for page_size in (1024, 4096)
]
HANDLER = assemble(  # keep syndrome, address and return address, around in one page; go on behind what faulted
    0xD5385214, 0xD5386015, 0xD5384036, 0xF80086F4, 0xF80086F5, 0xF80086F6,  # MRS X20..X22, ESR, FAR, ELR; STR each, [X23], #8
    0xF80086FF, 0xB3402EF9, 0xAA1903F7,  # STR XZR, [X23], #8; BFXIL X25, X23, #0, #12; MOV X23, X25
    0xD35AFE98, 0xF1005718, cbz(24, "call"), add(22, 22, 4), 0xD5184036, "call", 0xD69F03E0,  # EC == SVC? ELR += 4; ERET
)  # fmt: skip
POINTERS = {
    10: DATA + 0x800,
    11: HOLE + 0x100,
    12: HOLE - 3,
    13: MORE - 3,
    14: NOWHERE + 0x40,
    15: HOLE + 0x7F8,
    16: DATA + 0x3FC,
}
ACCESSES = (  # with Xn to fill in: single, pair, unscaled, vector, exclusive and ordered, with and without write-back
    0xF9000001, 0xF9400002, 0xA9000801, 0xA9400C02, 0xB8001001, 0x3C800001, 0xAD000400, 0x4C007000, 0xC8007C01, 0xC85F7C02,
    0xC89FFC01, 0xF8008401, 0xF8408403, 0x39000001, 0x79400001, 0xD50B7420,
)  # fmt: skip
WRITES_BACK = (0xF8008401, 0xF8408403)
CUTS = (0xD4000001, 0xD4200000, 0x00000000, 0xD53BE042)  # SVC, BRK, UDF, MRS X2, CNTVCT_EL0


class Nobody(probe._Nobody):
    """No devices, no timers."""


def random_code(chance: random.Random) -> bytes:
    """Blocks of stores and loads to memory and to holes, with exceptions in between, around for ever."""
    words: list[Word] = ["w0"]
    for index in range(1, LENGTH):
        words.append(f"w{index}")
        pick = chance.random()
        if pick < 0.3:
            words.append(add(chance.randrange(1, 4), chance.randrange(1, 4), chance.randrange(256)))
        elif pick < 0.85:
            word, pointer = chance.choice(ACCESSES), chance.choice(list(POINTERS) if chance.random() < 0.5 else [10])
            if word in WRITES_BACK and pointer in (10, 16):
                word = ACCESSES[0]  # the pointer stays where it is
            words.append(word | pointer << 5)
        elif pick < 0.93:
            words.append(chance.choice(CUTS))
        else:
            target = f"w{min(LENGTH - 1, index + chance.randrange(1, 6))}"
            words.append(branch(target) if chance.random() < 0.5 else cbz(chance.randrange(1, 4), target))
    words.append(branch("w0"))
    return assemble(*words)


@contextmanager
def machine(config: EngineConfig, code: bytes, el: int, mmu: bool) -> Iterator[Engine]:
    """An engine at the code's start, with vectors, a log, page tables and pointers."""
    made = Engine(config, 1, RAM, SIZE, Nobody())
    images = {CODE: code, VECTORS + 0x200: HANDLER, VECTORS + 0x400: HANDLER}
    level1, level3 = bytearray(4096), bytearray(4096)
    struct.pack_into("<Q", level1, 8, TABLE + 0x1000 | 3)
    hole = RAM - 0x100000
    for page, physical, access in (
        (CODE, CODE, 0xC0), (VECTORS, VECTORS, 0), (LOG, LOG, 0), (DATA, DATA, 0x40), (HOLE, hole, 0x40), (MORE, MORE, 0x40),
    ):  # fmt: skip
        struct.pack_into("<Q", level3, (page - RAM) // 512, physical | 0x703 | access)
    images[TABLE] = bytes(level1) + struct.pack("<Q", TABLE + 0x2000 | 3).ljust(4096, b"\0") + bytes(level3)
    for at, image in images.items():
        made.ram[at - RAM : at - RAM + len(image)] = image
    made.flush_code()
    made.reset_vcpu(0, CODE, 0)
    wanted = made.registers(0).as_dict()
    wanted |= {f"x{number}": at for number, at in POINTERS.items()} | {
        "x23": LOG,
        "x25": LOG,
        "vbar_el1": VECTORS,
        "cntkctl_el1": 3,
    }
    wanted |= {"ttbr0_el1": TABLE, "tcr_el1": 25 | 1 << 23, "mair_el1": 0xFF, "sctlr_el1": 0x30D04800 | mmu}
    wanted |= {"pstate": 0x3C5 if el else 0x3C0, "cpacr_el1": 3 << 20}
    if not mmu:  # the same pointers to memory; holes stand below RAM, where nothing is mapped
        wanted |= {"x11": hole + 0x100, "x12": RAM + SIZE - 3, "x13": RAM - 3, "x14": hole + 0x40, "x15": RAM + SIZE}
    made.set_registers(0, Registers(tuple(wanted.values())))
    made.set_clock(0)
    yield made
    made.close()


def journey(made: Engine, places: list[int]) -> list[tuple[int, Registers, bytes]]:
    """Registers and RAM at each of these positions."""
    out = []
    for place in places:
        assert made.run(place, 1 << 60) is StopReason.LIMIT
        assert made.position == place
        out.append((made.pc(), made.registers(0), bytes(made.ram)))
    return out


@pytest.mark.parametrize(("el", "mmu"), [(1, False), (1, True), (0, True)], ids=["el1-flat", "el1", "el0"])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_cut_at_the_same_place(el: int, mmu: bool, seed: int) -> None:
    """Random code with faults in mid-block, stopped at random places: registers and RAM are those of the slow reference."""
    chance = random.Random(f"{seed} {el} {mmu}")
    code = random_code(chance)
    places = sorted(chance.sample(range(1, 4_000), 40))
    with machine(REFERENCE, code, el, mmu) as made:
        wanted = journey(made, places)
        log = bytes(made.ram[LOG - RAM : LOG - RAM + 0x1000])
        aborts = {entry[0] >> 26 for entry in struct.iter_unpack("<QQQQ", log)}
        assert made.state.external_aborts > 50
        assert aborts >= ({0x25, 0x15, 0x3C, 0} if el else {0x24, 0x15, 0x3C, 0})
    for parameter in ENGINES:
        mode, page_size = parameter.values
        with machine(EngineConfig(mode=str(mode), page_size=int(page_size)), code, el, mmu) as made:
            found = journey(made, places)
            assert made.state.leaves_out_checks == (mode == "fast")
        for place, one, other in zip(places, wanted, found, strict=True):
            assert one[:2] == other[:2], (mode, page_size, place)
            assert one[2] == other[2], (mode, page_size, place)


VARIANTS = (
    {"engine_mode": "fast"},
    {"engine_mode": "exact"},
    {"engine_mode": "safe"},
    {"engine_mode": "fast", "engine_page_size": 1024},
    {"engine_counting": "instruction"},
)


@pytest.mark.parametrize("guest", ["hello", "steal", "timer", "faults", "memory", "lse", "spinlock"])
def test_one_recording(tmp_path: Path, guest: str) -> None:
    """Every mode, page size and way of counting records the same tables, and replays the others' traces."""
    tables = []
    for number, changes in enumerate(VARIANTS):
        recorded(tmp_path / f"{number}.tkt", guest, host=busy_host("fair", pcpus=2), **changes)
        tables.append(Trace.open(tmp_path / f"{number}.tkt").manifest["tables"])
    assert all(one == tables[0] for one in tables)

    for number in range(3):
        for mode in ("fast", "exact", "safe"):
            assert replayed(tmp_path / f"{number}.tkt", mode=mode).is_identical, (number, mode)


@pytest.mark.parametrize("cpu", ["a53", "a72", "max"])
@pytest.mark.parametrize("page_size", [1024, 4096])
def test_fast_is_proven(cpu: str, page_size: int) -> None:
    """With this Unicorn nothing speaks against it, and the check is really gone."""
    assert probe.objection.__wrapped__(cpu, page_size) is None
    assert probe.settled(EngineConfig(cpu=cpu, page_size=page_size)).mode == "fast"


def test_instructions_are_counted_exactly() -> None:
    """The slow reference stops behind each instruction, which takes the check."""
    config = probe.settled(EngineConfig(counting="instruction"))

    assert (config.mode, config.fallback) == ("exact", "instructions are counted one by one")


@pytest.fixture
def unproven() -> Iterator[None]:
    """The probe's answers are forgotten before and behind the test."""
    probe.objection.cache_clear()
    yield
    probe.objection.cache_clear()


def test_a_unicorn_that_keeps_its_check(unproven: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then the engine is `exact`, and the manifest says so; the trace is the same."""
    recorded(tmp_path / "fast.tkt", "faults")
    probe.objection.cache_clear()
    monkeypatch.setattr(probe, "EngineConfig", lambda **kinds: EngineConfig(mode="exact", **kinds))
    recorded(tmp_path / "kept.tkt", "faults")
    fast, kept = (Trace.open(tmp_path / name).manifest for name in ("fast.tkt", "kept.tkt"))

    assert "fallback" not in fast["engine"]
    assert fast["engine"]["mode"] == "fast"
    assert (kept["engine"]["mode"], kept["engine"]["fallback"]) == ("exact", "Unicorn keeps its check")
    assert kept["tables"] == fast["tables"]
    assert replayed(tmp_path / "kept.tkt").is_identical


def test_a_unicorn_that_cannot_leave_a_block(unproven: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way out of a store the probe finds the hole; `exact` still stops behind the store."""
    ids = engine_module._ids

    def crippled() -> native.Ids:
        made = ids()
        made.ctl_request_cache = made.ctl_flush_tlb
        return made

    monkeypatch.setattr(engine_module, "_ids", crippled)
    config = probe.settled(EngineConfig())
    chosen = scenario("faults")
    session = Recording(chosen, load_guest(chosen), None)
    text = bytearray()
    session.board._sink.console_byte = lambda row, index, byte: text.append(byte)  # type: ignore[method-assign]
    end = session.run()

    assert (config.mode, config.fallback) == ("exact", "a store to a hole: not at instruction 6")
    assert describe_engine(session.board.engine.config)["fallback"] == config.fallback
    assert end.reason.value == "power_off"
    assert text.endswith(b"PASS\n")
