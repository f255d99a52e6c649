"""Where a kernel ran: proven by the instructions at recorded hypercalls, or not claimed."""

from __future__ import annotations

import random
import struct

from tracekit.symbols.placement import NOP, OPCODES, place

LINKED = 0xFFFF_8000_0800_0000
HVC = OPCODES["hvc"]
SITES = (0x1_0040, 0x1_2344, 0x3_0008)


def image() -> bytes:
    """Noise with three HVCs and a NOP."""
    out = bytearray(random.Random(5).randbytes(0x4_0000).replace(struct.pack("<I", HVC), bytes(4)))
    for site in SITES:
        struct.pack_into("<I", out, site, HVC)
    struct.pack_into("<I", out, 0x2_0000, NOP)
    return bytes(out)


def calls(base: int, *sites: int) -> list[tuple[int, int]]:
    """Recorded hypercalls."""
    return [(base + site, HVC) for site in sites]


def test_a_kernel_that_cannot_move() -> None:
    """It lies where it is linked, if the calls agree; a patched NOP agrees, code of modules is not asked."""
    for seen in (calls(LINKED, *SITES), calls(LINKED, 0x2_0000), calls(LINKED, SITES[0], 0x900_0000), []):
        assert place(image(), LINKED, seen, movable=False).base == LINKED
    found = place(image(), LINKED, calls(LINKED, SITES[0], SITES[1] + 4), movable=False)
    assert found.base is None and "another kernel" in found.how
    assert place(image(), LINKED, calls(LINKED + 0x800_0000, SITES[0]), movable=False).base is None


def test_a_kernel_that_may_move() -> None:
    """Only a place that is the only one."""
    moved = LINKED + 0x1234_0000
    assert place(image(), LINKED, calls(moved, *SITES), movable=True).base == moved
    assert place(image(), LINKED, calls(LINKED, *SITES), movable=True).base == LINKED
    assert "as linked" in place(image(), LINKED, calls(LINKED, *SITES), movable=True).how
    assert place(image(), LINKED, calls(moved, SITES[1]), movable=True).base == moved  # no other HVC has that place in a granule
    assert place(image(), LINKED, [], movable=True).base is None
    twice = bytearray(image())
    struct.pack_into("<I", twice, SITES[0] + 0x1_0000, HVC)
    found = place(bytes(twice), LINKED, calls(moved, SITES[0]), movable=True)
    assert found.base is None and "several" in found.how
    assert place(image(), LINKED, calls(moved, *SITES, 0x1_0004), movable=True).base is None  # a call where the Image has none
