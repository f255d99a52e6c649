"""Small ELF files of AArch64, byte by byte; independent of the reader."""

from __future__ import annotations

import struct

_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0.note.gnu.build-id\0"


def elf_of(text_at: int, text: bytes, symbols: list[tuple[str, int, int]], build_id: bytes | None = None) -> bytes:
    """An executable: its code at text_at, (name, address, size) of functions, and a build id of 20 bytes."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in symbols)
    table = bytearray(24)
    at = 1
    for name, address, size in symbols:
        table += struct.pack("<IBBHQQ", at, 0x12 if size else 0x10, 0, 1, address, size)
        at += len(name) + 1
    note = b"" if build_id is None else struct.pack("<III", 4, 20, 3) + b"GNU\0" + build_id
    parts = [("", 0, 0, 0, b"", 0, 0), (".text", 1, 6, text_at, text, 0, 0), (".symtab", 2, 0, 0, bytes(table), 3, 24)]
    parts += [
        (".strtab", 3, 0, 0, strings, 0, 0),
        (".shstrtab", 3, 0, 0, _NAMES, 0, 0),
        (".note.gnu.build-id", 7, 2, 0, note, 0, 0),
    ]
    body, headers = bytearray(), bytearray()
    for name, kind, flags, address, data, link, size in parts:
        place = _NAMES.find(name.encode() + b"\0") if name else 0
        headers += struct.pack("<IIQQQQIIQQ", place, kind, flags, address, 64 + len(body), len(data), link, 1, 8, size)
        body += data + bytes(-len(data) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, text_at, 0, 64 + len(body), 0, 64, 56, 0, 64, len(parts), 4)
    return header + bytes(body) + bytes(headers)
