"""Linux Images with kallsyms tables, written as each kernel version writes them; independent of the reader."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

MIB = 1 << 20
TEXT = 0x1_0000  # where the first symbol lies


@dataclass(frozen=True)
class Layout:
    """How the tables are written. order: "old" (to v6.3) or "new"; offsets: "relative", "percpu" (absolute symbols apart) or "absolute"."""

    order: str = "new"
    offsets: str = "relative"
    alignment: int = 8
    wide: bool = False  # count and markers of 8 bytes
    index_size: int = 0  # bytes of an entry of the index by name, before the tokens
    uleb: bool = True  # names of more than 127 bytes, compressed
    base: str = "relocated"  # or "filled"


LAYOUTS = {
    "v4.9": Layout("old", alignment=256, wide=True, uleb=False, base="filled"),
    "v4.9 absolute": Layout("old", "absolute", alignment=256, wide=True, uleb=False),
    "v5.10": Layout("old", uleb=False),
    "v6.1": Layout("old"),
    "v6.1 percpu": Layout("old", "percpu"),
    "v6.2": Layout("old", index_size=4),
    "v6.3": Layout("old", index_size=3),
    "v6.4": Layout("new"),
    "v6.12 filled": Layout("new", base="filled"),
    "v6.12 percpu": Layout("new", "percpu", base="filled"),
}


def symbols_of(seed: int, count: int, *, long_names: bool) -> list[tuple[int, str, str]]:
    """(offset from the Image's begin, type, name), ascending."""
    draw = random.Random(seed)
    words = ["do", "sys", "_", "irq", "arm64", "el1", "page", "vm", "x", "get0", "put9", ".isra", "Tk", "q2"]
    places = sorted(draw.sample(range(TEXT + 4, TEXT + 16 * count, 4), count - 1))
    names = ["".join(draw.choices(words, k=draw.randint(1, 6))) + str(n) for n in range(count)]
    if long_names:
        names[count // 2] = "very_" + "".join(draw.choices("abcdefgh", k=300))
    kinds = draw.choices("tTdDrRbBWV", weights=[40, 30, 5, 5, 5, 5, 2, 2, 3, 3], k=count)
    kinds[0] = "T"
    return list(zip([TEXT, *places], kinds, names, strict=True))


def image_of(symbols: list[tuple[int, str, str]], layout: Layout, linked: int = 0xFFFF_8000_0800_0000) -> bytes:
    """An Image: header, noise, the tables, noise, relocations."""
    draw = random.Random(len(symbols))
    text_offset = linked % (2 * MIB)
    header = bytearray(64)
    struct.pack_into("<QQQ", header, 8, text_offset, 4 * MIB, 0xA)
    header[56:60] = b"ARMd"
    out = bytearray(header + draw.randbytes(0x2_0000 - 64))
    entries = [(offset, (kind + name).encode()) for offset, kind, name in symbols]
    if layout.offsets == "percpu":  # absolute ones have places of their own
        entries = [(8 * n, f"A__per_cpu_{n}".encode()) for n in range(5)] + entries
    absolute = {n for n, (_, name) in enumerate(entries) if name[:1] == b"A"}

    def align(extra: int = 0) -> int:
        out.extend(bytes(-len(out) % max(layout.alignment, 8) + extra))
        return len(out)

    tokens = [bytes([code]) for code in range(256)]
    for code in (*range(0x80, 0x100), *range(1, 0x21)):
        tokens[code] = "".join(draw.choices("abcdeiorst_", k=draw.randint(2, 4))).encode()
    tokens[0] = b"do"
    tokens[0x80], tokens[0x81], tokens[0xFF] = b"sys", b"arm64", b"page"

    def compressed(name: bytes) -> bytes:
        codes = bytearray()
        while name:
            code = next((c for c in (0x80, 0x81, 0xFF, 0) if codes and name.startswith(tokens[c])), name[0])
            codes.append(code)
            name = name[len(tokens[code]) :]
        return bytes(codes)

    relocations: list[tuple[int, int]] = [(linked + 0x100 * n, linked + 0x40 * n + TEXT) for n in range(1, 40)]
    for place, _ in relocations:
        out[place - linked : place - linked + 8] = bytes(8)
    lowest = linked + symbols[0][0]

    def places() -> None:
        align()
        for n, (offset, _) in enumerate(entries):
            relative = linked + offset - lowest
            if layout.offsets == "absolute":
                out.extend(struct.pack("<Q", offset if n in absolute else linked + offset))
            elif layout.offsets == "percpu":
                out.extend(struct.pack("<i", offset if n in absolute else -1 - relative))
            else:
                out.extend(struct.pack("<I", relative))
        if layout.offsets != "absolute":
            at = align()
            if layout.base == "filled":
                out.extend(struct.pack("<Q", lowest))
            else:
                out.extend(bytes(8))
                relocations.append((linked + at, lowest))

    if layout.order == "old":
        places()
    align()
    out.extend(struct.pack("<Q" if layout.wide else "<I", len(entries)))
    begin = align()
    markers = []
    for n, (_, name) in enumerate(entries):
        if n % 256 == 0:
            markers.append(len(out) - begin)
        codes = compressed(name)
        assert layout.uleb or len(codes) < 256
        out.extend(bytes([len(codes)]) if len(codes) < 0x80 else bytes([len(codes) & 0x7F | 0x80, len(codes) >> 7]))
        out.extend(codes)
    align()
    out.extend(struct.pack(f"<{len(markers)}{'Q' if layout.wide else 'I'}", *markers))
    if layout.index_size:
        align()
        for _ in entries:
            out.extend(draw.randrange(len(entries)).to_bytes(layout.index_size, "big"))
    start = align()
    index = []
    for token in tokens:
        index.append(len(out) - start)
        out.extend(token + b"\0")
    align()
    out.extend(struct.pack("<256H", *index))
    if layout.order == "new":
        places()
    out.extend(draw.randbytes(0x1000))
    out.extend(bytes(-len(out) % 8))
    for place, value in relocations:
        out.extend(struct.pack("<QQQ", place, 0x403, value))
    out.extend(draw.randbytes(0x1000))
    return bytes(out)
