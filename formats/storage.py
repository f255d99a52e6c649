"""The folder of a trace that is being written: everything that touches the disk, in the order in which it was asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from tracekit.formats import arrow, image_cache
from tracekit.formats import manifest as manifests
from tracekit.formats.arrow import Row
from tracekit.formats.checkpoint_writer import ChangedPages, CheckpointWriter
from tracekit.formats.checkpoints import Page
from tracekit.formats.errors import DiskError
from tracekit.formats.manifest import canonical
from tracekit.formats.table_writer import TableWriter
from tracekit.formats.tables import TABLES

JOURNAL = "journal"
IMAGES = "images"
_CHUNK = 1 << 20


@contextmanager
def disk_errors(where: Path, name: Path | None = None) -> Iterator[None]:
    """OSErrors of writing become one line. name: what `tracekit recover` is to be given, where that is known."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write {where}: {error.strerror or error}; "
            f"what was committed can be had with `tracekit recover{f' {name}' if name else ''}`"
        ) from None


class Image:
    """Initial guest memory that is being stored. `sha256`, of its content, is known once the storage has come to it."""

    def __init__(self) -> None:
        self.sha256 = ""


class Storage:
    """Files of one trace. Only the thread that does the writing calls this, after the constructor."""

    def __init__(self, path: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
        """The folder is there and empty. Errors: DiskError."""
        self.path = path
        self._folder = folder
        self._manifest = {**manifest, "images": []}
        self._manifest.pop("checkpoints", None)
        self._is_described = False
        self._chain = "0" * 64
        self._commits = 0
        with disk_errors(folder):
            (folder / IMAGES).mkdir()
            self._tables = {name: TableWriter(folder, name) for name in TABLES}
            self.checkpoints = CheckpointWriter(folder)
            self._pages = ChangedPages()
            self._journal = (folder / JOURNAL).open("wb", buffering=0)

    def _save_manifest(self, manifest: Mapping[str, Any], *, sync: bool) -> None:
        temporary = self._folder / (manifests.NAME + ".new")
        with temporary.open("wb") as file:
            file.write(manifests.encode(manifest))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(self._folder / manifests.NAME)
        self._is_described = True

    def add_image(self, role: str, name: str, data: bytes, image: Image) -> None:
        """Keep initial guest memory under the SHA-256 of its content."""
        image.sha256 = hashlib.sha256(data).hexdigest()
        target = self._folder / IMAGES / f"{image.sha256}.zst"
        cache = image_cache.default_folder()
        found = image_cache.find(image.sha256, len(data), cache)
        if found is None:
            size, stored_sha256 = self._compress_image(target, data)
            image_cache.keep(image.sha256, len(data), target, stored_sha256, cache)
        else:
            frame, stored_sha256 = found
            size = len(frame)
            with disk_errors(target), target.open("wb", buffering=0) as file:
                _write_all(file, frame)
        self._manifest["images"].append(
            {
                "role": role,
                "name": name,
                "sha256": image.sha256,
                "size": len(data),
                "stored": {"bytes": size, "sha256": stored_sha256},
            }
        )

    @staticmethod
    def _compress_image(target: Path, data: bytes) -> tuple[int, str]:
        """Size and SHA-256 of the frame."""
        stored, stored_bytes = hashlib.sha256(), 0
        compressor = zstandard.ZstdCompressor(level=1).compressobj(size=len(data))
        view = memoryview(data)
        with disk_errors(target), target.open("wb", buffering=0) as file:
            for at in range(0, len(data) + 1, _CHUNK):  # the last piece may be empty
                piece = compressor.compress(view[at : at + _CHUNK])
                if at + _CHUNK > len(data):
                    piece += compressor.flush()
                stored.update(piece)
                stored_bytes += len(piece)
                _write_all(file, piece)
        return stored_bytes, stored.hexdigest()

    def describe(self, entries: Mapping[str, Any]) -> None:
        """Add entries to the manifest; a crash keeps them from now on."""
        self._manifest.update(entries)
        with disk_errors(self._folder):
            self._save_manifest({**self._manifest, "complete": False}, sync=False)

    def add_rows(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Rows as tuples, by table."""
        for table, some in rows.items():
            with disk_errors(self._tables[table].path, self.path):
                self._tables[table].add_rows(some)

    def add_columns(self, table: str, columns: Mapping[str, Any], count: int, *, is_lent: bool) -> None:
        """Rows as raw columns. Lent ones belong to the caller again when this returns."""
        with disk_errors(self._tables[table].path, self.path):
            self._tables[table].add_columns(columns, count, is_lent=is_lent)

    def add_batch(self, table: str, batch: Any) -> None:
        """Rows as a pyarrow RecordBatch."""
        with disk_errors(self._tables[table].path, self.path):
            self._tables[table].add_batch(arrow.normal(table, batch))

    def add_changes(self, changes: Sequence[tuple[int, Page]]) -> None:
        """Some of the changed pages of the next checkpoint."""
        for index, page in changes:
            self._pages.add(index, page)

    def add_checkpoint(self, position: int, sequence: int, vtime_ns: int, state: Mapping[str, Any]) -> None:
        """A checkpoint with the pages that add_changes was given since the last one."""
        pages, self._pages = self._pages, ChangedPages()
        with disk_errors(self._folder):
            self.checkpoints.add_pages(position, sequence, vtime_ns, state, pages)

    def adopt_checkpoint(self, raw: bytes) -> None:
        """A checkpoint file of another trace of the same run, as it is."""
        with disk_errors(self._folder):
            self.checkpoints.adopt(raw)

    def commit(self, position: int, sequence: int, vtime_ns: int, open_rows: Mapping[str, Sequence[Row]]) -> None:
        """From here on a crash loses nothing before (position, sequence)."""
        with disk_errors(self._folder):
            if not self._is_described:
                self._save_manifest({**self._manifest, "complete": False}, sync=False)
            tables = {name: table.commit(is_first=not self._commits) for name, table in self._tables.items()}
            line = {
                "commit": self._commits,
                "position": position,
                "sequence": sequence,
                "vtime_ns": vtime_ns,
                "tables": {name: entry for name, entry in tables.items() if entry is not None},
                "open": {name: [_plain(row) for row in rows] for name, rows in open_rows.items()},
                **self.checkpoints.journal(),
            }
            self._chain = hashlib.sha256(self._chain.encode() + canonical(line)).hexdigest()
            _write_all(self._journal, canonical({**line, "chain": self._chain}) + b"\n")
            self.checkpoints.journalled()
        self._commits += 1

    def close(self, end: Mapping[str, Any]) -> None:
        """Whole batches, a sealed manifest, the name. Errors: DiskError."""
        with disk_errors(self._folder):
            for table in self._tables.values():
                table.close()
            self._journal.close()
            entries = {name: table.describe() for name, table in self._tables.items()}
            sealed = {**self._manifest, "end": dict(end), "tables": entries, "complete": True}
            sealed["checkpoints"] = self.checkpoints.finish()
            self._save_manifest(sealed, sync=True)
            (self._folder / JOURNAL).unlink()
            self._take_name()

    def _take_name(self) -> None:
        for file in sorted(self._folder.rglob("*")):
            if file.is_file() and file.name != manifests.NAME:
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if self.path.exists():
            old = self.path.with_name(self.path.name + ".old")
            if old.exists():
                remove_path(old)
            self.path.rename(old)
            self._folder.rename(self.path)
            remove_path(old)
        else:
            self._folder.rename(self.path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        for table in self._tables.values():
            table.abandon()
        self._journal.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_all(file: Any, data: bytes) -> None:
    """An unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _plain(row: Row) -> list[Any]:
    return [{"hex": value.hex()} if isinstance(value, bytes) else value for value in row]
