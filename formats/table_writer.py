"""One table's file while it grows. Spec: formats/SPEC.md "Tables", "Recording, commits, journal"."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracekit.formats import arrow
from tracekit.formats.arrow import ArrowFile, Row
from tracekit.formats.pages import pages_entry
from tracekit.formats.tables import BATCH_ROWS, TABLES

REST_SUFFIX = ".rest"
_CHUNK = 1 << 20
_PIECES_MAX = 64  # each costs some KB, however few rows it has


class _HashedFile:
    """An Arrow file whose bytes are hashed as they come; each is read back once, while the system still holds it in memory."""

    def __init__(self, path: Path, table: str, *, compressed: bool = True) -> None:
        self.path = path
        self._table = table
        self._file = ArrowFile(str(path), table, compressed=compressed)
        self._back = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self._whole = hashlib.sha256()
        self._hashed = 0
        self.prelude = {"length": self._file.prelude_length, "sha256": self._hash(self._file.prelude_length)}

    def _hash(self, end: int) -> str:
        piece = hashlib.sha256()
        while self._hashed < end:
            os.lseek(self._back, self._hashed, os.SEEK_SET)
            chunk = os.read(self._back, min(_CHUNK, end - self._hashed))
            if not chunk:
                raise OSError(f"{self.path.name} is shorter than what was written to it")
            piece.update(chunk)
            self._whole.update(chunk)
            self._hashed += len(chunk)
        return piece.hexdigest()

    def write(self, batch: Any) -> dict[str, Any]:
        """Append a batch; gives its entry in the manifest."""
        offset, length = self._file.write(batch)
        sha256 = self._hash(offset + length)
        ranges = {**arrow.first_last(batch), **pages_entry(self._table, batch)}
        return {"offset": offset, "length": length, "rows": batch.num_rows, "sha256": sha256, **ranges}

    def close(self) -> tuple[int, str]:
        """Write the footer; gives size and SHA-256 of the whole file."""
        self._file.close()
        size = self.path.stat().st_size
        self._hash(size)
        self.abandon()
        return size, self._whole.hexdigest()

    def abandon(self) -> None:
        """Close without looking at what is in it; raises nothing."""
        if self._back >= 0:
            os.close(self._back)
            self._back = -1
            with suppress(OSError):
                self._file.close()


class TableWriter:
    """A table's file takes whole batches only. Rows that do not fill one wait in memory; a commit puts those into a file beside it."""

    def __init__(self, folder: Path, table: str) -> None:
        self.table = table
        self.path = folder / TABLES[table].file
        self._file = _HashedFile(self.path, table)
        self._rest: _HashedFile | None = None
        self._batches: list[dict[str, Any]] = []
        self._told = 0  # batches that a commit has listed
        self._pieces: list[Any] = []
        self._waiting = 0
        self._saved = 0  # pieces, from the first on, that the rest file holds
        self._end: tuple[int, str] | None = None

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Rows as tuples."""
        self.add_batch(arrow.batch_from_rows(self.table, rows))

    def add_columns(self, columns: Mapping[str, Any], count: int, *, is_lent: bool) -> None:
        """Rows as raw columns. Lent ones belong to the caller again when this returns."""
        is_written_at_once = count == BATCH_ROWS if self._waiting == 0 else self._waiting + count >= BATCH_ROWS
        self.add_batch(arrow.batch_from_columns(self.table, columns, count, borrow=is_written_at_once or not is_lent))

    def add_batch(self, batch: Any) -> None:
        """Rows as a batch with this version's schema and dictionaries."""
        self._pieces.append(batch)
        self._waiting += batch.num_rows
        if self._waiting >= BATCH_ROWS:
            self._flush(BATCH_ROWS)
        elif len(self._pieces) - self._saved > _PIECES_MAX:
            self._pieces[self._saved :] = [arrow.joined(self.table, self._pieces[self._saved :])]

    def _flush(self, rows_min: int) -> None:
        """Write what waits in batches of BATCH_ROWS, until less than rows_min waits."""
        if not self._pieces:
            return
        everything = arrow.joined(self.table, self._pieces)
        at = 0
        while everything.num_rows - at >= rows_min:
            self._batches.append(self._file.write(everything.slice(at, BATCH_ROWS)))
            at += min(BATCH_ROWS, everything.num_rows - at)
        self._waiting = everything.num_rows - at
        self._pieces = [everything.slice(at)] if self._waiting else []
        self._saved = 0

    def commit(self, *, is_first: bool) -> dict[str, Any] | None:
        """Everything given so far is on disk when this returns. Gives the journal's entry; None where there is nothing new."""
        new = self._batches[self._told :]
        self._told = len(self._batches)
        rest = []
        if unsaved := self._pieces[self._saved :]:
            if self._rest is None:
                rest_path = self.path.with_name(self.path.name + REST_SUFFIX)
                self._rest = _HashedFile(rest_path, self.table, compressed=False)  # it is not kept
            rest.append(self._rest.write(arrow.joined(self.table, unsaved)))
            if len(self._pieces) > _PIECES_MAX:
                self._pieces = [arrow.joined(self.table, self._pieces)]
            self._saved = len(self._pieces)
        if not (new or rest or is_first):
            return None
        return {"batches": new, "prelude": self._file.prelude, **({"rest": rest} if rest else {})}

    def close(self) -> None:
        """Write what waits and the footer."""
        self._flush(1)
        self._end = self._file.close()
        if self._rest is not None:
            self._rest.abandon()
            self._rest.path.unlink()
            self._rest = None

    def abandon(self) -> None:
        """Close the files, whatever is in them."""
        self._file.abandon()
        if self._rest is not None:
            self._rest.abandon()

    def describe(self) -> dict[str, Any]:
        """The manifest's entry of the closed file."""
        assert self._end is not None
        size, sha256 = self._end
        return {
            "file": TABLES[self.table].file,
            "rows": sum(batch["rows"] for batch in self._batches),
            "bytes": size,
            "sha256": sha256,
            "prelude": self._file.prelude,
            "batches": self._batches,
        }
