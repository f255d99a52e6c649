"""Checkpoints of a run as they are written, thinned, and listed in the journal. Spec: formats/SPEC.md "Checkpoints"."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tracekit.formats import checkpoint_file as layout
from tracekit.formats.checkpoint_file import NO_PLACE, ZERO_DIGEST, Changes, Head
from tracekit.formats.checkpoints import Entry, Page
from tracekit.formats.frames import Deflater
from tracekit.formats.manifest import CHECKPOINTS_MAX, check_checkpoint, checkpoint_file
from tracekit.formats.thinning import merged


class CheckpointWriter:
    """Writes checkpoint files into a trace's folder, at most CHECKPOINTS_MAX of them. Errors of its methods: OSError.

    When one more is due, every second is merged into its successor. Files that a journal line may still speak of stay until two lines
    later, so that a crash at any moment leaves all that the last line lists, and all that the line before it lists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: list[Entry] = []
        self._new: list[Entry] = []  # since the last journal line
        self._dropped: list[str] = []  # files that are listed no more, since the last journal line
        self._leaving: list[str] = []  # the same, before the last line

    def add(
        self, position: int, sequence: int, vtime_ns: int, state: Mapping[str, Any], changes: Iterable[tuple[int, Page]]
    ) -> Entry:
        """Write one. changes: (index, page of 4096 bytes), indices ascending; a page is read once, when its turn comes.

        Errors: ValueError where state or changes are larger than a reader takes.
        """
        pages = ChangedPages()
        for index, page in changes:
            pages.add(index, page)
        return self.add_pages(position, sequence, vtime_ns, state, pages)

    def add_pages(self, position: int, sequence: int, vtime_ns: int, state: Mapping[str, Any], pages: ChangedPages) -> Entry:
        """As add(), with pages that have been gathered already."""
        changed, frames = pages.finish()
        return self._take(layout.encode_file(position, sequence, vtime_ns, layout.encode_state(state), changed, frames))

    def adopt(self, raw: bytes) -> Entry:
        """Take a checked file of another trace of the same run as it is; those before it must have been taken already."""
        return self._take(raw)

    def _take(self, raw: bytes) -> Entry:
        if len(self.entries) >= CHECKPOINTS_MAX:
            self._thin()
        entry = self._stored(raw)
        assert not self.entries or self.entries[-1].position < entry.position, "checkpoints must be taken in order"
        self.entries.append(entry)
        self._new.append(entry)
        return entry

    def _thin(self) -> None:
        before, self.entries = self.entries, []
        for older, newer in zip(before[::2], before[1::2], strict=True):
            raw = merged((self._folder / older.file).read_bytes(), (self._folder / newer.file).read_bytes())
            self.entries.append(self._stored(raw))
        listed = {
            entry.file for entry in self.entries
        }  # where the older one told nothing of its own, the newer one stays as it is
        self._dropped += [entry.file for entry in before if entry.file not in listed]
        self._new = list(self.entries)

    def _stored(self, raw: bytes) -> Entry:
        name = checkpoint_file(hashlib.sha256(raw).hexdigest())
        target = self._folder / name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".new")
        temporary.write_bytes(raw)
        os.replace(temporary, target)
        head = Head.decode(raw, len(raw))
        return Entry(head.position, head.sequence, head.vtime_ns, name, len(raw), head.changes)

    def journal(self) -> dict[str, Any]:
        """What the next journal line says of checkpoints: those that are new, and the files that are listed no more."""
        line: dict[str, Any] = {}
        if self._new:
            line["checkpoints"] = [entry.describe() for entry in self._new]
        if self._dropped:
            line["dropped"] = list(self._dropped)
        return line

    def journalled(self) -> None:
        """That line is written."""
        for name in self._leaving:
            (self._folder / name).unlink(missing_ok=True)
        self._leaving, self._dropped, self._new = self._dropped, [], []

    def finish(self) -> list[dict[str, Any]]:
        """The manifest's list; files that it does not name are removed."""
        for name in (*self._leaving, *self._dropped):
            (self._folder / name).unlink(missing_ok=True)
        return [entry.describe() for entry in self.entries]


class Listed:
    """What the lines of a journal list."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        """The next line. Errors: KeyError, TypeError, ValueError, AttributeError, and nothing of it is taken."""
        new = [Entry(**check_checkpoint(one)) for one in line.get("checkpoints", ())]
        for name in [str(name) for name in line.get("dropped", ())]:
            self._entries.pop(name, None)
        self._entries |= {one.file: one for one in new}

    def all(self) -> list[Entry]:
        """By position."""
        return sorted(self._entries.values(), key=lambda entry: entry.position)


class ChangedPages:
    """Gathers changed pages into frames; equal pages are kept once."""

    def __init__(self) -> None:
        self._indices, self._places = array("I"), array("I")
        self._digests: list[bytes] = []
        self._deflater = Deflater()
        self._frames: list[bytes] = []
        self._frame_pages = array("I")
        self._waiting: list[Page] = []
        self._known: dict[bytes, int] = {ZERO_DIGEST: NO_PLACE}

    def add(self, index: int, page: Page) -> None:
        """One more page; it is kept until a frame is full."""
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
        self._frames.append(self._deflater.frame(b"".join(self._waiting)))
        self._frame_pages.append(len(self._waiting))
        self._waiting.clear()

    def finish(self) -> tuple[Changes, list[bytes]]:
        """What was gathered, and the frames' bytes."""
        if self._waiting:
            self._flush()
        lengths = array("I", map(len, self._frames))
        return Changes(self._indices, self._places, lengths, self._frame_pages, b"".join(self._digests)), self._frames
