"""The kallsyms of an Image: every layout since v4.6, and nothing that damage can do but cost the names."""

from __future__ import annotations

import random
import struct

import pytest
from made_image import LAYOUTS, Layout, image_of, symbols_of

from tracekit.symbols.kallsyms import find_kallsyms

LINKS = {"v4": 0xFFFF_0000_0808_0000, "v5": 0xFFFF_8000_1000_0000, "v6": 0xFFFF_8000_8000_0000}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("count", [64, 255, 256, 257, 3000])
def test_every_layout(name: str, count: int) -> None:
    """Each symbol with its place, type and name, and the address that the kernel is linked at."""
    layout, linked = LAYOUTS[name], LINKS[name[:2]]
    symbols = symbols_of(count, count, long_names=layout.uleb)
    found = find_kallsyms(image_of(symbols, layout, linked))
    assert found is not None
    assert found.base == linked
    assert list(found.symbols) == symbols


def test_an_image_without_kallsyms() -> None:
    """Noise and zeros have no names."""
    assert find_kallsyms(b"") is None
    assert find_kallsyms(bytes(1 << 20)) is None
    assert find_kallsyms(random.Random(1).randbytes(1 << 20)) is None
    digits = b"".join(b"%c\0" % code for code in range(0x21, 0x7F)) * 100
    assert find_kallsyms(digits) is None


def test_a_base_that_nothing_fills() -> None:
    """Without the relocation of the base nothing is claimed."""
    image = image_of(symbols_of(5, 300, long_names=False), Layout(), LINKS["v6"])
    lowest = struct.pack("<Q", LINKS["v6"] + 0x1_0000)
    assert find_kallsyms(image) is not None
    assert image.count(lowest) == 1
    assert find_kallsyms(image.replace(lowest, bytes(8))) is None


def test_a_table_that_does_not_ascend() -> None:
    """Offsets out of order are no offsets."""
    symbols = symbols_of(6, 300, long_names=False)
    image = image_of([*symbols[:100], symbols[200], *symbols[101:]], LAYOUTS["v6.1"])
    assert find_kallsyms(image) is None


@pytest.mark.parametrize("name", ["v5.10", "v6.1 percpu", "v6.12 filled"])
def test_damage_costs_names_and_no_more(name: str) -> None:
    """Spoilt bytes and cut files give names or none; what is given keeps its form."""
    draw = random.Random(f"damage {name}")
    whole = image_of(symbols_of(9, 400, long_names=LAYOUTS[name].uleb), LAYOUTS[name])
    tables = range(0x2_0000, len(whole) - 0x2000)
    for _ in range(150):
        spoilt = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3, 20])):
            spoilt[draw.choice(tables)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        if draw.random() < 0.3:
            del spoilt[draw.randrange(64, len(spoilt)) :]
        found = find_kallsyms(bytes(spoilt))
        if found is not None:
            offsets = [offset for offset, _, _ in found.symbols]
            assert offsets == sorted(offsets)
            assert all(len(kind) == 1 for _, kind, _ in found.symbols)
