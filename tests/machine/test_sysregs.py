"""System registers that the machine answers for: nothing of the host is in them, and only what may be used is answered."""

from __future__ import annotations

import pytest
from a64 import Word, adr, assemble, branch, movk, movz
from small_engine import CODE, RAM, engine

from tracekit.machine.engine import EngineConfig, StopReason
from tracekit.machine.registers import Registers

PMCR, ENABLE, CYCLES, OVERFLOWN, USER = (3, 3, 9, 12, 0), (3, 3, 9, 12, 1), (3, 3, 9, 13, 0), (3, 3, 9, 14, 3), (3, 3, 9, 14, 0)
RNDR, CONTROL, CNTPCT, CNTVCT = (3, 3, 2, 4, 0), (3, 0, 14, 1, 0), (3, 3, 14, 0, 1), (3, 3, 14, 0, 2)
SPSR, ELR = (3, 0, 4, 0, 0), (3, 0, 4, 0, 1)
HANDLER = assemble(0xD5385214, "a", branch("a"))  # MRS X20, ESR_EL1
UNDEFINED, TRAPPED = 0, 0x18
Encoding = tuple[int, int, int, int, int]


def mrs(t: int, of: Encoding) -> int:
    op0, op1, crn, crm, op2 = of
    return 0xD5200000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | t


def msr(of: Encoding, t: int) -> int:
    return mrs(t, of) & ~0x200000


def at_el0(*words: Word) -> list[Word]:
    """These at EL0, from EL1."""
    return [adr(9, "el0"), msr(ELR, 9), movz(9, 0x3C0), msr(SPSR, 9), 0xD69F03E0, "el0", *words]


def run(cpu: str, words: list[Word], instructions: int = 300) -> tuple[list[int], int]:
    """X0 to X3, and the exception class that the guest saw (all ones: none)."""
    images = {CODE: assemble(*words, "end", branch("end")), RAM + 0x200: HANDLER, RAM + 0x400: HANDLER}
    with engine(EngineConfig(cpu=cpu), images) as made:
        start = made.registers(0).as_dict() | {"vbar_el1": RAM, "x20": (1 << 32) - 1}
        made.set_registers(0, Registers(tuple(start.values())))
        assert made.run(instructions, 1 << 60) is StopReason.LIMIT
        return [made.x(n) for n in range(4)], made.x(20) >> 26


@pytest.mark.parametrize("cpu", ["a53", "a72", "max"])
@pytest.mark.parametrize("is_user", [False, True])
def test_the_cycle_counter_does_not_count(cpu: str, is_user: bool) -> None:
    """It would count the host's clock, at EL0 too where EL1 lets it, and say when it overflows."""
    enable = [
        movz(9, 5), msr(USER, 9), movz(9, 0), 0xD1001929, msr(CYCLES, 9),  # SUB X9, X9, #6: it would overflow soon
        movz(9, 0x8000, 16), msr(ENABLE, 9), mrs(9, PMCR), 0xB2400129, msr(PMCR, 9),  # ORR X9, X9, #1
    ]  # fmt: skip
    read: list[Word] = ["l", mrs(4, CYCLES), 0xAA040000, mrs(4, OVERFLOWN), 0xAA040021, mrs(2, ENABLE), branch("l")]  # ORR X0, X1

    assert run(cpu, [*enable, *(at_el0(*read) if is_user else read)]) == ([0, 0, 0, 0], (1 << 6) - 1)


def test_the_cycle_counter_is_not_for_everybody() -> None:
    """Without PMUSERENR_EL0 an access at EL0 is an exception, a read and a write."""
    for word in (mrs(0, CYCLES), msr(CYCLES, 0), msr(ENABLE, 0)):
        assert run("a53", at_el0(word))[1] in (UNDEFINED, TRAPPED)


@pytest.mark.parametrize("cpu", ["a53", "a72", "max"])
@pytest.mark.parametrize("is_user", [False, True])
def test_random_numbers(cpu: str, is_user: bool) -> None:
    """Only `max` has RNDR; elsewhere it is undefined."""
    read: list[Word] = [movz(0, 0), mrs(0, RNDR)]
    values, exception = run(cpu, at_el0(*read) if is_user else read)

    assert (exception == UNDEFINED) == (cpu != "max")
    assert bool(values[0]) == (cpu == "max")


@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_counters_at_el0(allowed: int) -> None:
    """CNTKCTL_EL1 lets EL0 read the physical (bit 0) and the virtual counter (bit 1) one by one."""
    for bit, counter in enumerate((CNTPCT, CNTVCT)):
        _, exception = run("a53", [movk(9, allowed), msr(CONTROL, 9), *at_el0(mrs(0, counter))])
        assert exception == ((1 << 6) - 1 if allowed >> bit & 1 else TRAPPED)
