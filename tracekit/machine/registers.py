"""The portable register list: what a vCPU is, without any engine's private form. Spec: formats/SPEC.md "Portable state digests"."""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from unicorn import arm64_const as arm

# Plain registers by name, in the order of the list. SP_EL0 and SP_EL1 are canonical: whatever SP is selected now is folded in.
PLAIN: tuple[tuple[str, int], ...] = (
    *((f"x{n}", arm.UC_ARM64_REG_X0 + n) for n in range(29)),
    ("x29", arm.UC_ARM64_REG_X29),
    ("x30", arm.UC_ARM64_REG_X30),
    ("sp", arm.UC_ARM64_REG_SP),
    ("pc", arm.UC_ARM64_REG_PC),
    ("pstate", arm.UC_ARM64_REG_PSTATE),
    ("sp_el0", arm.UC_ARM64_REG_SP_EL0),
    ("sp_el1", arm.UC_ARM64_REG_SP_EL1),
    ("elr_el1", arm.UC_ARM64_REG_ELR_EL1),
    ("esr_el1", arm.UC_ARM64_REG_ESR_EL1),
    ("far_el1", arm.UC_ARM64_REG_FAR_EL1),
    ("vbar_el1", arm.UC_ARM64_REG_VBAR_EL1),
    ("ttbr0_el1", arm.UC_ARM64_REG_TTBR0_EL1),
    ("ttbr1_el1", arm.UC_ARM64_REG_TTBR1_EL1),
    ("mair_el1", arm.UC_ARM64_REG_MAIR_EL1),
    ("par_el1", arm.UC_ARM64_REG_PAR_EL1),
    ("cpacr_el1", arm.UC_ARM64_REG_CPACR_EL1),
    ("tpidr_el0", arm.UC_ARM64_REG_TPIDR_EL0),
    ("tpidrro_el0", arm.UC_ARM64_REG_TPIDRRO_EL0),
    ("tpidr_el1", arm.UC_ARM64_REG_TPIDR_EL1),
    ("fpcr", arm.UC_ARM64_REG_FPCR),
    ("fpsr", arm.UC_ARM64_REG_FPSR),
)
# System registers as (op0, op1, crn, crm, op2). SPSR_EL1 comes last: writing it refreshes the engine's cached flags.
SYSTEM: tuple[tuple[str, tuple[int, int, int, int, int]], ...] = (
    ("sctlr_el1", (3, 0, 1, 0, 0)),
    ("tcr_el1", (3, 0, 2, 0, 2)),
    ("contextidr_el1", (3, 0, 13, 0, 1)),
    ("cntkctl_el1", (3, 0, 14, 1, 0)),
    ("mdscr_el1", (2, 0, 0, 2, 2)),
    ("csselr_el1", (3, 2, 0, 0, 0)),
    ("spsr_el1", (3, 0, 4, 0, 0)),
)
NAMES: tuple[str, ...] = (
    *(name for name, _ in PLAIN),
    *(name for name, _ in SYSTEM),
    *(f"v{n}_{half}" for n in range(32) for half in ("lo", "hi")),
)
VALUES = len(NAMES)
_INDEX = {name: index for index, name in enumerate(NAMES)}
_32BIT = frozenset({"pstate", "fpcr", "fpsr"})

PLAIN_IDS = (ctypes.c_int32 * len(PLAIN))(*(number for _, number in PLAIN))
SYSTEM_IDS = (ctypes.c_uint32 * (5 * len(SYSTEM)))(*(part for _, encoding in SYSTEM for part in encoding))


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers of one vCPU, u64 each, in the order of NAMES."""

    values: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        return self.values[_INDEX[name]]

    def as_dict(self) -> dict[str, int]:
        """Name to value, in the order of the list."""
        return dict(zip(NAMES, self.values, strict=True))

    def pack(self) -> bytes:
        """Little-endian u64 each: what `states.registers` is the SHA-256 of."""
        return struct.pack(f"<{VALUES}Q", *self.values)

    def digest(self) -> bytes:
        """SHA-256 of pack()."""
        return hashlib.sha256(self.pack()).digest()


def canonical(raw: Sequence[int]) -> Registers:
    """Fold the selected stack pointer into its bank and cut what the engine leaves above 32-bit registers."""
    values = list(raw)
    for name in _32BIT:
        values[_INDEX[name]] &= 0xFFFF_FFFF
    selected_is_el1 = values[_INDEX["pstate"]] & 0x1F == 5
    values[_INDEX["sp_el1" if selected_is_el1 else "sp_el0"]] = values[_INDEX["sp"]]
    return Registers(tuple(values))
