"""Two checkpoints that follow each other become one: the later one, with the changes of both. Spec: formats/SPEC.md "Checkpoints"."""

from __future__ import annotations

from array import array
from itertools import pairwise

from tracekit.formats import checkpoint_file as layout
from tracekit.formats.checkpoint_file import NO_PLACE, SPACE_MASK, Changes, Head
from tracekit.formats.frames import inflate


def merged(older: bytes, newer: bytes) -> bytes:
    """The file that takes the place of both. Frames in which a page is still needed go over as they are stored. Errors: ValueError."""
    before, before_frames = _parts(older)
    after, after_frames = _parts(newer)
    head = Head.decode(newer, len(newer))
    places = {after.digest(row): place for row, place in enumerate(after.places)}
    superseded = set(after.indices)
    kept = [row for row, index in enumerate(before.indices) if index not in superseded]
    needed = sorted({before.places[row] >> 4 for row in kept if _is_only_there(before, row, places)})
    number = {frame: at for at, frame in enumerate(needed)}
    rows = [
        (index, (place + (len(needed) << 4)) if place != NO_PLACE else NO_PLACE, after.digest(row))
        for row, (index, place) in enumerate(zip(after.indices, after.places, strict=True))
    ]
    for row in kept:
        place, digest = before.places[row], before.digest(row)
        if _is_only_there(before, row, places):
            place = number[place >> 4] << 4 | place & 15
        elif place != NO_PLACE:
            place = places[digest] + (len(needed) << 4)
        rows.append((before.indices[row], place, digest))
    rows.sort()
    changes = Changes(
        indices=array("I", (index for index, _, _ in rows)),
        places=array("I", (place for _, place, _ in rows)),
        frame_bytes=array("I", (*(before.frame_bytes[frame] for frame in needed), *after.frame_bytes)),
        frame_pages=array("I", (*(before.frame_pages[frame] for frame in needed), *after.frame_pages)),
        digests=b"".join(digest for _, _, digest in rows),
    )
    state = inflate(newer[head.state_offset : head.changes_offset], head.state_bytes)
    frames = [*(before_frames[frame] for frame in needed), *after_frames]
    return layout.encode_file(head.position, head.sequence, head.vtime_ns, state, changes, frames)


def _is_only_there(before: Changes, row: int, places: dict[bytes, int]) -> bool:
    """Whether a row's page lies in the older file and has no equal in the newer one."""
    return before.places[row] != NO_PLACE and before.digest(row) not in places


def _parts(raw: bytes) -> tuple[Changes, list[bytes]]:
    head = Head.decode(raw, len(raw))
    stored = raw[head.changes_offset : head.frames_offset]
    changes = Changes.decode(inflate(stored, head.changes_bytes), head, ((0, SPACE_MASK + 1),), len(raw))
    offsets = changes.frame_offsets()
    return changes, [raw[head.frames_offset + begin : head.frames_offset + end] for begin, end in pairwise(offsets)]
