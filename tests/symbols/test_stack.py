"""Call stacks along frame pointers: bounded, whatever memory holds."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.symbols.stack import DEPTH_MAX, call_stack

STACK = 0xFFFF_8000_0900_0000


def reader(records: dict[int, tuple[int, int]]) -> Callable[[int, int], bytes | None]:
    """Memory that holds some frame records."""
    return lambda at, size: struct.pack("<QQ", *records[at]) if at in records else None


@pytest.mark.parametrize(
    "records, back",
    [
        ({}, []),
        ({STACK: (0, 0x10)}, [0x10]),
        ({STACK: (STACK + 32, 0x10), STACK + 32: (0, 0x20)}, [0x10, 0x20]),
        ({STACK: (0x9000, 0x10), 0x9000: (0, 0x20)}, [0x10, 0x20]),  # another stack, at a lower address
        ({STACK: (STACK, 0x10)}, [0x10]),  # a circle
        ({STACK: (STACK + 16, 0x10), STACK + 16: (STACK, 0x20)}, [0x10, 0x20]),
        ({STACK: (STACK + 4, 0x10), STACK + 4: (0, 0x20)}, [0x10]),  # not aligned
        ({STACK: (STACK + 16, 0)}, []),
        ({STACK: (0, 0xFF77_8000_0801_0000)}, [0x0000_8000_0801_0000]),  # bit 55 is clear: a signed user address
        ({STACK: (0, 0x00A7_8000_0801_0000)}, [0xFFFF_8000_0801_0000]),
    ],
)
def test_chains(records: dict[int, tuple[int, int]], back: list[int]) -> None:
    """The addresses to return to, the innermost first."""
    assert list(call_stack(1, STACK, reader(records))) == [1, *back]


def test_depth() -> None:
    """No more than was asked for, and never more than DEPTH_MAX."""
    endless = reader({STACK + 16 * n: (STACK + 16 * (n + 1), 8) for n in range(1000)})
    assert len(list(call_stack(1, STACK, endless, depth=5))) == 5
    assert len(list(call_stack(1, STACK, endless, depth=10_000))) == DEPTH_MAX


@given(st.binary(min_size=0, max_size=512), st.integers(0, 600))
def test_any_memory(memory: bytes, x29: int) -> None:
    """Whatever is read, it ends, with addresses of 64 bits."""
    found = list(call_stack(1, x29, lambda at, size: memory[at : at + size]))
    assert len(found) <= 64 and all(0 <= one < 1 << 64 for one in found)
