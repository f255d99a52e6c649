"""A small A64 assembler for guests of a few instructions."""

from __future__ import annotations

import struct

NOP, WFE, SEV, WFI = 0xD503201F, 0xD503205F, 0xD503209F, 0xD503207F
DSB, ISB = 0xD5033F9F, 0xD5033FDF
HVC = 0xD4000002
Word = int | str | tuple[str, int, str]  # an instruction, a label, or one that refers to a label: (kind, word, label)


def movz(d: int, value: int, shift: int = 0) -> int:
    return 0xD2800000 | shift // 16 << 21 | value << 5 | d


def movk(d: int, value: int, shift: int = 0) -> int:
    return movz(d, value, shift) | 0x20000000


def branch(label: str) -> Word:
    return ("imm26", 0x14000000, label)


def cbz(d: int, label: str) -> Word:
    return ("imm19", 0xB4000000 | d, label)


def cbnz(d: int, label: str) -> Word:
    return ("imm19", 0xB5000000 | d, label)


def adr(d: int, label: str) -> Word:
    return ("adr", 0x10000000 | d, label)


def add(d: int, n: int, value: int) -> int:
    return 0x91000000 | value << 10 | n << 5 | d


def sub(d: int, n: int, value: int) -> int:
    return 0xD1000000 | value << 10 | n << 5 | d


def store(t: int, n: int) -> int:  # STR Wt, [Xn]
    return 0xB9000000 | n << 5 | t


def ic_ivau(t: int) -> list[int]:
    return [0xD50B7B20 | t, DSB, 0xD50B7520 | t, DSB, ISB]


def assemble(*words: Word) -> bytes:
    """A64 code at consecutive addresses."""
    labels: dict[str, int] = {}
    at = 0
    for word in words:
        if isinstance(word, str):
            labels[word] = at
        else:
            at += 4
    out: list[int] = []
    for word in words:
        if isinstance(word, int):
            out.append(word)
        elif isinstance(word, tuple):
            kind, base, label = word
            distance = labels[label] - 4 * len(out)
            if kind == "adr":
                out.append(base | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5)
            else:
                out.append(base | (distance >> 2 & 0x3FFFFFF if kind == "imm26" else (distance >> 2 & 0x7FFFF) << 5))
    return struct.pack(f"<{len(out)}I", *out)
