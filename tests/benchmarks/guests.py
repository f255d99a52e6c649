"""The guests of the benchmarks: flat programs of a few words, and Debian's kernel with the sample's initramfs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SAMPLE = REPOSITORY / "samples" / "linux"
RAM_BASE = 0x4000_0000
BUFFER = RAM_BASE + (1 << 20)
RAM_MIB = 512  # of Linux
CONSOLE = "earlycon=pl011,0x09000000 console=ttyAMA0"
POWER_OFF = (
    0x52800100,  # mov w0, #8
    0x72B08000,  # movk w0, #0x8400, lsl #16    PSCI SYSTEM_OFF
    0xD4000002,  # hvc #0
    0x14000000,  # b .
)


def sample(name: str) -> Any:
    """A script of the Linux sample as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def initrd() -> bytes:
    """The sample's initramfs around its prebuilt init."""
    archive: bytes = sample("initramfs").initramfs((SAMPLE / "init").read_bytes())
    return archive


def _words(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def _set(register: int, value: int) -> tuple[int, int]:
    """mov and movk of 32 bits."""
    return 0xD2800000 | (value & 0xFFFF) << 5 | register, 0xF2A00000 | (value >> 16 & 0xFFFF) << 5 | register


def stores(passes: int, buffer_bytes: int, first: int = BUFFER) -> bytes:
    """Stores 8 bytes, a different value each time, over the whole buffer, `passes` times; powers off. 4 instructions for each store."""
    return _words(
        *_set(3, passes),
        0xD2800022,  # mov x2, #1
        *_set(1, first + buffer_bytes),
        *_set(0, first),  # 1:
        0xF8008402,  # 2: str x2, [x0], #8
        0x91001442,  # add x2, x2, #5
        0xEB01001F,  # cmp x0, x1
        0x54FFFFA3,  # b.lo 2b
        0xF1000463,  # subs x3, x3, #1
        0x54FFFF21,  # b.ne 1b
        *POWER_OFF,
    )


def store_count(passes: int, buffer_bytes: int) -> int:
    """How many stores that guest makes."""
    return passes * buffer_bytes // 8


def scattered(count: int) -> bytes:
    """Stores 8 bytes `count` times, at addresses in 4 MiB that a linear congruence draws; powers off."""
    return _words(
        *_set(3, count),
        *_set(0, BUFFER),
        *_set(5, 0x41C64E6D),
        0xD2800022,  # mov x2, #1
        0x9B057C42,  # 1: mul x2, x2, x5
        0x910E4442,  # add x2, x2, #0x391
        0xD350DC44,  # ubfx x4, x2, #16, #40
        0x927D4884,  # and x4, x4, #0x3ffff8
        0xF8246802,  # str x2, [x0, x4]
        0xF1000463,  # subs x3, x3, #1
        0x54FFFF41,  # b.ne 1b
        *POWER_OFF,
    )


def compute(rounds: int, with_stores: bool) -> tuple[bytes, int]:
    """Arithmetic over a table of 64 KiB, 12 instructions for each 8 bytes, one of them a load and, if wanted, one a store.

    The program, and where it is done, which is where a run without PSCI stops.
    """
    store = 0xF81F8004 if with_stores else 0x8B040084  # str x4, [x0, #-8] or add x4, x4, x4
    head = (
        *_set(3, rounds),
        *_set(5, 0x9E3779B9),
        *_set(1, BUFFER + (64 << 10)),
        *_set(0, BUFFER),  # 1:
        0xF8408404,  # 2: ldr x4, [x0], #8
        0xCA060084,  # eor x4, x4, x6
        0x9B057C84,  # mul x4, x4, x5
        0x93C444C7,  # ror x7, x6, #17
        0x8B0700C6,  # add x6, x6, x7
        0xCA0400C6,  # eor x6, x6, x4
        0x91000529,  # add x9, x9, #1
        0x8B090128,  # add x8, x9, x9
        0xCB0800C6,  # sub x6, x6, x8
        store,
        0xEB01001F,  # cmp x0, x1
        0x54FFFEA3,  # b.lo 2b
        0xF1000463,  # subs x3, x3, #1
        0x54FFFE21,  # b.ne 1b
    )
    return _words(*head, *POWER_OFF), RAM_BASE + 4 * len(head)


def compute_instructions(rounds: int) -> int:
    """How many instructions that guest executes before it powers off."""
    return 6 + rounds * (2 + 12 * (64 << 10) // 8 + 2)
