"""The names of a run's addresses: what commands ask."""

from __future__ import annotations

from pathlib import Path

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.symbols.elf import ElfSymbols, build_ids, read_elf
from tracekit.symbols.kallsyms import KERNEL_HALF, Kallsyms, find_kallsyms
from tracekit.symbols.lines import Lines
from tracekit.symbols.placement import is_movable, kernel_of, place, recorded_calls
from tracekit.symbols.symbol import Entry, Symbol, Table

NAMES_MAX = 1 << 16  # answers that are kept


class Symbols:
    """Names for the addresses of one run.

    how: a sentence about where the names come from, or why there are none. is_kernel: only addresses of the kernel's half have names; else the
    guest is a bare-metal program, and all may.
    """

    def __init__(self, table: Table | None, slide: int, how: str, *, is_kernel: bool, lines: Lines | None = None) -> None:
        """slide: what is added to the table's addresses to make those of the run."""
        self._table = table
        self._slide = slide
        self._lines = lines
        self._known: dict[tuple[int, bool], Symbol | None] = {}
        self.how = how
        self.is_kernel = is_kernel

    @classmethod
    def for_trace(cls, trace: Trace, extra: Path | str | None = None) -> Symbols:
        """The names of a run: those inside its Linux Image, or those of an ELF file `extra` (the guest with its symbols, or a vmlinux).

        Errors: InputError where `extra` cannot be read or is not what ran; TraceDamaged.
        """
        given = None if extra is None else read_elf(Path(extra))
        image = kernel_of(trace)
        if image is not None:
            return _of_kernel(trace, image, given)
        if given is None:
            how = "the guest is a bare-metal program, and a trace holds no names of it: --symbols FILE.elf gives them"
            return cls(None, 0, how, is_kernel=False)
        _check_program(trace, given)
        return cls(given.table, 0, f"names of {given.name}", is_kernel=False, lines=given.lines)

    @property
    def is_empty(self) -> bool:
        """Whether no address has a name."""
        return self._table is None

    def name(self, pc: int, *, line: bool = False) -> Symbol | None:
        """What an address is called, None where it has no name. line: also its file and line, if there is debug information.

        Errors: InputError where the debug information is damaged.
        """
        key = pc, line
        if key not in self._known:
            if len(self._known) >= NAMES_MAX:
                self._known.clear()
            self._known[key] = self._name(pc, line)
        return self._known[key]

    def _name(self, pc: int, line: bool) -> Symbol | None:
        if self._table is None or (self.is_kernel and pc < KERNEL_HALF):
            return None
        found = self._table.name(pc - self._slide)
        if found is None or not line or self._lines is None:
            return found
        place = self._lines.find(pc - self._slide)
        return found if place is None else Symbol(found.function, found.offset, *place)

    def text(self, pc: int | None) -> str | None:
        """The name for a report, with file and line where they are known; None where there is none."""
        found = None if pc is None else self.name(pc, line=True)
        return None if found is None else str(found)

    def addresses(self, name: str) -> tuple[int, ...]:
        """Every address of a name in the run, ascending."""
        return () if self._table is None else tuple(one + self._slide for one in self._table.addresses(name))

    def address(self, name: str) -> int:
        """The address of a name. Errors: InputError where there is none, or several."""
        found = self.addresses(name)
        if not found:
            raise InputError(f"no symbol {name!r} ({self.how})")
        if len(found) > 1:
            raise InputError(f"{len(found)} symbols {name!r}: {', '.join(f'{one:#x}' for one in found[:8])}")
        return found[0]


def _of_kernel(trace: Trace, image: bytes, given: ElfSymbols | None) -> Symbols:
    if given is not None:
        begin = given.text_begin()
        if begin is None:
            raise InputError(f"{given.name}: no vmlinux: it has no symbol _text, where a kernel begins")
        _check_kernel(image, given, begin)
        table, linked, source = given.table, begin, given.name
    else:
        found = find_kallsyms(image)
        if found is None:
            how = "the kernel's Image holds no kallsyms that can be read: --symbols vmlinux gives its names"
            return Symbols(None, 0, how, is_kernel=True)
        table, linked, source = _table_of(found, len(image)), found.base, "the Image's kallsyms"
    placed = place(image, linked, recorded_calls(trace), movable=is_movable(trace))
    if placed.base is None:
        return Symbols(None, 0, placed.how, is_kernel=True)
    how = f"names of {source}; {placed.how}"
    return Symbols(table, placed.base - linked, how, is_kernel=True, lines=None if given is None else given.lines)


def _table_of(found: Kallsyms, size: int) -> Table:
    """A table of the linked addresses. A symbol reaches to the next one; the last, a label at an end, nowhere."""
    entries: list[Entry] = []
    following = here = found.symbols[-1][0]
    for offset, kind, name in reversed(found.symbols):
        if offset != here:
            here, following = offset, here
        is_code = kind in "tTwW" and following > offset
        entries.append(Entry(found.base + offset, following - offset, name, is_code))
    return Table(reversed(entries), found.base + size)


def _check_kernel(image: bytes, given: ElfSymbols, begin: int) -> None:
    """Errors: InputError where both have a build id and they differ; where they have not, and the code differs."""
    held = build_ids(image)
    if given.build_id is not None and held:
        if given.build_id not in held:
            ids = ", ".join(sorted(one.hex() for one in held))
            raise InputError(f"{given.name}: build id {given.build_id.hex()} is not the recorded kernel's ({ids})")
        return
    for address, code in given.code:
        at = address - begin
        if at < 0 or image[at : at + len(code)] != code:
            raise InputError(f"{given.name}: its code at {address:#x} is not the recorded kernel's (no build id tells more)")


def _check_program(trace: Trace, given: ElfSymbols) -> None:
    """Errors: InputError where the code of the file is not what the run began with; TraceDamaged."""
    kernels = {image["sha256"] for image in trace.manifest["images"] if image["role"] == "kernel"}
    parts = [part for part in trace.manifest.get("machine", {}).get("segments", ()) if part["image"] in kernels]
    memory = [(part["ipa"], trace.image(part["image"])) for part in parts]
    for address, code in given.code:
        for ipa, data in memory:
            if ipa <= address and data[address - ipa : address - ipa + len(code)] == code:
                break
        else:
            raise InputError(f"{given.name}: its code at {address:#x} is not what the recorded guest has there")
