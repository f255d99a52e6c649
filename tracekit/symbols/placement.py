"""Where a Linux kernel ran: as it was linked, or moved by KASLR; found from what the trace recorded, and proven or refused.

A hypercall's recorded pc is the address of its HVC or SMC instruction, so the Image has that very instruction there. Source: Linux
arch/arm64/kernel/kaslr.c: without a `kaslr-seed` in the device tree, on a CPU without RNDR, or with `nokaslr`, a kernel stays where it is linked.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tracekit.formats.errors import TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.symbols.kallsyms import KERNEL_HALF

GRANULE = 1 << 16  # where a kernel begins is a multiple of it
CALLS_MAX = 1 << 16  # hypercalls that are looked at
PLACES_MAX = 256  # different ones
SITES_MAX = 1 << 14
NOP = 0xD503_201F
OPCODES = {"hvc": 0xD400_0002, "smc": 0xD400_0003}
Call = tuple[int, int]  # (pc, instruction)


@dataclass(frozen=True, slots=True)
class Placement:
    """base: the address of the Image's first byte in the run, None where it cannot be told. how: a sentence about it."""

    base: int | None
    how: str


def recorded_calls(trace: Trace) -> list[Call]:
    """Different hypercalls from kernel addresses, in the order of the trace. Errors: TraceDamaged."""
    table = TABLES["hypercalls"]
    pc, conduit, immediate = (table.index(name) for name in ("pc", "conduit", "immediate"))
    found: dict[Call, None] = {}
    for number, row in enumerate(trace.rows("hypercalls")):
        if number >= CALLS_MAX or len(found) >= PLACES_MAX:
            break
        if row[pc] >= KERNEL_HALF and row[conduit] in OPCODES:
            found[row[pc], OPCODES[row[conduit]] | row[immediate] << 5] = None
    return list(found)


def is_movable(trace: Trace) -> bool:
    """Whether the kernel could have moved itself: it was given a seed, or a CPU that draws one. Errors: TraceDamaged."""
    trees = [image for image in trace.manifest["images"] if image["role"] == "devicetree"]
    if not trees:
        return True
    tree = trace.image(trees[0]["sha256"])
    has_seed = b"kaslr-seed\0" in tree
    draws = trace.manifest.get("machine", {}).get("cpu") not in ("a53", "a72")
    return (has_seed or draws) and b"nokaslr" not in tree


def place(image: bytes, linked: int, calls: Iterable[Call], *, movable: bool) -> Placement:
    """Where the Image lay. linked: the address that its first byte is linked at."""
    calls = list(calls)
    here = [one for one in calls if linked <= one[0] < linked + len(image)]
    if not movable:
        wrong = [pc for pc, word in here if not _agrees(image, pc - linked, word)]
        if wrong or (calls and not here):
            where = f"{(wrong or [calls[0][0]])[0]:#x}"
            return Placement(None, f"the hypercall at {where} is not in the kernel's Image: another kernel ran, or a moved one")
        proof = f"{len(here)} recorded hypercall(s) agree" if here else "no hypercall was recorded to prove it"
        return Placement(linked, f"kernel at {linked:#x}, as linked: the guest was given nothing to move it by; {proof}")
    if not calls:
        return Placement(None, "the kernel may have moved itself (KASLR), and no recorded hypercall tells where to")
    votes: Counter[int] = Counter()
    for pc, word in calls:
        votes.update({pc - site for site in _sites(image, word) if (pc - site - linked) % GRANULE == 0})
    best = votes.most_common(2)
    if best and (len(best) == 1 or best[0][1] > best[1][1]):
        base, count = best[0]
        inside = [one for one in calls if base <= one[0] < base + len(image)]
        if base >= KERNEL_HALF and all(_agrees(image, pc - base, word) for pc, word in inside):
            moved = "as linked" if base == linked else f"moved by {base - linked:#x} (KASLR)"
            return Placement(base, f"kernel at {base:#x}, {moved}: found from {count} recorded hypercall(s), no other place fits")
    return Placement(
        None, f"the kernel may have moved itself (KASLR), and {len(calls)} recorded hypercall(s) fit no or several places"
    )


def _agrees(image: bytes, at: int, word: int) -> bool:
    """Whether that instruction is there, or a NOP that the kernel patches (firmware mitigations)."""
    return image[at : at + 4] in (struct.pack("<I", word), struct.pack("<I", NOP))


def _sites(image: bytes, word: int) -> list[int]:
    needle, at = struct.pack("<I", word), -1
    sites: list[int] = []
    while len(sites) < SITES_MAX and (at := image.find(needle, at + 1)) >= 0:
        if at % 4 == 0:
            sites.append(at)
    return sites


def kernel_of(trace: Trace) -> bytes | None:
    """The Linux Image that the run booted; None where the guest is none. Errors: TraceDamaged."""
    kernels = [image for image in trace.manifest["images"] if image["role"] == "kernel"]
    if len(kernels) != 1:
        return None
    data = trace.image(kernels[0]["sha256"])
    if data[56:60] != b"ARMd":
        return None
    if len(data) < 64:
        raise TraceDamaged(f"{trace.path}: a kernel Image of {len(data)} bytes")
    return data
