"""File and line of an address, out of .debug_line alone; only the units that an address may lie in are decoded.

Source: DWARF 5, 6.2 (versions 2 to 5). A unit's header: version, sizes, table of directories, table of files; then a program whose instructions make
rows (address, file, line). Every sequence of rows begins by setting an address: those places are found first, and lead to their units.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tracekit.formats.errors import InputError

LINE_BYTES_MAX = 1 << 28  # of a section
UNIT_BYTES_MAX = 1 << 22
ROWS_MAX = 1 << 22  # that are kept
NEAR = 8  # sequences that begin before an address and are looked at
_SET_ADDRESS = b"\x00\x09\x02"
_STRP, _LINE_STRP, _STRING, _UDATA, _DATA1, _DATA2, _DATA4, _DATA8, _DATA16, _BLOCK = (
    0x0E, 0x1F, 0x08, 0x0F, 0x0B, 0x05, 0x06, 0x07, 0x1E, 0x09,
)  # fmt: skip
_FIXED = {_DATA1: 1, _DATA2: 2, _DATA4: 4, _DATA8: 8, _DATA16: 16}
_PATH, _DIRECTORY = 1, 2
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Unit:
    """The rows of a unit: addresses, and for each the file and line from there on; line 0 ends a sequence."""

    files: tuple[str, ...]
    first_file: int
    addresses: array[int]
    file_of: array[int]
    line_of: array[int]
    sequences: tuple[tuple[int, int], ...]  # [first row, row of the end]

    def find(self, address: int) -> tuple[str, int] | None:
        """(file, line) of an address."""
        for first, last in self.sequences:
            if self.addresses[first] <= address < self.addresses[last]:
                row = bisect_right(self.addresses, address, first, last) - 1
                index = self.file_of[row] - self.first_file
                if row >= first and 0 <= index < len(self.files) and self.line_of[row]:
                    return self.files[index], self.line_of[row]
        return None


def _no_sections() -> tuple[bytes, bytes, bytes]:
    return b"", b"", b""


class Lines:
    """Answers for one file's debug information, which is read when it is first asked for."""

    def __init__(self, sections: Callable[[], tuple[bytes, bytes, bytes]] = _no_sections, name: str = "") -> None:
        """sections: gives .debug_line, .debug_line_str and .debug_str; empty where there is none. name: of the file, for messages."""
        self._sections = sections
        self._name = name
        self._data: tuple[bytes, bytes, bytes] | None = None
        self._starts: list[tuple[int, int]] = []  # (address, unit's place)
        self._units: dict[int, Unit] = {}
        self._rows = 0

    def find(self, address: int) -> tuple[str, int] | None:
        """(file, line), None where the debug information says nothing. Errors: InputError where it is damaged."""
        try:
            if self._data is None:
                self._data = self._sections()
                self._starts = _starts(self._data[0])
            at = bisect_right(self._starts, (address, len(self._data[0])))
            places = dict.fromkeys(place for _, place in reversed(self._starts[max(0, at - NEAR) : at]))
            for place in places:
                found = self._unit(place).find(address)
                if found is not None:
                    return found
        except (ValueError, struct.error, IndexError, OverflowError) as error:
            raise InputError(f"{self._name}: damaged debug information ({error})") from None
        return None

    def _unit(self, place: int) -> Unit:
        assert self._data is not None
        if place not in self._units:
            unit = _decode(self._data, place)
            self._rows += len(unit.addresses)
            if self._rows > ROWS_MAX:
                self._units.clear()
                self._rows = len(unit.addresses)
            self._units[place] = unit
        return self._units[place]


def _starts(data: bytes) -> list[tuple[int, int]]:
    """(address, unit's place) of what looks like the begin of a sequence, ascending."""
    places: list[int] = []
    at = 0
    while at + 4 <= len(data):
        begin, end, _ = _extent(data, at)
        if end > len(data) or begin >= end:
            break
        places.append(at)
        at = end
    found: list[tuple[int, int]] = []
    at = -1
    while (at := data.find(_SET_ADDRESS, at + 1)) >= 0 and at + 11 <= len(data):
        index = bisect_right(places, at) - 1
        if index >= 0:
            (address,) = struct.unpack_from("<Q", data, at + 3)
            found.append((address, places[index]))
    return sorted(set(found))


def _extent(data: bytes, at: int) -> tuple[int, int, int]:
    """(where a unit's content begins, where it ends, bytes of an offset in it)."""
    (length,) = struct.unpack_from("<I", data, at)
    if length == 0xFFFF_FFFF:
        (length,) = struct.unpack_from("<Q", data, at + 4)
        return at + 12, at + 12 + length, 8
    return at + 4, at + 4 + length, 4


class _Reader:
    """Reads one unit, never beyond its end."""

    def __init__(self, data: bytes, offset_size: int, strings: tuple[bytes, bytes]) -> None:
        self.data, self.at, self.offset_size, self.strings = data, 0, offset_size, strings

    def fixed(self, size: int) -> int:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("a unit ends too early")
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def signed(self, size: int) -> int:
        value = self.fixed(size)
        return value - (1 << 8 * size) if value >> (8 * size - 1) else value

    def uleb(self, *, is_signed: bool = False) -> int:
        value = shift = 0
        while True:
            byte = self.fixed(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value - (1 << shift) if is_signed and byte & 0x40 else value
            if shift > 70:
                raise ValueError("a number of more than 64 bits")

    def string(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError("a name without an end")
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text

    def form(self, form: int) -> str | int:
        if form == _STRING:
            return self.string()
        if form in (_STRP, _LINE_STRP):
            strings, place = self.strings[form == _STRP], self.fixed(self.offset_size)
            end = strings.find(b"\0", place, place + 4096)
            return strings[place:end].decode("utf-8", "replace") if 0 <= place < end else "?"
        if form == _UDATA:
            return self.uleb()
        if form == _BLOCK:
            return self.fixed(self.uleb())
        if form in _FIXED:
            return self.fixed(_FIXED[form])
        raise ValueError(f"form {form:#x}")

    def table(self) -> list[tuple[str, int]]:
        """(name, directory) of each entry of a version 5 table."""
        formats = [(self.uleb(), self.uleb()) for _ in range(self.fixed(1))]
        count = self.uleb()
        if count > len(self.data) or (count and not formats):
            raise ValueError(f"a table of {count} entries")
        out = []
        for _ in range(count):
            values = {kind: self.form(form) for kind, form in formats}
            directory = values.get(_DIRECTORY, 0)
            out.append((str(values.get(_PATH, "?")), directory if isinstance(directory, int) else 0))
        return out


def _decode(sections: tuple[bytes, bytes, bytes], place: int) -> Unit:
    """One unit. Errors: ValueError."""
    begin, end, offset_size = _extent(sections[0], place)
    if end - begin > UNIT_BYTES_MAX:
        raise ValueError(f"a unit of {end - begin} bytes")
    reader = _Reader(sections[0][begin:end], offset_size, sections[1:])
    version = reader.fixed(2)
    if not 2 <= version <= 5:
        raise ValueError(f"version {version}")
    if version == 5 and (reader.fixed(1), reader.fixed(1)) != (8, 0):
        raise ValueError("addresses that are not of 8 bytes")
    length = reader.fixed(offset_size)
    program = reader.at + length
    smallest = reader.fixed(1)
    if version >= 4:
        reader.fixed(1)  # operations of an instruction: VLIW only
    reader.fixed(1)  # whether a row is a statement at first
    line_base, line_range, opcode_base = reader.signed(1), reader.fixed(1), reader.fixed(1)
    if not line_range or not opcode_base:
        raise ValueError("a line range or an opcode base of 0")
    lengths = [reader.fixed(1) for _ in range(opcode_base - 1)]
    if version == 5:
        directories = [name for name, _ in reader.table()]
        named = reader.table()
    else:
        directories, named = ["."], []
        while name := reader.string():
            directories.append(name)
        while name := reader.string():
            named.append((name, reader.uleb()))
            reader.uleb(), reader.uleb()
    files = tuple(_path(directories, name, directory) for name, directory in named)
    reader.at = program
    unit = Unit(files, 0 if version == 5 else 1, array("Q"), array("I"), array("I"), ())
    sequences = _run(reader, unit, smallest, line_base, line_range, opcode_base, lengths)
    return Unit(unit.files, unit.first_file, unit.addresses, unit.file_of, unit.line_of, tuple(sequences))


def _path(directories: list[str], name: str, directory: int) -> str:
    if name.startswith("/") or directory == 0 or directory >= len(directories):
        return name
    return f"{directories[directory]}/{name}"


def _run(
    reader: _Reader, unit: Unit, smallest: int, line_base: int, line_range: int, opcode_base: int, lengths: list[int]
) -> list[tuple[int, int]]:
    """Run a unit's program; its rows go into the unit, (first, last) of each sequence is returned."""
    sequences: list[tuple[int, int]] = []
    address, file, line, first = 0, 1, 1, 0

    def row(line_: int) -> None:
        unit.addresses.append(address & _WORD)
        unit.file_of.append(file & 0xFFFF_FFFF)
        unit.line_of.append(line_ & 0xFFFF_FFFF)

    while reader.at < len(reader.data):
        opcode = reader.fixed(1)
        if opcode >= opcode_base:
            opcode -= opcode_base
            address += opcode // line_range * smallest
            line += line_base + opcode % line_range
            row(line)
        elif opcode == 0:
            size = reader.uleb()
            stop = reader.at + size
            kind = reader.fixed(1) if size else 0
            if kind == 1:
                row(0)
                last = len(unit.addresses) - 1
                rows = unit.addresses[first : last + 1]
                if last > first and all(a <= b for a, b in pairwise(rows)):
                    sequences.append((first, last))
                address, file, line, first = 0, 1, 1, last + 1
            elif kind == 2:
                address = reader.fixed(size - 1)
            if stop < reader.at or stop > len(reader.data):
                raise ValueError("an instruction that reaches beyond its unit")
            reader.at = stop
        elif opcode == 1:
            row(line)
        elif opcode == 2:
            address += reader.uleb() * smallest
        elif opcode == 3:
            line += reader.uleb(is_signed=True)
        elif opcode == 4:
            file = reader.uleb()
        elif opcode == 8:
            address += (255 - opcode_base) // line_range * smallest
        elif opcode == 9:
            address += reader.fixed(2)
        else:
            for _ in range(lengths[opcode - 1]):
                reader.uleb()
    return sequences
