"""Symbols and lines of an ELF guest with debug information, against pyelftools' own reading; wrong files and damage are one line."""

from __future__ import annotations

import json
import random
import re
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from guests_with_symbols import debug_guest
from support import REPOSITORY, recorded, rows, tracekit

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.machine.map import RAM_BASE
from tracekit.symbols.elf import read_elf
from tracekit.symbols.symbols import Symbols


@pytest.fixture(scope="module")
def debug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guests `hello` and `steal` with their symbols and debug information."""
    folder = tmp_path_factory.mktemp("debug")
    for name in ("hello", "steal"):
        debug_guest(name, folder / f"{name}.elf")
    return folder


@pytest.fixture(scope="module")
def steal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled, stripped guest."""
    path = tmp_path_factory.mktemp("symbols") / "steal.tkt"
    recorded(path, "steal", max_instructions=100_000)
    return path


def test_symbols(debug: Path) -> None:
    """Every function from its first byte to its last, and nothing behind it."""
    table = read_elf(debug / "steal.elf").table
    elf = ELFFile(BytesIO((debug / "steal.elf").read_bytes()))
    functions = [one for one in elf.get_section_by_name(".symtab").iter_symbols() if one["st_info"]["type"] == "STT_FUNC"]
    assert len(functions) > 8
    for one in functions:
        begin, size = one["st_value"], one["st_size"]
        for offset in {0, size - 1} if size else set():
            found = table.name(begin + offset)
            assert found is not None and (found.function, found.offset) == (one.name, offset)
        behind = table.name(begin + size)
        assert behind is None or behind.function != one.name
        assert table.addresses(one.name) == (begin,)
    assert table.name(0) is None and table.name((1 << 64) - 1) is None


def test_lines(debug: Path) -> None:
    """Each row of the line programs, as another reader has it."""
    lines = read_elf(debug / "steal.elf").lines
    dwarf = ELFFile(BytesIO((debug / "steal.elf").read_bytes())).get_dwarf_info()
    compared = 0
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        first = 0 if program.header.version >= 5 else 1
        states = [entry.state for entry in program.get_entries() if entry.state is not None]
        for state, following in pairwise(states):
            if (
                state.end_sequence or state.address == following.address or state.address < RAM_BASE
            ):  # left out by the linker: at 0
                continue
            name = program.header.file_entry[state.file - first].name.decode()
            found = lines.find(state.address)
            assert (found is None) == (not state.line)
            if found is not None:
                assert (Path(found[0]).name, found[1]) == (Path(name).name, state.line)
                assert found == lines.find(following.address - 1)
            compared += 1
    assert compared > 100
    assert lines.find(1 << 40) is None


def test_a_run_is_named(steal: Path, debug: Path) -> None:
    """`dump --symbols=FILE`: the read of the stolen time stands on the line that reads it."""
    symbols = Symbols.for_trace(Trace.open(steal), debug / "steal.elf")
    source = (REPOSITORY / "samples" / "guests" / "steal" / "steal.c").read_text().splitlines()
    reads = [row["pc"] for row in rows(steal, "memory_reads")]
    assert reads
    for pc in reads:
        found = symbols.name(pc, line=True)
        assert found is not None and found.file is not None and found.line is not None
        assert Path(found.file).name == "steal.c" and "stolen_ns" in source[found.line - 1]
    hvc = {row["pc"] for row in rows(steal, "hypercalls")}
    assert symbols.address("hvc") in hvc
    with pytest.raises(InputError, match="no symbol 'nothing'"):
        symbols.address("nothing")
    done = tracekit("dump", steal, "hypercalls", "--json", f"--symbols={debug / 'steal.elf'}")
    assert done.returncode == 0
    names = {json.loads(line)["symbol"].split("+")[0].split(" ")[0] for line in done.stdout.splitlines()}
    assert names == {"hvc", "start_vcpus"}  # where it is inlined
    text = tracekit("dump", steal, "hypercalls", f"--symbols={debug / 'steal.elf'}").stdout.splitlines()
    assert text[0].endswith("symbol") and re.search(r"hvc \(common/board\.c:\d+\)$", text[1])


def test_no_names_without_a_file(steal: Path) -> None:
    """A bare-metal trace has no names in it, and says what gives them; a table without a pc refuses."""
    done = tracekit("dump", steal, "hypercalls", "--json", "--symbols")
    assert done.returncode == 0 and "--symbols FILE" in done.stderr
    assert all(json.loads(line)["symbol"] is None for line in done.stdout.splitlines())
    assert tracekit("dump", steal, "schedule", "--symbols").returncode == 2


def test_another_guest_is_refused(steal: Path, debug: Path) -> None:
    """Code that did not run gives no names; nor does a file without symbols."""
    trace = Trace.open(steal)
    with pytest.raises(InputError, match="not what the recorded guest has"):
        Symbols.for_trace(trace, debug / "hello.elf")
    with pytest.raises(InputError, match="no symbol table"):
        Symbols.for_trace(trace, REPOSITORY / "tracekit" / "workbench" / "guests" / "steal.elf")
    with pytest.raises(InputError, match="no ELF file"):
        Symbols.for_trace(trace, REPOSITORY / "README.md")
    with pytest.raises(InputError, match="No such file"):
        Symbols.for_trace(trace, debug / "missing.elf")


def test_damage_is_one_line(debug: Path, tmp_path: Path) -> None:
    """Spoilt and cut files: names, or an InputError; nothing else."""
    draw = random.Random("elf")
    whole = (debug / "hello.elf").read_bytes()
    path = tmp_path / "spoilt.elf"
    told = 0
    for number in range(300):
        spoilt = bytearray(whole)
        where = range(64) if number % 3 == 0 else range(len(whole) - 4000, len(whole)) if number % 3 == 1 else range(len(whole))
        for _ in range(draw.choice([1, 2, 8])):
            spoilt[draw.choice(where)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        if number % 10 == 9:
            del spoilt[draw.randrange(len(spoilt)) :]
        path.write_bytes(spoilt)
        try:
            elf = read_elf(path)
            for address in range(0x4008_0000, 0x4008_2000, 64):
                elf.table.name(address)
                elf.lines.find(address)
        except InputError as error:
            told += 1
            assert "\n" not in str(error) and "spoilt.elf" in str(error)
    assert 0 < told < 300
