"""The bytes of one checkpoint file: header, state, changes, frames of pages. Spec: formats/SPEC.md "Checkpoints".

Numbers are little-endian. Nothing here knows of other checkpoints; what is read is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from operator import lt
from typing import Any

from tracekit.formats.frames import Inflater, deflate
from tracekit.formats.manifest import canonical

MAGIC = b"tkt-cp\x01\n"
PAGE_BYTES = 4096
FRAME_PAGES_MAX = 16
STATE_BYTES_MAX = 64 << 20
CHANGES_MAX = 1 << 23
SPACE_SHIFT = 24  # a change's upper bits: 0 the machine's memory, n + 1 that of its n-th kept snapshot
SPACE_MASK = (1 << SPACE_SHIFT) - 1
SPACES_MAX = 65
NO_PLACE = 0xFFFF_FFFF  # of a page that is all zeros
ZERO_PAGE = bytes(PAGE_BYTES)
ZERO_DIGEST = hashlib.sha256(ZERO_PAGE).digest()
DIGEST_BYTES = 32
_HEADER = struct.Struct("<8sQQ6I")
HEADER_BYTES = _HEADER.size

Ranges = Sequence[tuple[int, int]]  # page indices that memory backs, half-open, ascending


@dataclass(frozen=True, slots=True)
class Head:
    """The header. stored: bytes in the file; `changes` and `frames` are counts."""

    position: int
    vtime_ns: int
    sequence: int
    state_stored: int
    state_bytes: int
    changes_stored: int
    changes: int
    frames: int

    @property
    def changes_bytes(self) -> int:
        """Length of the changes when they are unpacked."""
        return self.changes * (8 + DIGEST_BYTES) + self.frames * 8

    @property
    def state_offset(self) -> int:
        """Where the state's frame begins."""
        return HEADER_BYTES

    @property
    def changes_offset(self) -> int:
        """Where the frame of changes begins."""
        return HEADER_BYTES + self.state_stored

    @property
    def frames_offset(self) -> int:
        """Where the frames of pages begin."""
        return self.changes_offset + self.changes_stored

    def encode(self) -> bytes:
        """The header's bytes."""
        return _HEADER.pack(
            MAGIC, self.position, self.vtime_ns, self.sequence, self.state_stored, self.state_bytes,
            self.changes_stored, self.changes, self.frames,
        )  # fmt: skip

    @classmethod
    def decode(cls, raw: bytes, file_bytes: int) -> Head:
        """Errors: ValueError where it is none, or speaks of more than the file has."""
        if len(raw) < HEADER_BYTES or raw[: len(MAGIC)] != MAGIC:
            raise ValueError("it does not begin as a checkpoint does")
        head = cls(*_HEADER.unpack_from(raw)[1:])
        if head.state_bytes > STATE_BYTES_MAX:
            raise ValueError(f"a state of {head.state_bytes} bytes; at most {STATE_BYTES_MAX} are read")
        if head.changes > CHANGES_MAX:
            raise ValueError(f"{head.changes} changed pages; at most {CHANGES_MAX} are read")
        if head.frames > head.changes or head.frames_offset > file_bytes:
            raise ValueError("its header speaks of more than there is")
        return head


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the checkpoint before: row i says that page `indices[i]` has `digest(i)` and lies at `places[i]`.

    indices: ascending; places: frame << 4 | slot, or NO_PLACE. frame_bytes: stored length of each frame; frame_pages: pages in it.
    """

    indices: array[int]
    places: array[int]
    frame_bytes: array[int]
    frame_pages: array[int]
    digests: bytes

    def digest(self, row: int) -> bytes:
        """SHA-256 of a row's page."""
        return self.digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]

    def rows(self, space: int) -> range:
        """The rows of one space."""
        return range(bisect_left(self.indices, space << SPACE_SHIFT), bisect_left(self.indices, (space + 1) << SPACE_SHIFT))

    def frame_offsets(self) -> list[int]:
        """Where each frame begins, counted from the first, and behind the last where all end."""
        return list(accumulate(self.frame_bytes, initial=0))

    def encode(self) -> bytes:
        """The bytes that the frame of changes holds."""
        columns = (self.indices, self.places, self.frame_bytes, self.frame_pages)
        return b"".join(_little(column).tobytes() for column in columns) + self.digests

    @classmethod
    def decode(cls, raw: bytes, head: Head, ranges: Ranges, file_bytes: int) -> Changes:
        """Errors: ValueError where a row is out of order, outside memory, or of a page that the file does not have."""
        ends = accumulate((4 * head.changes, 4 * head.changes, 4 * head.frames, 4 * head.frames), initial=0)
        indices, places, frame_bytes, frame_pages = (_column(raw[begin:end]) for begin, end in pairwise(ends))
        changes = cls(indices, places, frame_bytes, frame_pages, raw[8 * (head.changes + head.frames) :])
        changes._check(head, ranges, file_bytes)
        return changes

    def _check(self, head: Head, ranges: Ranges, file_bytes: int) -> None:
        indices = self.indices
        if not all(map(lt, indices, islice(indices, 1, None))):
            raise ValueError("its pages are not in ascending order")
        if indices and indices[-1] >> SPACE_SHIFT >= SPACES_MAX:
            raise ValueError(f"a page of space {indices[-1] >> SPACE_SHIFT}; there are at most {SPACES_MAX}")
        spaces = indices[-1] >> SPACE_SHIFT if indices else 0
        inside = 0
        for space in range(spaces + 1):
            for begin, end in ranges:
                base = space << SPACE_SHIFT
                inside += bisect_left(indices, base + end) - bisect_left(indices, base + begin)
        if inside != len(indices):
            raise ValueError("it speaks of a page where the machine has no memory")
        if any(not 1 <= pages <= FRAME_PAGES_MAX for pages in self.frame_pages):
            raise ValueError(f"a frame has 1 to {FRAME_PAGES_MAX} pages")
        if head.frames_offset + sum(self.frame_bytes) != file_bytes:
            raise ValueError("its frames do not fill it")
        frame_pages, held = self.frame_pages, len(self.frame_pages) << 4
        if any(place & 15 >= frame_pages[place >> 4] if place < held else place != NO_PLACE for place in set(self.places)):
            raise ValueError("it speaks of a page that it does not hold")


def _column(raw: bytes) -> array[int]:
    column = array("I")
    column.frombytes(raw)
    return _little(column)


def _little(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column = array("I", column)
        column.byteswap()
    return column


def encode_file(position: int, sequence: int, vtime_ns: int, state: bytes, changes: Changes, frames: Sequence[bytes]) -> bytes:
    """A whole file. state: canonical JSON; frames: as they are stored. Errors: ValueError."""
    if len(state) > STATE_BYTES_MAX:
        raise ValueError(f"a state of {len(state)} bytes; at most {STATE_BYTES_MAX} are kept")
    if len(changes.indices) > CHANGES_MAX:
        raise ValueError(f"{len(changes.indices)} changed pages; at most {CHANGES_MAX} are kept")
    state_frame, changes_frame = deflate(state), deflate(changes.encode())
    head = Head(position, vtime_ns, sequence, len(state_frame), len(state), len(changes_frame), len(changes.indices), len(frames))
    return b"".join((head.encode(), state_frame, changes_frame, *frames))


def encode_state(state: Mapping[str, Any]) -> bytes:
    """A state as the file keeps it."""
    return canonical(dict(state))


def decode_state(raw: bytes) -> dict[str, Any]:
    """Errors: ValueError where it is no JSON object in canonical form."""
    try:
        state = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("its state is no JSON") from None
    if not isinstance(state, dict) or canonical(state) != raw:
        raise ValueError("its state is no canonical JSON object")
    return state


def split_pages(stored: bytes, pages: int, inflater: Inflater) -> list[bytes]:
    """The pages of a frame. Errors: ValueError."""
    raw = inflater.content(stored, pages * PAGE_BYTES)
    return [raw[at : at + PAGE_BYTES] for at in range(0, len(raw), PAGE_BYTES)]
