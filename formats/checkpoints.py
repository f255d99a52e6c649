"""Checkpoints of a run: what the machine was at some marks, written and read. Spec: formats/SPEC.md "Checkpoints".

A checkpoint holds the machine's state and the pages that changed since the one before it; the newest version of a page at checkpoint k
is its last change at or before k, and a page that never changed is that of the initial memory.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracekit.formats import checkpoint_file as layout
from tracekit.formats.checkpoint_file import NO_PLACE, ZERO_DIGEST, ZERO_PAGE, Changes, Head
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.frames import deflate, inflate
from tracekit.formats.manifest import checkpoint_file

if TYPE_CHECKING:
    from tracekit.formats.reader import Trace

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


# --- writing ------------------------------------------------------------------------------------------------------------------


class CheckpointWriter:
    """Writes checkpoint files into a trace's folder. Errors of its methods: OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: list[Entry] = []

    def add(
        self,
        position: int,
        sequence: int,
        vtime_ns: int,
        state: Mapping[str, Any],
        changes: Iterable[tuple[int, Page]],
    ) -> Entry:
        """Write one. changes: (index, page of 4096 bytes), indices ascending; a page is read once, when its turn comes."""
        pages = _Pages()
        for index, page in changes:
            pages.add(index, page)
        changed, frames = pages.finish()
        raw = layout.encode_file(position, sequence, vtime_ns, layout.encode_state(dict(state)), changed, frames)
        return self._listed(Entry(position, sequence, vtime_ns, self._store(raw), len(raw), len(changed.indices)))

    def adopt(self, entry: Entry, raw: bytes) -> None:
        """Take a file of another trace of the same run as it is; those before it must have been taken already."""
        assert self._store(raw) == entry.file
        self._listed(entry)

    def _listed(self, entry: Entry) -> Entry:
        assert not self.entries or self.entries[-1].position < entry.position
        self.entries.append(entry)
        return entry

    def _store(self, raw: bytes) -> str:
        name = checkpoint_file(hashlib.sha256(raw).hexdigest())
        target = self._folder / name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".new")
        temporary.write_bytes(raw)
        os.replace(temporary, target)
        return name


class _Pages:
    """Gathers changed pages into frames; equal pages are kept once."""

    def __init__(self) -> None:
        self._indices, self._places = array("I"), array("I")
        self._digests: list[bytes] = []
        self._frames: list[bytes] = []
        self._frame_pages = array("I")
        self._waiting: list[Page] = []
        self._known: dict[bytes, int] = {ZERO_DIGEST: NO_PLACE}

    def add(self, index: int, page: Page) -> None:
        digest = hashlib.sha256(page).digest()
        place = self._known.get(digest)
        if place is None:
            place = len(self._frames) << 4 | len(self._waiting)
            self._known[digest] = place
            self._waiting.append(page)
            if len(self._waiting) == layout.FRAME_PAGES_MAX:
                self._flush()
        self._indices.append(index)
        self._places.append(place)
        self._digests.append(digest)

    def _flush(self) -> None:
        self._frames.append(deflate(b"".join(self._waiting)))
        self._frame_pages.append(len(self._waiting))
        self._waiting.clear()

    def finish(self) -> tuple[Changes, list[bytes]]:
        if self._waiting:
            self._flush()
        lengths = array("I", map(len, self._frames))
        return Changes(self._indices, self._places, lengths, self._frame_pages, b"".join(self._digests)), self._frames


# --- reading ------------------------------------------------------------------------------------------------------------------


class Checkpoints:
    """The checkpoints of an open trace. What a method reads of a file is checked first; errors of all: TraceDamaged, naming it.

    A page index is ipa >> 12. `space` 0 is the machine's memory, n + 1 that of the state's n-th kept snapshot, which is all zeros but for
    the pages in it.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.entries = entries_of(trace.manifest)
        machine = trace.manifest.get("machine", {})
        base, size = int(machine.get("ram_base", 0)), int(machine.get("ram_size", 0))
        ram = max(base >> 12, PVTIME_PAGES[1]), min(base + size >> 12, layout.SPACE_MASK + 1)
        self._ranges = (PVTIME_PAGES, (ram[0], max(ram)))
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
        changes, head = self._changes_of(k), self._head(k)
        offsets = changes.frame_offsets()
        frame, pages = -1, [ZERO_PAGE]
        last, digest = -1, b""
        for place, row, index in wanted:
            if place == NO_PLACE:
                page, digest = ZERO_PAGE, ZERO_DIGEST
            else:
                with self._naming(k):
                    if place >> 4 != frame:
                        frame = place >> 4
                        stored = self._read(k, head.frames_offset + offsets[frame], changes.frame_bytes[frame])
                        pages = layout.split_pages(stored, changes.frame_pages[frame])
                page = pages[place & 15]
                if place != last:
                    last, digest = place, hashlib.sha256(page).digest()
            if digest != changes.digest(row):
                raise TraceDamaged(f"{self._where(k)}: page {index:#x} is not the one that its digest says")
            yield index, page

    def check(self, k: int) -> None:
        """Everything in one file: its own hash, its form, the state's form, each page."""
        self.state(k)
        changes, head = self._changes_of(k), self._head(k)
        for _ in self._read_pages(k, sorted(zip(changes.places, range(head.changes), changes.indices, strict=True))):
            pass

    def check_hash(self, k: int) -> None:
        """Its bytes are those that its name says."""
        name = self.entries[k].file
        if checkpoint_file(self._trace.hash_of(name)) != name:
            raise TraceDamaged(f"{self._where(k)}: altered (SHA-256 does not agree)")

    def raw(self, k: int) -> bytes:
        """The file as it is, checked."""
        self.check_hash(k)
        return self._read(k, 0, self.entries[k].bytes)

    # --- one file -------------------------------------------------------------------------------------------------------------

    def _where(self, k: int) -> str:
        entry = self.entries[k]
        return f"{self._trace.path}/{FOLDER}/{entry.file[len(FOLDER) + 1 :][:12]}: checkpoint {k} (position {entry.position})"

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
                self._changes[k] = Changes.decode(raw, head, self._ranges, self.entries[k].bytes)
        return self._changes[k]
