"""Writing a trace: born incomplete beside its name, committed in a journal, compacted and renamed when it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from tracekit.formats import arrow
from tracekit.formats import manifest as manifests
from tracekit.formats.arrow import ArrowFile, Row
from tracekit.formats.checkpoint_writer import CheckpointWriter
from tracekit.formats.checkpoints import Page
from tracekit.formats.errors import DiskError, TraceExistsError
from tracekit.formats.manifest import canonical
from tracekit.formats.tables import BATCH_ROWS, TABLES

PARTIAL_SUFFIX = ".partial"
JOURNAL = "journal"
IMAGES = "images"
_CHUNK = 1 << 20


def partial_path(path: Path) -> Path:
    """Where a trace is while it is being recorded."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def sha256_range(path: Path, offset: int, length: int) -> str:
    """SHA-256 of a range of a file (shorter if the file is)."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (chunk := file.read(min(length, _CHUNK))):
            total.update(chunk)
            length -= len(chunk)
    return total.hexdigest()


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """OSErrors of writing become one line."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write {where}: {error.strerror or error}; what was committed can be had with `tracekit recover`"
        ) from None


class _TableWriter:
    """One growing file: rows wait in memory until a batch is full or a commit asks for them."""

    def __init__(self, folder: Path, table: str, suffix: str = "") -> None:
        self.table = table
        self.path = folder / (TABLES[table].file + suffix)
        self._file = ArrowFile(str(self.path), table)
        self.prelude = {
            "length": self._file.prelude_length,
            "sha256": sha256_range(self.path, 0, self._file.prelude_length),
        }
        self.batches: list[dict[str, Any]] = []
        self.kept: list[Any] | None = []  # what has been written, as long as it fits into one batch
        self._rows: list[Row] = []
        self._pieces: list[Any] = []
        self._waiting = 0

    def append(self, row: Row) -> None:
        self._rows.append(row)
        self._waiting += 1
        if self._waiting >= BATCH_ROWS:
            self.flush(whole_only=True)

    def add(self, batch: Any) -> None:
        self._settle()
        self._pieces.append(batch)
        self._waiting += batch.num_rows
        if self._waiting >= BATCH_ROWS:
            self.flush(whole_only=True)

    def _settle(self) -> None:
        if self._rows:
            self._pieces.append(arrow.batch_from_rows(self.table, self._rows))
            self._rows = []

    def flush(self, *, whole_only: bool = False) -> None:
        """Write what waits, in batches of at most BATCH_ROWS; whole_only keeps an unfilled rest waiting."""
        self._settle()
        if not self._pieces:
            return
        everything = arrow.joined(self.table, self._pieces)
        at = 0
        while everything.num_rows - at >= (BATCH_ROWS if whole_only else 1):
            self._write(everything.slice(at, BATCH_ROWS))
            at += min(BATCH_ROWS, everything.num_rows - at)
        self._waiting = everything.num_rows - at
        self._pieces = [everything.slice(at)] if self._waiting else []

    def _write(self, batch: Any) -> None:
        offset, length = self._file.write(batch)
        if self.kept is not None:
            self.kept.append(batch)
            if sum(one.num_rows for one in self.kept) > BATCH_ROWS:
                self.kept = None
        self.batches.append(
            {
                "offset": offset,
                "length": length,
                "rows": batch.num_rows,
                "sha256": sha256_range(self.path, offset, length),
                **arrow.first_last(batch),
            }
        )

    def close(self) -> None:
        self._file.close()

    def describe(self) -> dict[str, Any]:
        """The manifest's entry of the closed file."""
        size = self.path.stat().st_size
        return {
            "file": TABLES[self.table].file,
            "rows": sum(batch["rows"] for batch in self.batches),
            "bytes": size,
            "sha256": sha256_range(self.path, 0, size),
            "prelude": self.prelude,
            "batches": self.batches,
        }


class TraceWriter:
    """A trace being written. Rows of a table must come sorted by (position, sequence)."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, force: bool = False) -> None:
        """Errors: TraceExistsError when the name (or an unfinished recording of it) is there and `force` is not; DiskError."""
        self.path = path
        self.partial = partial_path(path)
        self._force = force
        if path.exists() and not force:
            raise TraceExistsError(f"{path} exists; --force replaces it once the new trace is whole")
        if self.partial.exists() and not force:
            raise TraceExistsError(
                f"{self.partial} is there, a recording that was not closed; `tracekit recover {path}` saves it, --force drops it"
            )
        if not path.parent.is_dir():
            raise DiskError(f"cannot write {path}: the folder {path.parent} does not exist")
        self._manifest = dict(manifest)
        self._manifest.setdefault("images", [])
        self._manifest.pop("checkpoints", None)
        self._chain = "0" * 64
        self._commits = 0
        self._journalled = dict.fromkeys(TABLES, 0)
        try:
            if self.partial.exists():
                shutil.rmtree(self.partial)
            self.partial.mkdir()
        except OSError as error:
            raise DiskError(f"cannot create {self.partial}: {error.strerror or error}") from None
        with disk_errors(self.partial):
            (self.partial / IMAGES).mkdir()
            self._tables = {name: _TableWriter(self.partial, name) for name in TABLES}
            self.checkpoints = CheckpointWriter(self.partial)
            self._journal = (self.partial / JOURNAL).open("wb", buffering=0)
            self._save_manifest({**self._manifest, "complete": False})

    def _save_manifest(self, manifest: Mapping[str, Any]) -> None:
        temporary = self.partial / (manifests.NAME + ".new")
        with temporary.open("wb") as file:
            file.write(manifests.encode(manifest))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.partial / manifests.NAME)

    def add_image(self, role: str, name: str, data: bytes) -> str:
        """Keep initial guest memory under the SHA-256 of its content; gives that hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.partial / IMAGES / f"{sha256}.zst"
        with disk_errors(target):
            stored = zstandard.ZstdCompressor(level=1).compress(data)
            target.write_bytes(stored)
            self._manifest["images"] = [
                *self._manifest["images"],
                {
                    "role": role,
                    "name": name,
                    "sha256": sha256,
                    "size": len(data),
                    "stored": {"bytes": len(stored), "sha256": hashlib.sha256(stored).hexdigest()},
                },
            ]
        return sha256

    def set(self, **entries: Any) -> None:
        """Add entries to the manifest; they are on disk when this returns, so that a crash keeps them."""
        self._manifest.update(entries)
        with disk_errors(self.partial):
            self._save_manifest({**self._manifest, "complete": False})

    def append(self, table: str, row: Row) -> None:
        """One row. Errors: DiskError."""
        try:
            self._tables[table].append(row)
        except OSError as error:
            raise self._disk_error(table, error) from None

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Many rows as raw columns; they are copied. Errors: DiskError."""
        try:
            self._tables[table].add(arrow.batch_from_columns(table, columns, count))
        except OSError as error:
            raise self._disk_error(table, error) from None

    def _disk_error(self, table: str, error: OSError) -> DiskError:
        return DiskError(
            f"cannot write {self._tables[table].path}: {error.strerror or error}; "
            f"what was committed can be had with `tracekit recover {self.path}`"
        )

    def add_checkpoint(
        self, position: int, sequence: int, vtime_ns: int, state: Mapping[str, Any], changes: Iterable[tuple[int, Page]]
    ) -> None:
        """The machine before event (position, sequence). changes: as CheckpointWriter.add takes them. Errors: DiskError."""
        with disk_errors(self.partial):
            self.checkpoints.add(position, sequence, vtime_ns, state, changes)

    def adopt_checkpoint(self, raw: bytes) -> None:
        """A checkpoint file of another trace of the same run, as it is. Errors: DiskError."""
        with disk_errors(self.partial):
            self.checkpoints.adopt(raw)

    def commit(self, position: int, sequence: int, vtime_ns: int, open_rows: Mapping[str, Sequence[Row]] | None = None) -> None:
        """From here on a crash loses nothing before (position, sequence). open_rows: rows that are not finished yet."""
        tables: dict[str, Any] = {}
        with disk_errors(self.partial):
            for name, table in self._tables.items():
                table.flush()
                new = table.batches[self._journalled[name] :]
                if new or not self._commits:
                    tables[name] = {"batches": new, "prelude": table.prelude}
                self._journalled[name] = len(table.batches)
            line = {
                "commit": self._commits,
                "position": position,
                "sequence": sequence,
                "vtime_ns": vtime_ns,
                "tables": tables,
                "open": {name: [_plain(row) for row in rows] for name, rows in (open_rows or {}).items()},
                **self.checkpoints.journal(),
            }
            self._chain = hashlib.sha256(self._chain.encode() + canonical(line)).hexdigest()
            self._journal.write(canonical({**line, "chain": self._chain}) + b"\n")
            self.checkpoints.journalled()
        self._commits += 1

    def close(self, end: Mapping[str, Any]) -> None:
        """Compact to whole batches, seal the manifest, take the name. Errors: DiskError."""
        with disk_errors(self.partial):
            for table in self._tables.values():
                table.flush()
                table.close()
            self._journal.close()
            entries = {}
            for name, table in self._tables.items():
                compact = self._compacted(table)
                entries[name] = compact.describe()
            manifest = {**self._manifest, "end": dict(end), "tables": entries, "complete": True}
            manifest["checkpoints"] = self.checkpoints.finish()
            self._save_manifest(manifest)
            (self.partial / JOURNAL).unlink()
            self._take_name()

    def _compacted(self, table: _TableWriter) -> _TableWriter:
        """The same rows in batches of BATCH_ROWS, whatever the commits were."""
        if all(batch["rows"] == BATCH_ROWS for batch in table.batches[:-1]):
            return table
        compact = _TableWriter(self.partial, table.table, ".compact")
        for batch in table.kept if table.kept is not None else self._written(table):
            compact.add(batch)
        compact.flush()
        compact.close()
        compact.path.replace(table.path)
        compact.path = table.path
        return compact

    @staticmethod
    def _written(table: _TableWriter) -> Iterator[Any]:
        with table.path.open("rb") as file:
            prelude = file.read(table.prelude["length"])
            for batch in table.batches:
                file.seek(batch["offset"])
                yield arrow.decode_batch(table.table, prelude, file.read(batch["length"]))

    def _take_name(self) -> None:
        for file in sorted(self.partial.rglob("*")):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if self.path.exists():
            assert self._force
            old = self.path.with_name(self.path.name + ".old")
            if old.exists():
                remove_path(old)
            self.path.rename(old)
            self.partial.rename(self.path)
            remove_path(old)
        else:
            self.partial.rename(self.path)

    def abandon(self) -> None:
        """The recording could not even start: leave nothing behind."""
        for table in self._tables.values():
            table.close()
        self._journal.close()
        shutil.rmtree(self.partial, ignore_errors=True)


def remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _plain(row: Row) -> list[Any]:
    return [{"hex": value.hex()} if isinstance(value, bytes) else value for value in row]
