"""The symbol table inside a Linux Image, found by its structure: no debug package is needed.

Source: Linux scripts/kallsyms.c and kernel/kallsyms.c. Up to v6.3 the parts lie in the order offsets (or addresses), base, count, names, markers,
(v6.2, v6.3: an index by name,) tokens, token index; from v6.4 on: count, names, markers, tokens, token index, offsets, base. Parts begin at
multiples of 8 bytes, in old kernels of 256. A name is a length (one byte, from v6.1 on two where the first has bit 7) and as many bytes,
each of which stands for a token; its first character is the symbol's type. Offsets are u32 from the base, or signed with absolute symbols apart
(CONFIG_KALLSYMS_ABSOLUTE_PERCPU: negative ones count down from base - 1). Where the linker left the base to a relocation, it is taken from that.

The Image is untrusted: every place is checked against its end, and nothing is used that does not agree with all the rest.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tracekit.symbols.symbol import NAME_BYTES_MAX, SYMBOLS_MAX

TOKENS = 256
DIGITS = b"".join(b"%d\0" % digit for digit in range(10))  # each digit is a token of its own, in every kernel
TOKEN_BYTES_MAX = 1 << 16  # a token's place is a u16
FIRST_TOKEN_BYTES_MAX = 64
TOKEN_TABLES_MAX = 64  # places that look like one
ALIGNMENTS = (8, 256)
WALKED_MAX = 1 << 23  # names that are tried in all
NAMES_BYTES_MAX = 1 << 27  # of all names together
CANDIDATES_MAX = 1 << 12  # relocations that may be the base's
REACH = 64 << 20  # how far before the tokens the count is looked for
COUNT_MIN = 64
TYPES = frozenset(b"aAbBcCdDeEgGiInNpPrRsStTuUvVwW?-")
CODE_TYPES = frozenset("tTwW")
RELATIVE = struct.pack("<Q", 0x403)  # R_AARCH64_RELATIVE
RELOCATIONS_MAX = 1 << 20
SAMPLES = 512
PLACE = 2 << 20  # what a kernel is linked at is a multiple of it, text_offset aside
KERNEL_HALF = 1 << 63


@dataclass(frozen=True, slots=True)
class Kallsyms:
    """A kernel's symbols. base: the address that the first byte of the Image is linked at.

    symbols: (offset from that byte, type, name) in the order of the table, which ascends; absolute symbols are left out.
    """

    base: int
    symbols: tuple[tuple[int, str, str], ...]


def find_kallsyms(image: bytes) -> Kallsyms | None:
    """The symbols of an unpacked Image; None where it has none (CONFIG_KALLSYMS is off) or none that can be read."""
    left = WALKED_MAX
    for tokens, table, index_end in _token_tables(image):
        for count_at, alignment, count in _counts(image, table, tokens):
            left -= count
            if left < 0:
                return None
            names = _names(image, count_at + alignment, count, tokens, table)
            if names is None:
                continue
            found = _placed(image, count_at, index_end, alignment, names)
            if found is not None:
                return found
    return None


def _token_tables(image: bytes) -> Iterator[tuple[list[bytes], int, int]]:
    """(tokens, where they begin, where their index ends) of each place where both agree."""
    at, tried = 0, 0
    while tried < TOKEN_TABLES_MAX and (at := image.find(DIGITS, at)) >= 0:
        tried += 1
        found = _tokens_around(image, at)
        at += 1
        if found is not None:
            yield found


def _tokens_around(image: bytes, digits_at: int) -> tuple[list[bytes], int, int] | None:
    first_end = digits_at
    low = max(0, digits_at - TOKEN_BYTES_MAX)
    for _ in range(ord("0")):  # to the 0 that ends the first token
        first_end = image.rfind(b"\0", low, first_end)
        if first_end < 0:
            return None
    for start in range(first_end & ~7, max(-1, first_end - FIRST_TOKEN_BYTES_MAX), -8):
        places, end = _places(image, start)
        wanted = struct.pack(f"<{len(places)}H", *places)
        index = image.find(wanted, end, end + 256 + len(wanted)) if len(places) == TOKENS else -1
        if index >= 0:
            tokens = [image[start + place : image.index(b"\0", start + place)] for place in places]
            return tokens, start, index + len(wanted)
    return None


def _places(image: bytes, start: int) -> tuple[list[int], int]:
    """(where each token begins, counted from the first; where the last ends); fewer than TOKENS where there are not so many."""
    end = start
    places: list[int] = []
    while len(places) < TOKENS:
        place = end - start
        end = image.find(b"\0", end, start + TOKEN_BYTES_MAX) + 1
        if not end:
            break
        places.append(place)
    return places, end


def _counts(image: bytes, table: int, tokens: list[bytes]) -> Iterator[tuple[int, int, int]]:
    """(place, alignment, value) of what may be the number of symbols, the nearest before the tokens first."""
    first = max(0, table - REACH) & ~7
    words = array("I", image[first : first + (table - first) // 8 * 8])
    limit = min(SYMBOLS_MAX, table)
    lows, highs = words[0::2], words[1::2]
    places = [n for n, (low, high) in enumerate(zip(lows, highs, strict=True)) if not high and COUNT_MIN <= low <= limit]
    for n in reversed(places):
        at, count = first + n * 8, lows[n]
        if count * 2 > table - at:  # a name is a length and a type, at least
            continue
        for alignment in ALIGNMENTS:
            begin = at + alignment
            if image[at + 4 : begin].count(0) == alignment - 4 and _begins(image, begin, tokens):
                yield at, alignment, count


def _begins(image: bytes, at: int, tokens: list[bytes]) -> bool:
    """Whether names may begin here: a few that have a type."""
    for _ in range(16):
        if at + 3 > len(image):
            return False
        length, at = _length(image, at)
        token = tokens[image[at]]
        if not length or not token or token[0] not in TYPES:
            return False
        at += length
    return True


def _length(image: bytes, at: int) -> tuple[int, int]:
    """(length, where the name's bytes begin)."""
    low = image[at]
    return (low, at + 1) if low < 0x80 else (low & 0x7F | image[at + 1] << 7, at + 2)


def _names(image: bytes, begin: int, count: int, tokens: list[bytes], end: int) -> list[bytes] | None:
    """All names with their types; None unless they end where their markers begin, and those agree."""
    at = begin
    names: list[bytes] = []
    markers: list[int] = []
    total = 0
    for n in range(count):
        if at + 2 >= end:
            return None
        if not n % 256:
            markers.append(at - begin)
        length, at = _length(image, at)
        if not length or at + length > end:
            return None
        name = b"".join([tokens[code] for code in image[at : at + length]])
        total += len(name)
        if len(name) < 1 or len(name) > NAME_BYTES_MAX or total > NAMES_BYTES_MAX:
            return None
        names.append(name)
        at += length
    for code, alignment in (("I", 8), ("I", 256), ("Q", 8), ("Q", 256)):
        place = -(-at // alignment) * alignment
        if not any(image[at:place]) and image[place : place + len(markers) * (4 if code == "I" else 8)] == struct.pack(
            f"<{len(markers)}{code}", *markers
        ):
            return names
    return None


def _placed(image: bytes, count_at: int, index_end: int, alignment: int, names: list[bytes]) -> Kallsyms | None:
    """The symbols with their places, in whichever order the parts lie."""
    count = len(names)
    after = _up(index_end, 8)
    layouts = [
        ((count_at - alignment - 4 * count) // alignment * alignment, count_at - alignment),  # up to v6.3
        (after, _up(after + 4 * count, 8)),  # from v6.4 on
    ]
    for offsets_at, base_at in layouts:
        if offsets_at < 0 or max(offsets_at + 4 * count, base_at + 8) > len(image):
            continue
        raw = image[offsets_at : offsets_at + 4 * count]
        offsets = array("I", raw)
        if _ascends(offsets) and offsets[0] < offsets[-1]:
            return _relative(image, base_at, [*offsets], names)
        signed = array("i", raw)
        placed = [None if offset >= 0 else -1 - offset for offset in signed]
        kept = [offset for offset in placed if offset is not None]
        if len(kept) * 2 > count and _ascends(kept) and kept[0] == 0 < kept[-1]:
            return _relative(image, base_at, placed, names)
    for at in {(count_at - 8 * count) // alignment * alignment, after}:  # CONFIG_KALLSYMS_BASE_RELATIVE is off
        if 0 <= at <= len(image) - 8 * count:
            addresses = [one if one >= KERNEL_HALF else None for one in array("Q", image[at : at + 8 * count])]
            real = [one for one in addresses if one is not None]
            if len(real) * 2 > count and _ascends(real) and real[0] < real[-1]:
                return _of(image, real[0], [None if one is None else one - real[0] for one in addresses], names)
    return None


def _relative(image: bytes, base_at: int, offsets: list[int | None], names: list[bytes]) -> Kallsyms | None:
    (base,) = struct.unpack_from("<Q", image, base_at)
    lowest = base if base >= KERNEL_HALF else _relocated(image, base_at)
    return None if lowest is None else _of(image, lowest, offsets, names)


def _relocated(image: bytes, at: int) -> int | None:
    """The value that a relocation puts at a place of the Image; None where not exactly one can be meant."""
    found: list[tuple[int, int]] = []
    values: set[int] = set()
    entry = 7
    while len(found) < RELOCATIONS_MAX:
        entry = image.find(RELATIVE, entry + 1)
        if entry < 0 or entry + 16 > len(image):
            break
        place, _, value = struct.unpack_from("<QQQ", image, entry - 8)
        if place >= KERNEL_HALF and value >= KERNEL_HALF:
            found.append((place, value))
            if place - at == link_base(image, value):
                values.add(value)
    if len(values) > CANDIDATES_MAX:
        return None
    some = found[:: max(1, len(found) // SAMPLES)]
    fitting = [value for value in values if all(_is_blank(image, place - link_base(image, value), to) for place, to in some)]
    return fitting[0] if len(fitting) == 1 else None


def _is_blank(image: bytes, at: int, value: int) -> bool:
    """Whether a relocation may fill that place: it is empty, or holds the value already."""
    return 0 <= at <= len(image) - 8 and image[at : at + 8] in (bytes(8), struct.pack("<Q", value))


def link_base(image: bytes, lowest: int) -> int:
    """The address of the Image's first byte, given that of its lowest symbol. Source: Linux Documentation/arch/arm64/booting.rst, text_offset."""
    text_offset = int.from_bytes(image[8:16], "little") % PLACE
    return (lowest - text_offset) // PLACE * PLACE + text_offset


def _of(image: bytes, lowest: int, offsets: list[int | None], names: list[bytes]) -> Kallsyms | None:
    base = link_base(image, lowest)
    symbols = tuple(
        (lowest - base + offset, chr(name[0]), name[1:].decode("utf-8", "replace"))
        for offset, name in zip(offsets, names, strict=True)
        if offset is not None and name[0] not in b"aA"
    )
    return Kallsyms(base, symbols) if symbols else None


def _ascends(values: list[int] | array[int]) -> bool:
    return all(a <= b for a, b in pairwise(values))


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
