"""System registers that no digest covers and a checkpoint keeps: with those of registers.py they are all of a vCPU.

That they are is tested at run time, see Board.portable_gap(). Constants and registers of EL2 and EL3 are not among them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tracekit.machine.registers import SYSTEM, Registers

FurtherValues = tuple[tuple[str, int], ...]  # (name, value), in the order of FURTHER

_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Further:
    """One register: its name, encoding (op0, op1, crn, crm, op2), greatest value, and whether only the `max` model has it."""

    name: str
    encoding: tuple[int, int, int, int, int]
    value_max: int = _U64
    is_of_max: bool = False


FURTHER: tuple[Further, ...] = (
    Further("oslsr_el1", (2, 0, 1, 1, 4), 0xF),
    *(Further(f"dbgbvr{n}_el1", (2, 0, 0, n, 4)) for n in range(6)),
    *(Further(f"dbgbcr{n}_el1", (2, 0, 0, n, 5), _U32) for n in range(6)),
    *(Further(f"dbgwvr{n}_el1", (2, 0, 0, n, 6)) for n in range(4)),
    *(Further(f"dbgwcr{n}_el1", (2, 0, 0, n, 7), _U32) for n in range(4)),
    Further("pmintenset_el1", (3, 0, 9, 14, 1)),
    Further("pmcr_el0", (3, 3, 9, 12, 0), _U32),
    Further("pmcntenset_el0", (3, 3, 9, 12, 1), 0),  # no counter ever counts: native/sysregs.c
    Further("pmovsset_el0", (3, 3, 9, 14, 3)),
    Further("pmselr_el0", (3, 3, 9, 12, 5), 0x1F),
    Further("pmuserenr_el0", (3, 3, 9, 14, 0), 0xF),
    Further("pmccfiltr_el0", (3, 3, 14, 15, 7)),
    *(Further(f"pmevcntr{n}_el0", (3, 3, 14, 8, n)) for n in range(4)),
    *(Further(f"pmevtyper{n}_el0", (3, 3, 14, 12, n)) for n in range(4)),
    Further("zcr_el1", (3, 0, 1, 2, 0), 0xF, is_of_max=True),
    *(
        Further(f"ap{key}key{half}_el1", (3, 0, 2, crm, op2 + at), is_of_max=True)
        for key, crm, op2 in (("ia", 1, 0), ("ib", 1, 2), ("da", 2, 0), ("db", 2, 2), ("ga", 3, 0))
        for at, half in enumerate(("lo", "hi"))
    ),
)
BREAKPOINTS = tuple(one.name for one in FURTHER if one.name.startswith(("dbgbcr", "dbgwcr")))  # bit 0 enables


class Portable(NamedTuple):
    """A vCPU in portable form. sve: as vectors.py has it, b"" where SVE registers hold nothing beyond the Q registers."""

    registers: Registers
    further: FurtherValues
    sve: bytes


@cache
def further_of(cpu: str) -> tuple[str, ...]:
    """Names of those that a CPU model has, in the order of the list."""
    return tuple(one.name for one in FURTHER if cpu == "max" or not one.is_of_max)


@cache
def system_ids(names: tuple[str, ...]) -> ctypes.Array[ctypes.c_uint32]:
    """Encodings of SYSTEM and then of these further registers, for the native library."""
    by_name = {one.name: one.encoding for one in FURTHER}
    encodings = [*(encoding for _, encoding in SYSTEM), *(by_name[name] for name in names)]
    return (ctypes.c_uint32 * (5 * len(encodings)))(*(part for encoding in encodings for part in encoding))
