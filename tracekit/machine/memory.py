"""Guest memory as the hypervisor and the loader see it: RAM and the dedicated page of stolen-time structures."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import struct
import sys
from collections.abc import Iterator

from tracekit.machine.map import RAM_BASE

PAGE_SIZE = 4096
Page = bytes | bytearray | memoryview  # content of a page
_ZERO_PAGE = bytes(PAGE_SIZE)


class GuestFault(Exception):
    """A host access to an address that no memory backs."""


def anonymous(size: int) -> mmap.mmap:
    """Zeroed memory of this process alone; what is never touched costs nothing.

    Private where there is the choice: the system then knows at once what was never touched, and counts what it swaps out.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class PhysicalMemory:
    """RAM at RAM_BASE and one more region of ordinary memory (`page`), which the engine sees as a device."""

    def __init__(self, ram: mmap.mmap, page_base: int, page_size: int) -> None:
        self.ram = ram
        self.page_base = page_base
        self.page = bytearray(page_size)

    def _place(self, ipa: int, size: int) -> tuple[mmap.mmap | bytearray, int]:
        if RAM_BASE <= ipa and ipa + size <= RAM_BASE + len(self.ram):
            return self.ram, ipa - RAM_BASE
        if self.page_base <= ipa and ipa + size <= self.page_base + len(self.page):
            return self.page, ipa - self.page_base
        raise GuestFault(f"no memory at {ipa:#x}")

    def read_bytes(self, ipa: int, size: int) -> bytes:
        """Errors: GuestFault."""
        buffer, at = self._place(ipa, size)
        return bytes(buffer[at : at + size])

    def write_bytes(self, ipa: int, data: Page) -> None:
        """Errors: GuestFault."""
        buffer, at = self._place(ipa, len(data))
        buffer[at : at + len(data)] = data

    def read(self, ipa: int, size: int) -> int:
        """A little-endian value of 1 to 8 bytes. Errors: GuestFault."""
        return int.from_bytes(self.read_bytes(ipa, size), "little")

    def write(self, ipa: int, size: int, value: int) -> None:
        """Store a little-endian value of 1 to 8 bytes. Errors: GuestFault."""
        self.write_bytes(ipa, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Non-zero 4 KiB pages as (ipa >> 12, content), ascending. Pages that nobody ever touched are not read."""
        for at in range(0, len(self.page), PAGE_SIZE):
            content = bytes(self.page[at : at + PAGE_SIZE])
            if content != _ZERO_PAGE:
                yield (self.page_base + at) >> 12, content
        for index in _touched_pages(self.ram):
            content = self.ram[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
            if content != _ZERO_PAGE:
                yield (RAM_BASE >> 12) + index, content

    def digest(self) -> bytes:
        """SHA-256 over (u64 page index, SHA-256 of the page) of all non-zero pages. Spec: SPEC "Portable state digests"."""
        total = hashlib.sha256()
        for index, content in self.pages():
            total.update(struct.pack("<Q", index) + hashlib.sha256(content).digest())
        return total.digest()


def _touched_pages(ram: mmap.mmap) -> Iterator[int]:
    """Page numbers that may be non-zero: those resident, where the system tells (mincore), else all."""
    count = len(ram) // PAGE_SIZE
    system_page = mmap.PAGESIZE
    if sys.platform == "linux" and system_page % PAGE_SIZE == 0:
        system_count = (len(ram) + system_page - 1) // system_page
        resident = (ctypes.c_ubyte * system_count)()
        pin = ctypes.c_char.from_buffer(ram)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(pin)), ctypes.c_size_t(len(ram)), resident)
        del pin
        has_swap = may_be_swapped()
        if not failed and not has_swap:
            per = system_page // PAGE_SIZE
            flags = bytes(resident).translate(_RESIDENT)
            at = flags.find(1)
            while at >= 0:
                yield from range(at * per, min((at + 1) * per, count))
                at = flags.find(1, at + 1)
            return
    yield from range(count)


_RESIDENT = bytes(value & 1 for value in range(256))  # bit 0 of mincore's answer; the rest is undefined


def may_be_swapped() -> bool:
    """A page that was swapped out is not resident, yet not zero."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return any(line.startswith("VmSwap:") and int(line.split()[1]) > 0 for line in status)
    except OSError:
        return True
