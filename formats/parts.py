"""Part of a trace's thick tables: made by one worker, checked and merged by another. A part is a folder that nobody keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from tracekit.formats import arrow
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.storage import disk_errors
from tracekit.formats.table_writer import TableWriter
from tracekit.formats.tables import TABLES, THICK_SEQUENCE
from tracekit.formats.thick import clipped, rows_before

Entries = dict[str, Any]  # of a part's tables, as in a manifest


class PartWriter:
    """Takes captured rows of some tables, and keeps those at positions [from_position, to_position) (None: to the end)."""

    def __init__(self, folder: Path, tables: Sequence[str], from_position: int, to_position: int | None) -> None:
        """The folder is there and empty. Errors: DiskError."""
        self._folder = folder
        self._from, self._to = from_position, to_position
        with disk_errors(folder):
            self._tables = {name: TableWriter(folder, name) for name in tables}

    def append(self, table: str, row: arrow.Row) -> None:
        """A row of a thin capture: the recorded trace has it."""

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Captured rows as raw columns. Errors: DiskError."""
        writer = self._tables.get(table)
        if writer is None or not count:
            return
        seen = arrow.batch_from_columns(table, columns, count, borrow=True)
        if seen.column(0)[count - 1].as_py() < self._from:
            return
        batch = clipped(arrow.batch_from_columns(table, columns, count), self._from, self._to)
        if batch.num_rows:
            with disk_errors(self._folder):
                writer.add_batch(batch)

    def close(self) -> Entries:
        """Everything is in the files. Errors: DiskError."""
        with disk_errors(self._folder):
            for writer in self._tables.values():
                writer.close()
        return {name: writer.describe() for name, writer in self._tables.items()}

    def abandon(self) -> None:
        """Close the files, whatever is in them."""
        for writer in self._tables.values():
            writer.abandon()


def part_batches(folder: Path, table: str, entries: Entries) -> Iterator[Any]:
    """The rows of a part, batch by verified batch. Errors: TraceDamaged where the disk gives back something else."""
    entry = entries[table]
    with (folder / TABLES[table].file).open("rb") as file:
        prelude = file.read(entry["prelude"]["length"])
        for batch in entry["batches"]:
            file.seek(batch["offset"])
            raw = file.read(batch["length"])
            if hashlib.sha256(raw).hexdigest() != batch["sha256"]:
                raise TraceDamaged(f"{folder / TABLES[table].file}: altered since it was written (SHA-256 does not agree)")
            yield arrow.decode_batch(table, prelude, raw)


class RecordedRows:
    """A cursor over the rows of a recorded table. thin_only: without those that only a thicker capture has."""

    def __init__(self, batches: Iterator[Any], *, thin_only: bool) -> None:
        self._batches = batches
        self._thin_only = thin_only
        self._ahead: Any = None

    def _peek(self) -> Any:
        while self._ahead is None or not self._ahead.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return None
            self._ahead = batch.filter(pc.less(batch.column(1), THICK_SEQUENCE)) if self._thin_only else batch
        return self._ahead

    def before(self, position: int | None) -> Iterator[Any]:
        """The rows before a position (None: all), as batches; they are behind the cursor then."""
        while (batch := self._peek()) is not None:
            count = batch.num_rows if position is None else rows_before(batch, position)
            if not count:
                return
            self._ahead = batch.slice(count)
            yield batch.slice(0, count)


def merged(table: str, recorded: RecordedRows, captured: Iterator[Any]) -> Iterator[Any]:
    """Captured batches with the recorded rows that belong before or among their rows, sorted. Those behind the last stay in the cursor."""
    for batch in captured:
        if not batch.num_rows:
            continue
        among = [arrow.normal(table, one) for one in recorded.before(batch.column(0)[-1].as_py() + 1)]
        if among:
            everything = arrow.joined(table, [*among, batch])
            order = pc.sort_indices(everything, sort_keys=[("position", "ascending"), ("sequence", "ascending")])
            batch = everything.take(order)
        yield batch
