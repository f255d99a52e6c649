"""Durations, sizes and names as people write them."""

from __future__ import annotations

import re

from tracekit.formats.errors import InputError

_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_DURATION = re.compile(r"\s*(\d{1,18})(?:\.(\d{1,9}))?\s*(ns|us|ms|s|min)\s*")
_SIZE = re.compile(r"\s*(\d{1,18})\s*([KMG]?)(?:i?B)?\s*", re.IGNORECASE)

_COUNT = re.compile(r"\s*(\d{1,18})\s*([kKMG]?)\s*")


def parse_duration_ns(text: str) -> int:
    """ "3ms", "1.5s" in ns, exactly. Errors: InputError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a duration; write a number with ns, us, ms, s or min, for example 3ms")
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scaled: int = int(whole + fraction) * _DURATIONS[unit]
    if scaled % 10 ** len(fraction):
        raise InputError(f"{text!r} is finer than a nanosecond")
    return scaled // int(10 ** len(fraction))


def parse_size(text: str) -> int:
    """ "512M", "4096" in bytes. Errors: InputError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a size; write a number of bytes or with K, M or G, for example 512M")
    return int(match[1]) * _SIZES[match[2].upper()]


def parse_count(text: str) -> int:
    """ "64M", "5k", "1000" as a count. Errors: InputError."""
    match = _COUNT.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a count; write a number, or one with k, M or G, for example 64M")
    return int(match[1]) * _COUNTS[match[2].replace("K", "k")]


def format_ns(ns: int) -> str:
    """A duration for people: 1.234567 s, 3 ms, 12 ns."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if abs(ns) >= scale:
            return f"{ns / scale:.6f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{ns} ns"


def format_bytes(count: int) -> str:
    """A size for people: 1.5 MiB, 312 B."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def plain(text: str) -> str:
    """A file's name as text that every format can hold: bytes that are no UTF-8 (lone surrogates in Python) become escapes, `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
