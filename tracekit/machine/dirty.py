"""Which 4 KiB pages of guest memory have changed since the last look: exact, by their content, never by how they were written."""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Iterator

from tracekit.machine import native
from tracekit.machine.map import RAM_BASE
from tracekit.machine.memory import PAGE_SIZE, PhysicalMemory, anonymous, may_be_swapped


class Changes:
    """What one scan found. indices: ipa >> 12, ascending; page contents are good until the next scan."""

    __slots__ = ("_regions", "indices")

    def __init__(self, indices: array[int], regions: tuple[_Region, ...]) -> None:
        self.indices = indices
        self._regions = regions

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, memoryview]]:
        """(ipa >> 12, content), ascending."""
        for index in self.indices:
            yield index, self.page(index)

    def page(self, index: int) -> memoryview:
        """Content (4096 bytes) of page `index` (ipa >> 12) as the scan saw it. Errors: KeyError where no memory is."""
        for region in self._regions:
            if region.first <= index < region.first + region.count:
                at = (index - region.first) * PAGE_SIZE
                return region.view[at : at + PAGE_SIZE]
        raise KeyError(index)


class _Region:
    """A contiguous piece of guest memory and its shadow, whose pages exist only where the guest's have been non-zero."""

    def __init__(self, memory: mmap.mmap | bytearray, base: int) -> None:
        self.first, self.count = base // PAGE_SIZE, len(memory) // PAGE_SIZE
        self.asks_system = isinstance(memory, mmap.mmap)
        self._memory = memory
        self._shadow = anonymous(len(memory))
        self._known = anonymous(self.count)
        self._changed = anonymous(4 * self.count)
        self.view = memoryview(self._shadow).toreadonly()

    def scan(self, ask_system: bool) -> array[int]:
        """Numbers of changed pages from `first`, ascending; the shadow is brought up to date."""
        pins = [ctypes.c_char.from_buffer(part) for part in (self._memory, self._shadow, self._known, self._changed)]
        memory, shadow, known, changed = (ctypes.addressof(pin) for pin in pins)
        count = native.library().tk_changed_pages(memory, shadow, known, self.count, ask_system and self.asks_system, changed)
        del pins
        found = array("I")
        assert found.itemsize == 4
        found.frombytes(self._changed[: 4 * count])
        return found


class DirtyPages:
    """Changes of RAM and of the stolen-time page against a private copy of what was seen last (or at the beginning).

    The copy costs as much memory as the pages that have ever been non-zero. The result depends on contents alone.
    """

    def __init__(self, memory: PhysicalMemory) -> None:
        """The present memory is what the first scan compares with."""
        self._regions = tuple(
            sorted((_Region(memory.page, memory.page_base), _Region(memory.ram, RAM_BASE)), key=lambda region: region.first)
        )
        self.scan()

    def scan(self) -> Changes:
        """Pages whose content differs from the last scan."""
        ask_system = not may_be_swapped()
        indices = array("I")
        for region in self._regions:
            first = region.first
            indices.extend(array("I", (first + number for number in region.scan(ask_system))))
        return Changes(indices, self._regions)
