"""A guest's virtual addresses through its own page tables: stage 1 of EL1&0, AArch64. Spec: Arm ARM (DDI 0487) D8."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tracekit.formats.errors import TracekitError

_PAGE_BITS = {"ttbr0": {0: 12, 1: 16, 2: 14}, "ttbr1": {2: 12, 1: 14, 3: 16}}  # of TCR_EL1.TG0 and TG1
_ADDRESS_MASK = (1 << 48) - 1


class NotMapped(TracekitError):
    """Nothing answers at an address: it is in no page table, or where it leads to is no memory. The text says which."""


def translate(va: int, registers: Mapping[str, int], load: Callable[[int], int]) -> tuple[int, int]:
    """(physical address, bytes from there to the end of its page or block) of a virtual address, as EL1 would read it.

    registers: by name, those of one vCPU. load: the u64 at a physical address; what it raises goes through.
    Permissions and the access flag are not looked at. Errors: NotMapped.
    """
    va &= (1 << 64) - 1
    if not registers["sctlr_el1"] & 1:
        return va, 0x1000 - (va & 0xFFF)
    tcr = registers["tcr_el1"]
    is_high = bool(va >> 55 & 1)
    half, shift = ("ttbr1", 16) if is_high else ("ttbr0", 0)
    bits = 64 - (tcr >> shift & 0x3F)
    page_bits = _PAGE_BITS[half].get(tcr >> (shift + 14) & 3)
    top = va | 0xFF << 56 if is_high else va & ~(0xFF << 56)  # where top bytes are ignored
    canonical = top if tcr >> (38 if is_high else 37) & 1 else va
    fits = canonical >> bits == ((1 << (64 - bits)) - 1 if is_high else 0) if 0 < bits < 64 else False
    if page_bits is None or not fits or tcr >> (shift + 7) & 1:
        raise NotMapped(f"{va:#x}: outside of what {half.upper()}_EL1 translates ({bits} bits)")
    stride = page_bits - 3
    levels = -(-(bits - page_bits) // stride)
    table = registers[half + "_el1"] & _ADDRESS_MASK & ~1
    for level in range(4 - levels, 4):
        low = page_bits + stride * (3 - level)
        width = min(stride, bits - low)
        entry = load(table + 8 * (va >> low & (1 << width) - 1))
        if not entry & 1 or (level == 3 and not entry & 2) or (level == 0 and not entry & 2):
            raise NotMapped(f"{va:#x}: not mapped (level {level}, descriptor {entry:#x})")
        output = entry & _ADDRESS_MASK & ~((1 << page_bits) - 1)
        if level == 3 or not entry & 2:
            offset = va & (1 << low) - 1
            return output & ~((1 << low) - 1) | offset, (1 << low) - offset
        table = output
    raise NotMapped(f"{va:#x}: {half.upper()}_EL1 translates no address")
