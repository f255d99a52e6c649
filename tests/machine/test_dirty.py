"""Changed pages: exactly those whose content differs, however they were written and whatever the system keeps resident."""

from __future__ import annotations

import mmap
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.machine import dirty, memory
from tracekit.machine.dirty import DirtyPages
from tracekit.machine.map import PVTIME_BASE, PVTIME_SIZE, RAM_BASE
from tracekit.machine.memory import PAGE_SIZE, PhysicalMemory, anonymous

PAGES = 64
RAM, PV = RAM_BASE >> 12, PVTIME_BASE >> 12


def guest_memory(pages: int = PAGES) -> PhysicalMemory:
    return PhysicalMemory(anonymous(pages * PAGE_SIZE), PVTIME_BASE, PVTIME_SIZE)


places = st.integers(0, PAGES + PVTIME_SIZE // PAGE_SIZE - 1)
stores = st.lists(st.tuples(places, st.integers(0, PAGE_SIZE - 1), st.integers(0, 2)), max_size=20)


@settings(max_examples=60, deadline=None)
@given(base=stores, rounds=st.lists(stores, max_size=5), swapped=st.booleans())
def test_against_a_copy(base: list[tuple[int, int, int]], rounds: list[list[tuple[int, int, int]]], swapped: bool) -> None:
    """A plain copy of everything, compared page by page, finds the same."""
    guest = guest_memory()

    def apply(writes: list[tuple[int, int, int]]) -> None:
        for place, at, value in writes:
            ipa = (RAM + place) << 12 if place < PAGES else PVTIME_BASE + (place - PAGES) * PAGE_SIZE
            guest.write(ipa + at, 1, value)

    def everything() -> dict[int, bytes]:
        indices = [*range(PV, PV + PVTIME_SIZE // PAGE_SIZE), *range(RAM, RAM + PAGES)]
        return {index: guest.read_bytes(index << 12, PAGE_SIZE) for index in indices}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dirty, "may_be_swapped", lambda: swapped)
        apply(base)
        pages = DirtyPages(guest)
        before = everything()
        for writes in rounds:
            apply(writes)
            changes, now = pages.scan(), everything()
            wanted = {index: content for index, content in now.items() if content != before[index]}
            assert list(changes.indices) == sorted(wanted)
            assert {index: bytes(content) for index, content in changes} == wanted
            before = now
        assert len(pages.scan()) == 0


def test_contents_stay_until_the_next_scan() -> None:
    """What the guest writes afterwards is not seen; places without memory are refused."""
    guest = guest_memory()
    pages = DirtyPages(guest)
    guest.write(RAM_BASE, 8, 1)
    changes = pages.scan()
    guest.write(RAM_BASE, 8, 2)
    assert changes.page(RAM)[0] == 1
    assert changes.page(RAM).readonly
    assert pages.scan().page(RAM)[0] == 2
    with pytest.raises(KeyError):
        changes.page(RAM + PAGES)
    with pytest.raises(KeyError):
        changes.page(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked what is resident")
def test_untouched_memory_stays_untouched() -> None:
    """Neither the guest's memory nor the shadow grows by looking."""

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * mmap.PAGESIZE

    guest = guest_memory(pages=1 << 16)
    for number in range(0, 1 << 16, 4096):
        guest.write(RAM_BASE + number * PAGE_SIZE, 8, 1)
    before = resident()
    pages = DirtyPages(guest)
    for _ in range(3):
        pages.scan()
    assert resident() - before < 16 << 20
    assert len(list(guest.pages())) == 16


def test_swapped_pages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system may have swapped something out, every page is looked at."""
    guest = guest_memory()
    guest.write(RAM_BASE, 8, 1)
    monkeypatch.setattr(memory, "may_be_swapped", lambda: True)
    assert [index for index, _ in guest.pages()] == [RAM]
