"""Engines and boards that run a few instructions, without devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a64 import NOP, SEV, WFE, WFI, add, adr, assemble, branch, cbnz, cbz, ic_ivau, movk, movz, store, sub

from tracekit.host.config import HostConfig
from tracekit.machine.engine import Engine, EngineConfig, StopReason
from tracekit.recorder.scenario import Scenario

RAM, SIZE, CODE = 0x4000_0000, 1 << 20, 0x4000_4000
Stop = tuple[str, int, int, int]  # reason, vCPU, position, pc


class Nobody:
    """No devices, no timers."""

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


@contextmanager
def engine(config: EngineConfig, images: dict[int, bytes], entry: int = CODE, vcpus: int = 1) -> Iterator[Engine]:
    """An engine with code in its RAM."""
    made = Engine(config, vcpus, RAM, SIZE, Nobody())
    for at, image in images.items():
        made.ram[at - RAM : at - RAM + len(image)] = image
    made.flush_code()
    for vcpu in range(vcpus):
        made.reset_vcpu(vcpu, entry, 0)
    made.set_clock(0)
    yield made
    made.close()


def stops(made: Engine, limit: int) -> list[Stop]:
    """Run to a position; every stop on the way."""
    out: list[Stop] = []
    while True:
        reason = made.run(limit, 1 << 60)
        out.append((reason.name, made.vcpu, made.position, made.pc()))
        if reason not in (StopReason.WFE, StopReason.WFI):
            return out


@dataclass(frozen=True)
class Program:
    """Code, and the (position, pc offset) behind each WFE among its first instructions."""

    code: bytes
    wfes: list[tuple[int, int]]


REWRITTEN = Program(  # NOP, WFE, NOP again, at one address, with IC IVAU
    assemble(
        adr(1, "patched"), movz(2, WFE & 0xFFFF), movk(2, WFE >> 16, 16), movz(3, NOP & 0xFFFF), movk(3, NOP >> 16, 16), "a",
        store(2, 1), *ic_ivau(1), branch("c"), "patched", NOP, branch("d"), "c", branch("patched"), "d",
        store(3, 1), *ic_ivau(1), movz(4, 1), "e", cbnz(5, "a"), movz(5, 1), branch("patched"),
    ),
    [(14, 52)],
)  # fmt: skip


ROUNDS = 1_000
LOCKED = assemble(  # two vCPUs take a lock by turns, waiting with WFE; each adds to a counter; vCPU 0 powers off
    movz(0, 0xC400, 16), movk(0, 3), movz(1, 1), adr(2, "both"), movz(3, 0), 0xD4000002,
    "both", adr(10, "lock"), movz(11, ROUNDS),
    "try", 0xC85FFD4C, cbz(12, "free"), WFE, branch("try"),  # LDAXR X12, [X10]
    "free", movz(13, 1), 0xC80E7D4D, cbnz(14, "try"),  # STXR W14, X13, [X10]
    movz(15, 200), "held", sub(15, 15, 1), cbnz(15, "held"),
    0xF9400550, add(16, 16, 1), 0xF9000550,  # LDR, STR X16, [X10, #8]
    0xC89FFD5F, SEV,  # STLR XZR, [X10]
    sub(11, 11, 1), cbnz(11, "try"),
    0xD53800B1, 0x92401E31, cbnz(17, "rest"),  # MRS X17, MPIDR_EL1; AND X17, X17, #0xff
    "wait", 0xF9400550, movz(12, 2 * ROUNDS), 0xEB0C021F, ("imm19", 0x54000000, "off"), WFE, branch("wait"),  # CMP, B.EQ
    "off", movz(0, 0x8400, 16), movk(0, 8), 0xD4000002,
    "rest", WFI, branch("rest"), NOP, "lock", 0, 0, 0, 0,
)  # fmt: skip


def lock_scenario(folder: Path, host: HostConfig, **changes: Any) -> Scenario:
    image = folder / "locked.bin"
    image.write_bytes(LOCKED)
    return Scenario(
        image=str(image), guest_format="flat", vcpus=2, ram=16 << 20, max_vtime_ns=1_000_000_000, host=host, **changes
    )  # fmt: skip
