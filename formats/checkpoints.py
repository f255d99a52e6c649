"""Checkpoints of a run: what the machine was at some marks, as they are read. Spec: formats/SPEC.md "Checkpoints".

A checkpoint holds the machine's state and the pages that changed since the one before it; the newest version of a page at checkpoint k
is its last change at or before k, and a page that never changed is that of the initial memory.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tracekit.formats import checkpoint_file as layout
from tracekit.formats.checkpoint_file import NO_PLACE, ZERO_DIGEST, ZERO_PAGE, Changes, Head
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.frames import Inflater, inflate
from tracekit.formats.manifest import checkpoint_file

if TYPE_CHECKING:
    from tracekit.formats.reader import Trace
    from tracekit.formats.writer import TraceWriter

FOLDER = "checkpoints"
PVTIME_PAGES = (0x090A_0000 >> 12, 0x090B_0000 >> 12)  # the dedicated page of stolen-time structures, 64 KiB

Page = bytes | bytearray | memoryview
Place = int  # checkpoint << 32 | row of its changes: where a page's content is to be had


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint in the manifest: the machine before event (position, sequence). bytes: of its file; pages: that changed."""

    position: int
    sequence: int
    vtime_ns: int
    file: str
    bytes: int
    pages: int

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def entries_of(manifest: Mapping[str, Any]) -> tuple[Entry, ...]:
    """What a checked manifest lists; nothing in traces before 1.2."""
    return tuple(Entry(**one) for one in manifest.get("checkpoints", ()))


class Checkpoints:
    """The checkpoints of an open trace. What a method reads of a file is checked first; errors of all: TraceDamaged, naming it.

    A page index is ipa >> 12. `space` 0 is the machine's memory, n + 1 that of the state's n-th kept snapshot, which is all zeros but for
    the pages in it.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.entries = entries_of(trace.manifest)
        self._heads: dict[int, Head] = {}
        self._changes: dict[int, Changes] = {}

    def at_or_before(self, position: int) -> int | None:
        """The last checkpoint at or before a position; None where there is none."""
        count = bisect_right(self.entries, position, key=lambda entry: entry.position)
        return count - 1 if count else None

    def state(self, k: int) -> dict[str, Any]:
        """The machine's state and what else a replay needs to go on, as it was written."""
        head = self._head(k)
        with self._naming(k):
            stored = self._read(k, head.state_offset, head.state_stored)
            return layout.decode_state(inflate(stored, head.state_bytes))

    def changes(self, k: int, space: int = 0) -> list[tuple[int, bytes]]:
        """(index, SHA-256 of the page) of every page that changed since checkpoint k - 1, ascending."""
        changes = self._changes_of(k)
        return [(changes.indices[row] & layout.SPACE_MASK, changes.digest(row)) for row in changes.rows(space)]

    def table(self, k: int, space: int = 0) -> dict[int, Place]:
        """index -> place of the newest version at checkpoint k of every page that has changed since the beginning."""
        table: dict[int, Place] = {}
        base = space << layout.SPACE_SHIFT
        for j in range(k + 1):
            changes = self._changes_of(j)
            rows = changes.rows(space)
            indices = changes.indices[rows.start : rows.stop]
            if base:
                indices = array("I", (index - base for index in indices))
            table.update(zip(indices, range(j << 32 | rows.start, j << 32 | rows.stop), strict=True))
        return table

    def digest(self, place: Place) -> bytes:
        """SHA-256 of the page at a place."""
        return self._changes_of(place >> 32).digest(place & 0xFFFF_FFFF)

    def read(self, places: Mapping[int, Place]) -> Iterator[tuple[int, bytes]]:
        """(index, page) of each place, in the order of the files: every frame is read once. A page that fails its digest is never given."""
        wanted: dict[int, list[tuple[int, int, int]]] = {}  # by checkpoint: (place in its file, row, index)
        for index, place in places.items():
            k, row = place >> 32, place & 0xFFFF_FFFF
            wanted.setdefault(k, []).append((self._changes_of(k).places[row], row, index))
        for k in sorted(wanted):
            yield from self._read_pages(k, sorted(wanted[k]))

    def _read_pages(self, k: int, wanted: list[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
        changes, inflater = self._changes_of(k), Inflater()
        digests, offsets = changes.digests, changes.frame_offsets()
        frame, pages = -1, [ZERO_PAGE]
        last, page, digest = NO_PLACE, ZERO_PAGE, ZERO_DIGEST
        for place, row, index in wanted:
            if place != last:
                if place == NO_PLACE:
                    page, digest = ZERO_PAGE, ZERO_DIGEST
                else:
                    if place >> 4 != frame:
                        frame = place >> 4
                        pages = self._frame(k, frame, offsets[frame], inflater)
                    page = pages[place & 15]
                    digest = hashlib.sha256(page).digest()
                last = place
            if digest != digests[row * layout.DIGEST_BYTES : (row + 1) * layout.DIGEST_BYTES]:
                raise TraceDamaged(f"{self._where(k)}: page {index:#x} is not the one that its digest says")
            yield index, page

    def _frame(self, k: int, frame: int, offset: int, inflater: Inflater) -> list[bytes]:
        changes = self._changes_of(k)
        with self._naming(k):
            stored = self._read(k, self._head(k).frames_offset + offset, changes.frame_bytes[frame])
            return layout.split_pages(stored, changes.frame_pages[frame], inflater)

    def check(self, k: int) -> None:
        """Everything in one file: its own hash, its form, the state's form, each page."""
        self.state(k)
        changes, head = self._changes_of(k), self._head(k)
        for _ in self._read_pages(k, sorted(zip(changes.places, range(head.changes), changes.indices, strict=True))):
            pass

    def check_hash(self, k: int) -> None:
        """Its bytes are those that its name says."""
        name, wanted = self.entries[k].file, self.entries[k].bytes
        size = self._trace.store.size(name)
        if size != wanted:
            raise TraceDamaged(f"{self._where(k)}: {'missing' if size is None else f'{size} bytes instead of {wanted}'}")
        if checkpoint_file(self._trace.hash_of(name)) != name:
            raise TraceDamaged(f"{self._where(k)}: altered (SHA-256 does not agree)")

    def raw(self, k: int) -> bytes:
        """The file as it is, checked."""
        self.check_hash(k)
        return self._read(k, 0, self.entries[k].bytes)

    def _ranges(self) -> tuple[tuple[int, int], ...]:
        """Page indices that memory backs."""
        machine = self._trace.manifest.get("machine", {})
        try:
            base, size = int(machine["ram_base"]), int(machine["ram_size"])
        except (KeyError, TypeError, ValueError):
            raise ValueError("the manifest does not say where RAM is") from None
        ram = max(base >> 12, PVTIME_PAGES[1]), min(base + size >> 12, layout.SPACE_MASK + 1)
        return PVTIME_PAGES, (ram[0], max(ram))

    # --- one file -------------------------------------------------------------------------------------------------------------

    def _where(self, k: int) -> str:
        entry = self.entries[k]
        return f"{self._trace.path}/{entry.file}: checkpoint {k} (position {entry.position})"

    @contextmanager
    def _naming(self, k: int) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise TraceDamaged(f"{self._where(k)}: {error}") from None

    def _read(self, k: int, offset: int, length: int) -> bytes:
        raw = self._trace.store.read(self.entries[k].file, offset, length)
        if len(raw) != length:
            raise TraceDamaged(f"{self._where(k)}: cut short")
        return raw

    def _head(self, k: int) -> Head:
        if k not in self._heads:
            self.check_hash(k)
            entry = self.entries[k]
            with self._naming(k):
                head = Head.decode(self._read(k, 0, min(layout.HEADER_BYTES, entry.bytes)), entry.bytes)
                told = Entry(head.position, head.sequence, head.vtime_ns, entry.file, entry.bytes, head.changes)
                if told != entry:
                    raise ValueError("its header is not what the manifest says of it")
            self._heads[k] = head
        return self._heads[k]

    def _changes_of(self, k: int) -> Changes:
        if k not in self._changes:
            head = self._head(k)
            with self._naming(k):
                stored = self._read(k, head.changes_offset, head.changes_stored)
                raw = inflate(stored, head.changes_bytes)
                self._changes[k] = Changes.decode(raw, head, self._ranges(), self.entries[k].bytes)
        return self._changes[k]


def copy_checkpoints(trace: Trace, writer: TraceWriter, count: int | None = None) -> None:
    """Take the first `count` checkpoints (None: all) of another trace of the same run. Errors: TraceDamaged, DiskError."""
    checkpoints = Checkpoints(trace)
    for k in range(len(checkpoints.entries) if count is None else count):
        writer.adopt_checkpoint(checkpoints.raw(k))
