"""Who called: return addresses along the chain of frame pointers.

Source: Arm IHI 0055 (AAPCS64), 6.2.3: X29 points to a frame record of two u64: the caller's X29, and the address to return to. 0 ends the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

DEPTH_MAX = 256
_RECORD = 16
_TOP = 1 << 55


def call_stack(
    pc: int, x29: int, read: Callable[[int, int], bytes | None], *, depth: int = 64, va_bits: int = 48
) -> Iterator[int]:
    """pc, then each return address, the innermost first; at most depth and at most DEPTH_MAX of them.

    read(address, size): guest memory at virtual addresses, None (or fewer bytes) where nothing is mapped: there the chain ends, as it does at an
    X29 of 0, at one that is not aligned and at a record that was visited already. A stack may lie anywhere (an interrupt has one of its own), so
    records need not ascend. Signed return addresses (FEAT_PAuth) lose their signature: bits from va_bits on become bit 55's.
    """
    yield pc
    visited: set[int] = set()
    for _ in range(min(depth, DEPTH_MAX) - 1):
        if not x29 or x29 % 8 or x29 in visited:
            return
        visited.add(x29)
        record = read(x29, _RECORD)
        if record is None or len(record) != _RECORD:
            return
        x29, back = int.from_bytes(record[:8], "little"), int.from_bytes(record[8:], "little")
        if not back:
            return
        yield _unsigned(back, va_bits)


def _unsigned(address: int, va_bits: int) -> int:
    low = address & ((1 << va_bits) - 1)
    return low | (((1 << 64) - 1) >> va_bits << va_bits) if address & _TOP else low
