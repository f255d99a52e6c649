"""An ELF file with symbols: the guest with names (and debug information), or a kernel's vmlinux. It is untrusted, like every input."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from tracekit.formats.errors import InputError
from tracekit.symbols.lines import LINE_BYTES_MAX, Lines
from tracekit.symbols.symbol import NAME_BYTES_MAX, SYMBOLS_MAX, Entry, Table

SECTIONS_MAX = 1 << 16
CODE_BYTES_MAX = 1 << 28
NOTE_BYTES_MAX = 1 << 16
_BUILD_ID = struct.pack("<II", 20, 3) + b"GNU\0"  # behind the length of the name, 4
_FUNCTION, _NO_TYPE, _OBJECT = 2, 0, 1
_SYMBOL = struct.Struct("<IBBHQQ")
_WRONG = (
    ELFError, DWARFError, struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, AssertionError,
    UnicodeError, EOFError, RecursionError, OSError, zlib.error,
)  # fmt: skip


@dataclass(slots=True)
class ElfSymbols:
    """What an ELF file says of its addresses. code: (address, bytes) of each executable section."""

    name: str
    table: Table
    build_id: bytes | None
    code: tuple[tuple[int, bytes], ...]
    lines: Lines = field(default_factory=Lines)

    def text_begin(self) -> int | None:
        """The address of a kernel's first byte, None for another program."""
        found = self.table.addresses("_text") or self.table.addresses("_head")
        return found[0] if found else None


def read_elf(path: Path) -> ElfSymbols:
    """Errors: InputError, one line that names the file."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    with file:
        try:
            return _read(path, file)
        except _WRONG as error:
            raise InputError(f"{path}: damaged or truncated ELF ({error or type(error).__name__})") from None


def _read(path: Path, file: BinaryIO) -> ElfSymbols:
    if not path.is_file():
        raise InputError(f"{path}: no regular file")
    if file.read(4) != b"\x7fELF":
        raise InputError(f"{path}: no ELF file; symbols come from one (a guest with its symbols, or a vmlinux)")
    size = path.stat().st_size
    elf = ELFFile(file)
    if elf.elfclass != 64 or elf.header["e_machine"] != "EM_AARCH64" or not elf.little_endian:
        raise InputError(f"{path}: no ELF file of little-endian AArch64")
    if elf.num_sections() > SECTIONS_MAX:
        raise InputError(f"{path}: {elf.num_sections()} sections: damaged")
    code: list[tuple[int, bytes]] = []
    build_id: bytes | None = None
    symbols: Any = None
    code_ranges: list[tuple[int, int]] = []
    for section in elf.iter_sections():
        header = section.header
        if header["sh_type"] != "SHT_NOBITS" and header["sh_offset"] + header["sh_size"] > size:
            raise InputError(f"{path}: section {section.name!r} reaches beyond the file's end")
        if header["sh_type"] == "SHT_PROGBITS" and header["sh_flags"] & 4 and header["sh_size"]:
            code_ranges.append((header["sh_addr"], header["sh_addr"] + header["sh_size"]))
            if sum(len(data) for _, data in code) + header["sh_size"] <= CODE_BYTES_MAX:
                code.append((header["sh_addr"], _bytes(file, header)))
        elif header["sh_type"] == "SHT_NOTE" and header["sh_size"] <= NOTE_BYTES_MAX and build_id is None:
            build_id = next(iter(build_ids(_bytes(file, header))), None)
        elif header["sh_type"] == "SHT_SYMTAB":
            symbols = section
    if symbols is None:
        raise InputError(f"{path}: it has no symbol table (a stripped file?)")
    count = symbols.header["sh_size"] // _SYMBOL.size
    if count > SYMBOLS_MAX:
        raise InputError(f"{path}: {count} symbols; at most {SYMBOLS_MAX} are read")
    strings = elf.get_section(symbols.header["sh_link"]).header
    if strings["sh_offset"] + strings["sh_size"] > size:
        raise InputError(f"{path}: the symbols' names reach beyond the file's end")
    entries = _entries(_bytes(file, symbols.header)[: count * _SYMBOL.size], _bytes(file, strings), code_ranges)
    end = max((end for _, end in code_ranges), default=0)
    return ElfSymbols(str(path), Table(entries, end), build_id, tuple(code), Lines(partial(_debug_sections, path), str(path)))


def _entries(raw: bytes, names: bytes, code: list[tuple[int, int]]) -> list[Entry]:
    found: list[Entry] = []
    ranges = sorted(code)
    for name_at, info, _, section, address, size in _SYMBOL.iter_unpack(raw):
        kind = info & 15
        if section == 0 or section >= 0xFF00 or kind not in (_NO_TYPE, _OBJECT, _FUNCTION) or name_at >= len(names):
            continue
        stop = names.find(b"\0", name_at, name_at + NAME_BYTES_MAX)
        name = names[name_at:stop].decode("utf-8", "replace") if stop >= 0 else ""
        if not name or name.startswith(("$x", "$d", ".L")):
            continue
        is_code = kind != _OBJECT and any(begin <= address < end for begin, end in ranges)
        found.append(Entry(address, size, name, is_code))
    found.sort(key=lambda one: (one.address, one.size == 0))
    sized: list[Entry] = []
    here = following = max((end for _, end in ranges), default=0)
    for one in reversed(found):  # a label reaches to the next symbol; a function has its size
        if one.address != here:
            here, following = one.address, here
        if one.is_code and not one.size:
            one = Entry(one.address, max(1, following - one.address), one.name, True)
        sized.append(one)
    return sized[::-1]


def _bytes(file: BinaryIO, header: Any) -> bytes:
    file.seek(header["sh_offset"])
    return file.read(header["sh_size"])


def _debug_sections(path: Path) -> tuple[bytes, bytes, bytes]:
    """.debug_line, .debug_line_str and .debug_str; empty where there is none, or too much. Errors: InputError."""
    out = []
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            for name in (".debug_line", ".debug_line_str", ".debug_str"):
                section = elf.get_section_by_name(name)
                fits = section is not None and max(section.data_size, section.header["sh_size"]) <= LINE_BYTES_MAX
                out.append(section.data() if fits else b"")
    except _WRONG as error:
        raise InputError(f"{path}: damaged debug information ({error or type(error).__name__})") from None
    return out[0], out[1], out[2]


def build_ids(data: bytes) -> set[bytes]:
    """Every GNU build id in notes, or in an Image that contains some (its own, and those of its vDSOs)."""
    found: set[bytes] = set()
    at = -1
    while len(found) < 64 and (at := data.find(_BUILD_ID, at + 1)) >= 0:
        if at >= 4 and data[at - 4 : at] == struct.pack("<I", 4) and at + 32 <= len(data):
            found.add(data[at + 12 : at + 32])
    return found
