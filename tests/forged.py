"""Traces that say what did not happen: every hash is right, a row, a checkpoint or an image is another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from tracekit.formats.arrow import rows_of
from tracekit.formats.checkpoint_file import SPACE_SHIFT, SPACES_MAX
from tracekit.formats.checkpoints import Checkpoints
from tracekit.formats.errors import TracekitError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import TraceWriter

Rows = Callable[[str, tuple[Any, ...]], tuple[Any, ...] | None]
Pages = dict[int, bytes]
Point = Callable[[int, dict[str, Any], Pages], dict[str, Any] | None]


def forged(
    source: Path,
    target: Path,
    *,
    rows: Rows | None = None,
    point: Point | None = None,
    image: Callable[[bytes], bytes] | None = None,
) -> Path:
    """A copy of a trace. rows: gives another row, or None to leave it out. point: changes a checkpoint's state and pages in place, or gives
    `position`, `sequence` or `vtime_ns` of it anew. image: of each image's content."""
    trace = Trace.open(source)
    dropped = ("digest", "tables", "complete", "end", "images", "format", "checkpoints")
    manifest = {key: value for key, value in trace.manifest.items() if key not in dropped}
    writer = TraceWriter(target, manifest)
    names: dict[str, str] = {}
    for one in trace.manifest["images"]:
        content = trace.image(one["sha256"])
        content = image(content) if image else content
        writer.add_image(one["role"], one["name"], content)
        names[one["sha256"]] = hashlib.sha256(content).hexdigest()
    machine = manifest["machine"]
    segments = [{**one, "image": names[one["image"]]} for one in machine["segments"]]
    writer.set(machine={**machine, "segments": segments})
    for name in TABLES:
        for batch in trace.batches(name):
            for row in rows_of(batch):
                changed = rows(name, row) if rows else row
                if changed is not None:
                    writer.append(name, changed)
    checkpoints = trace.checkpoints()
    for k, entry in enumerate(checkpoints.entries):
        state, pages = checkpoints.state(k), pages_of(checkpoints, k)
        place = (point(k, state, pages) if point else None) or {}
        writer.add_checkpoint(
            place.get("position", entry.position),
            place.get("sequence", entry.sequence),
            place.get("vtime_ns", entry.vtime_ns),
            state,
            sorted(pages.items()),
        )
    writer.close(trace.manifest["end"])
    return target


def pages_of(checkpoints: Checkpoints, k: int) -> Pages:
    """What changed since the checkpoint before, by space and page."""
    out: Pages = {}
    for space in range(SPACES_MAX):
        places = {index: place for index, place in checkpoints.table(k, space).items() if place >> 32 == k}
        out |= {space << SPACE_SHIFT | index: page for index, page in checkpoints.read(places)}
    return out


def nth_row(table: str, nth: int, column: str, value: Any) -> Rows:
    """The nth row of a table has another value in a column: `value`, or what it gives for the old one."""
    index, count = TABLES[table].index(column), iter(range(1 << 40))

    def change(name: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if name != table or next(count) != nth:
            return row
        return (*row[:index], value(row[index]) if callable(value) else value, *row[index + 1 :])

    return change


class Here(Executor):
    """Runs each task at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*arguments, **named))
        except TracekitError as error:
            future.set_exception(error)
        return future
