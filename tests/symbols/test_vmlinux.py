"""A vmlinux beside the recorded Image: refused where it is another kernel's; moved with the kernel; the same names as kallsyms."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from made_elf import elf_of
from made_image import LAYOUTS, TEXT, image_of, symbols_of

from tracekit.formats.errors import InputError
from tracekit.formats.tables import TABLES
from tracekit.symbols.placement import OPCODES
from tracekit.symbols.symbols import Symbols

LINKED = 0xFFFF_8000_8000_0000
SITES = (0x1_2000, 0x1_2344, 0x1_9008)
BUILD_ID, ANOTHER = bytes(range(20)), bytes(range(1, 21))


def kernel(build_id: bytes | None) -> tuple[bytes, list[tuple[int, str, str]]]:
    """An Image with kallsyms, three HVCs, and a note."""
    symbols = symbols_of(3, 700, long_names=True)
    image = bytearray(image_of(symbols, LAYOUTS["v6.4"], LINKED))
    for site in SITES:
        struct.pack_into("<I", image, site, OPCODES["hvc"])
    if build_id is not None:
        note = struct.pack("<III", 4, 20, 3) + b"GNU\0" + build_id
        image[0x1_F000 : 0x1_F000 + len(note)] = note
    return bytes(image), symbols


class Recorded:
    """What Symbols asks of a trace: a kernel, its device tree, its hypercalls."""

    path = Path("made.tkt")

    def __init__(self, image: bytes, slide: int, tree: bytes = b"") -> None:
        self.images = {"k": image, "t": tree}
        self.manifest = {
            "images": [{"sha256": "k", "role": "kernel"}, {"sha256": "t", "role": "devicetree"}],
            "machine": {"cpu": "a53"},
        }
        self.pcs = [LINKED + slide + site for site in SITES]

    def image(self, sha256: str) -> bytes:
        return self.images[sha256]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        columns = [column.name for column in TABLES[table].columns]
        return [tuple({"pc": pc, "conduit": "hvc"}.get(name, 0) for name in columns) for pc in self.pcs]


def vmlinux(path: Path, image: bytes, symbols: list[tuple[int, str, str]], build_id: bytes | None) -> Path:
    """The ELF file that the Image was made of."""
    named = [("_text", LINKED, 0), *((name, LINKED + offset, 0) for offset, kind, name in symbols if kind in "tTwW")]
    path.write_bytes(elf_of(LINKED + TEXT, image[TEXT:0x1_F000], named, build_id))
    return path


@pytest.mark.parametrize("slide", [0, 0x1234_0000])
def test_the_same_names(tmp_path: Path, slide: int) -> None:
    """Of every function, by both sources, wherever the kernel ran."""
    image, symbols = kernel(BUILD_ID)
    trace: Any = Recorded(image, slide, b"kaslr-seed\0" if slide else b"")
    mine, theirs = Symbols.for_trace(trace), Symbols.for_trace(trace, vmlinux(tmp_path / "vmlinux", image, symbols, BUILD_ID))
    assert not mine.is_empty and not theirs.is_empty
    for offset, kind, name in symbols[:-1]:
        if kind in "tTwW" and offset < 0x1_2000:
            for symbolsof in (mine, theirs):
                found = symbolsof.name(LINKED + slide + offset)
                assert found is not None and (found.function, found.offset) == (name, 0)
                assert symbolsof.address(name) == LINKED + slide + offset
    assert mine.name(0x4020_0000) is None and theirs.name(0x4020_0000) is None
    assert mine.text(None) is None


def test_another_kernel_is_refused(tmp_path: Path) -> None:
    """By its build id; by its code where there is none; and what has no begin is no vmlinux."""
    image, symbols = kernel(BUILD_ID)
    trace: Any = Recorded(image, 0)
    with pytest.raises(InputError, match=r"build id 0102.* is not the recorded kernel's"):
        Symbols.for_trace(trace, vmlinux(tmp_path / "a", image, symbols, ANOTHER))
    assert not Symbols.for_trace(trace, vmlinux(tmp_path / "b", image, symbols, None)).is_empty
    spoilt = image[:0x1_3000] + bytes([image[0x1_3000] ^ 1]) + image[0x1_3001:]
    with pytest.raises(InputError, match="is not the recorded kernel's"):
        Symbols.for_trace(trace, vmlinux(tmp_path / "c", spoilt, symbols, None))
    (tmp_path / "d").write_bytes(elf_of(LINKED + TEXT, image[TEXT:0x1_F000], [("main", LINKED + TEXT, 4)], BUILD_ID))
    with pytest.raises(InputError, match="no vmlinux"):
        Symbols.for_trace(trace, tmp_path / "d")


def test_a_place_that_nothing_proves() -> None:
    """Names are withheld, and the reason is said."""
    image, _ = kernel(None)
    moved: Any = Recorded(image, 0x20_0000)  # without a seed it cannot have moved
    symbols = Symbols.for_trace(moved)
    assert symbols.is_empty and "another kernel ran" in symbols.how
    assert symbols.name(LINKED + TEXT) is None and symbols.addresses("_text") == ()
    plain: Any = Recorded(bytearray(image).replace(b"0\x001\x002\x00", b"0\x001\x003\x00"), 0)
    assert "holds no kallsyms" in Symbols.for_trace(plain).how
