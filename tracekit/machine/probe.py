"""Whether the engine stays exact with Unicorn's own checks left out (native/noexit.c): tried out before a run depends on it.

A small engine runs blocks that are cut off in the middle, in every way that a guest can do it: by a limit, by exceptions, by accesses
to physical holes. What stands before the cut must have happened, what stands behind it must not, and the position must be right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache

from tracekit.machine.engine import Engine, EngineConfig, EngineError, StopReason

_RAM = 0x4000_0000
_VECTORS = _RAM + 0x1000  # VBAR_EL1; a synchronous exception from EL1 goes to + 0x200
_BEFORE, _BEHIND, _HOLE = _RAM + 0x2000, _RAM + 0x2008, 0x40
_MARK = 0x5A5A_0123_4567_89AB
_HANDLER = (0xD538520A, 0xD538402B, 0xD538600C, 0x14000000)  # MRS X10, ESR_EL1; MRS X11, ELR_EL1; MRS X12, FAR_EL1; B .
_COUNT, _STORE_BEFORE, _STORE_BEHIND, _LOOP = (
    0x91000442,
    0xF9000061,
    0xF9000081,
    0x14000000,
)  # ADD X2, X2, #1; STR X1, [X3]; [X4]; B .


@dataclass(frozen=True, slots=True)
class _Cut:
    """An instruction that cuts its block off: what ESR_EL1 says; retires: the return address is behind it."""

    name: str
    word: int
    esr: int
    far: int | None = None
    retires: bool = False


_CUTS = (
    _Cut("a store to a hole", 0xF9000001, 0x9600_0050, _HOLE),  # STR X1, [X0]
    _Cut("a pair stored to a hole", 0xA9000801, 0x9600_0050, _HOLE),  # STP X1, X2, [X0]
    _Cut("a cleared line in a hole", 0xD50B7420, 0x9600_0050, _HOLE),  # DC ZVA, X0
    _Cut("a load from a hole", 0xF9400005, 0x9600_0010, _HOLE),  # LDR X5, [X0]
    _Cut("SVC", 0xD40000A1, 0x5600_0005, retires=True),
    _Cut("BRK", 0xD4200020, 0xF200_0001),
    _Cut("an undefined instruction", 0x00000000, 0x0200_0000),
)


class _Nobody:
    """No device is there to answer."""

    def mmio_read(self, ipa: int, size: int) -> int:
        return 0

    def mmio_write(self, ipa: int, size: int, value: int) -> None:
        pass

    def timer_changed(self, which: int) -> None:
        pass

    def watched(self, is_write: bool, ipa: int, size: int, value: int) -> None:
        pass

    def capture_full(self, table: int) -> None:
        pass


def _run(engine: Engine, cut: _Cut) -> str | None:
    engine.ram[_BEFORE - _RAM : _BEHIND - _RAM + 8] = bytes(16)
    code = (_COUNT, _STORE_BEFORE, _COUNT, cut.word, _STORE_BEHIND, _COUNT, _LOOP)
    engine.ram[: 4 * len(code)] = struct.pack(f"<{len(code)}I", *code)
    engine.flush_code()
    engine.reset_vcpu(0, _RAM, _HOLE)
    for register, value in ((1, _MARK), (2, 0), (3, _BEFORE), (4, _BEHIND), (5, 0), (12, 0)):
        engine.set_x(register, value)
    engine.set_vectors(_VECTORS)
    start = engine.position
    for instructions, pc in ((1, _RAM + 4), (3, _RAM + 12), (6 + cut.retires, _VECTORS + 0x20C)):
        reason = engine.run(start + instructions, 1 << 60)
        if reason is not StopReason.LIMIT or engine.position != start + instructions or engine.pc() != pc:
            return f"{cut.name}: not at instruction {instructions}"
    before, behind = struct.unpack_from("<QQ", engine.ram, _BEFORE - _RAM)
    if before != _MARK or behind or engine.x(2) != 2 or engine.x(5):
        return f"{cut.name}: the block is not left there"
    if engine.x(10) != cut.esr or engine.x(11) != _RAM + 12 + 4 * cut.retires or engine.x(12) != (cut.far or 0):
        return f"{cut.name}: the exception is another"
    return None


_READS_ITSELF = (  # adds its own words up, hints and all: ADR X1, .; MOV X2, #9; LDR W3, [X1], #4; ADD X4, X4, X3
    0x10000001, 0xD2800122, 0xB8404423, 0x8B030084, 0xD503203F, 0xD1000442, 0xB5FFFF82, 0xD503205F, 0x17FFFFF8,
)  # fmt: skip
_PASS = 2 + 5 * len(_READS_ITSELF) + 2  # YIELD; SUB X2, X2, #1; CBNZ X2, LDR; WFE; B ADR


@cache
def hint_objection(cpu: str, page_size: int) -> str | None:
    """Why WFE and YIELD must be left to the engine (native/hints.c), in words; None where they may be made cheap. Tried once in a process."""
    image = struct.pack(f"<{len(_READS_ITSELF)}I", *_READS_ITSELF)
    try:
        engine = Engine(EngineConfig(cpu=cpu, page_size=page_size, mode="exact"), 1, _RAM, 0x4000, _Nobody())
    except EngineError as error:
        return str(error)
    try:
        engine.ram[: len(image)] = image
        engine.flush_code()
        engine.reset_vcpu(0, _RAM, 0)
        engine.set_x(4, 0)
        for instructions, pc in ((4, _RAM + 16), (5, _RAM + 20), (_PASS, _RAM), (2 * _PASS - 1, _RAM + 32), (2 * _PASS, _RAM)):
            reason = engine.run(instructions, 1 << 60)
            if reason is not StopReason.LIMIT or engine.position != instructions or engine.pc() != pc:
                return f"WFE and YIELD: not at instruction {instructions}"
        if engine.x(4) != 2 * sum(_READS_ITSELF) or engine.ram[: len(image)] != image:
            return "WFE and YIELD: memory shows what stands in for them"
        return None if engine.state.hints else "WFE and YIELD: nothing stands in for them"
    finally:
        engine.close()


@cache
def objection(cpu: str, page_size: int) -> str | None:
    """Why the check must stay in the engine, in words; None where it may go. Tried once in a process."""
    try:
        engine = Engine(EngineConfig(cpu=cpu, page_size=page_size), 1, _RAM, 0x4000, _Nobody())
    except EngineError as error:
        return str(error)
    try:
        if not engine.state.leaves_out_checks:
            return "Unicorn keeps its check"
        engine.ram[0x1200 : 0x1200 + 16] = struct.pack("<4I", *_HANDLER)
        return next((said for cut in _CUTS if (said := _run(engine, cut)) is not None), None)
    finally:
        engine.close()


def settled(config: EngineConfig) -> EngineConfig:
    """The configuration that the engine can really be built with: "exact" in place of "fast", and hints left alone, where the other is not
    proven."""
    if config.eases_hints and hint_objection(config.cpu, config.page_size) is not None:
        config = replace(config, leaves_hints=True)
    if config.mode != "fast":
        return config
    if config.counting == "instruction":
        return replace(config, mode="exact", fallback="instructions are counted one by one")
    said = objection(config.cpu, config.page_size)
    return config if said is None else replace(config, mode="exact", fallback=said)
