"""A named address, and a table of names in order of address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SYMBOLS_MAX = 1 << 21  # in one table; a distribution's kernel has some 200,000
NAME_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Symbol:
    """What an address is called: `function` + `offset` bytes; file and line where debug information says so."""

    function: str
    offset: int
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        name = f"{self.function}+{self.offset:#x}" if self.offset else self.function
        return name if self.file is None else f"{name} ({self.file}:{self.line})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A symbol of a table. size in bytes, 0: up to the next symbol."""

    address: int
    size: int
    name: str
    is_code: bool


class Table:
    """Names by address and addresses by name. Of several names of one address the first given counts."""

    def __init__(self, entries: Iterable[Entry], end: int) -> None:
        """end: no symbol without a size reaches beyond it."""
        self.entries: Sequence[Entry] = tuple(entries)
        self.end = end
        code = sorted((one for one in self.entries if one.is_code), key=lambda one: one.address)
        self._code: list[Entry] = []
        for one in code:
            if not self._code or self._code[-1].address != one.address:
                self._code.append(one)
        self._starts = [one.address for one in self._code]
        self._addresses: dict[str, list[int]] = {}
        for one in self.entries:
            self._addresses.setdefault(one.name, []).append(one.address)

    def name(self, address: int) -> Symbol | None:
        """The function that an address lies in, None where it is in none."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        found = self._code[index]
        if address >= (found.address + found.size if found.size else self.end):
            return None
        return Symbol(found.name, address - found.address)

    def addresses(self, name: str) -> tuple[int, ...]:
        """Every address of that name, ascending."""
        return tuple(sorted(set(self._addresses.get(name, ()))))
