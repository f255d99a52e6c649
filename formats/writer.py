"""Writing a trace: born incomplete beside its name, committed in a journal, renamed when it is whole."""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tracekit.formats.arrow import Row
from tracekit.formats.checkpoint_writer import CheckpointWriter
from tracekit.formats.checkpoints import Page
from tracekit.formats.errors import DiskError, TraceExistsError
from tracekit.formats.storage import Image, Storage
from tracekit.formats.worker import Worker

PARTIAL_SUFFIX = ".partial"
ROWS_TOGETHER = 4096
PAGES_TOGETHER = 256  # 1 MiB of a checkpoint's pages
IMAGE_BYTES = 4 << 20  # what an image weighs at most: whoever gives it keeps it
ROW_BYTES = 512  # what a row of Python values weighs, beside its bytes


def partial_path(path: Path) -> Path:
    """Where a trace is while it is being recorded."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


class TraceWriter:
    """A trace being written. Rows of a table must come sorted by (position, sequence).

    A background thread converts, compresses, hashes and writes (tracekit.formats.worker); what goes wrong there is raised by the
    next call. Files do not depend on its pace. A writer that is dropped, or left open at the interpreter's end, still puts
    on disk what it was given: `tracekit recover` makes a trace of it, up to the last commit.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, force: bool = False) -> None:
        """Errors: TraceExistsError when the name (or an unfinished recording of it) is there and `force` is not; DiskError."""
        self.path = path
        self.partial = partial_path(path)
        if path.exists() and not force:
            raise TraceExistsError(f"{path} exists; --force replaces it once the new trace is whole")
        if self.partial.exists() and not force:
            raise TraceExistsError(
                f"{self.partial} is there, a recording that was not closed; `tracekit recover {path}` saves it, --force drops it"
            )
        if not path.parent.is_dir():
            raise DiskError(f"cannot write {path}: the folder {path.parent} does not exist")
        try:
            if self.partial.exists():
                shutil.rmtree(self.partial)
            self.partial.mkdir()
        except OSError as error:
            raise DiskError(f"cannot create {self.partial}: {error.strerror or error}") from None
        self._storage = Storage(path, self.partial, manifest)
        self._worker = Worker()
        self._checkpoint_is_over = threading.Event()
        self._checkpoint_is_over.set()
        self._rows: dict[str, list[Row]] = {}
        self._row_count = self._rows_weight = 0
        self._finalizer = weakref.finalize(self, self._worker.end)

    @property
    def weight_max(self) -> int:
        """The most bytes that ever waited for the background thread."""
        return self._worker.weight_max

    def add_image(self, role: str, name: str, data: bytes) -> Image:
        """Keep initial guest memory under the SHA-256 of its content. `data` must not change. Errors: DiskError."""
        image = Image()
        self._hand_over(partial(self._storage.add_image, role, name, data, image), min(len(data), IMAGE_BYTES))
        return image

    def set(self, **entries: Any) -> None:
        """Add entries to the manifest; every later commit keeps them through a crash. Errors: DiskError."""
        self._hand_over(partial(self._storage.describe, entries))

    def set_later(self, entries: Callable[[], Mapping[str, Any]]) -> None:
        """As set(), with entries that are asked for when all images so far are stored, on the thread that stored them."""
        storage = self._storage
        self._hand_over(lambda: storage.describe(entries()))

    def append(self, table: str, row: Row) -> None:
        """One row. Errors: DiskError."""
        rows = self._rows.get(table)
        if rows is None:
            rows = self._rows[table] = []
        rows.append(row)
        self._row_count += 1
        last = row[-1]
        if last.__class__ is bytes:
            self._rows_weight += len(last)
        if self._row_count >= ROWS_TOGETHER or self._rows_weight >= ROWS_TOGETHER * ROW_BYTES:
            self._hand_over_rows()
        elif self._worker.failure is not None:
            self._worker.check()

    def extend(self, table: str, columns: Mapping[str, Any], count: int, release: Callable[[], None] | None = None) -> None:
        """Many rows as raw columns without nulls (None: all null).

        They are copied; with `release` they are not: it is called, from any thread, when they are no longer needed, whatever happens.
        Errors: DiskError.
        """
        try:
            if self._rows:
                self._hand_over_rows()
            weight = sum(memoryview(column).nbytes for column in columns.values() if column is not None)
            if release is None:
                columns = {name: column if column is None else bytes(column) for name, column in columns.items()}
        except BaseException:
            if release is not None:
                release()
            raise
        self._hand_over(partial(self._storage.add_columns, table, columns, count, is_lent=release is not None), weight, release)

    def extend_batch(self, table: str, batch: Any) -> None:
        """Many rows as a pyarrow RecordBatch of the table's schema, perhaps with an older minor version's dictionaries. Errors: DiskError."""
        if self._rows:
            self._hand_over_rows()
        self._hand_over(partial(self._storage.add_batch, table, batch), batch.nbytes)

    def add_checkpoint(
        self, position: int, sequence: int, vtime_ns: int, state: Mapping[str, Any], changes: Iterable[tuple[int, Page]]
    ) -> None:
        """The machine before event (position, sequence). changes: (index, page of 4096 bytes), indices ascending.

        Neither `state` nor the pages may change before wait_for_checkpoints() has returned. Errors: DiskError.
        """
        some: list[tuple[int, Page]] = []
        for index, page in changes:
            some.append((index, page))
            if len(some) == PAGES_TOGETHER:
                self._hand_over(partial(self._storage.add_changes, some), len(some) << 12)
                some = []
        self._hand_over(partial(self._storage.add_changes, some), len(some) << 12)
        self._checkpoint_is_over.clear()
        self._hand_over(
            partial(self._storage.add_checkpoint, position, sequence, vtime_ns, state), 0, self._checkpoint_is_over.set
        )

    def wait_for_checkpoints(self) -> None:
        """Those that were added have been written, and nothing of theirs is needed any more. Errors: DiskError."""
        self._checkpoint_is_over.wait()
        self._worker.check()

    def adopt_checkpoint(self, raw: bytes) -> None:
        """A checked checkpoint file of another trace of the same run, as it is. Errors: DiskError."""
        self._hand_over(partial(self._storage.adopt_checkpoint, raw), len(raw))

    @property
    def checkpoints(self) -> CheckpointWriter:
        """The checkpoints that are on disk. Not to be touched while the thread may have work."""
        return self._storage.checkpoints

    def _hand_over_rows(self) -> None:
        rows, weight = self._rows, self._row_count * ROW_BYTES + self._rows_weight
        self._rows, self._row_count, self._rows_weight = {}, 0, 0
        self._hand_over(partial(self._storage.add_rows, rows), weight)

    def _hand_over(self, job: Callable[[], None], weight: int = 0, release: Callable[[], None] | None = None) -> None:
        """Have something done behind everything that was asked for so far. weight: bytes that it keeps until then."""
        if release is None:
            self._worker.put(job, weight)
        else:
            self._worker.put(job, weight, release)

    def commit(self, position: int, sequence: int, vtime_ns: int, open_rows: Mapping[str, Sequence[Row]] | None = None) -> None:
        """Once the thread has come to it, a crash loses nothing before (position, sequence). open_rows: rows that are not finished yet.

        Errors: DiskError.
        """
        if self._rows:
            self._hand_over_rows()
        self._hand_over(partial(self._storage.commit, position, sequence, vtime_ns, open_rows or {}))

    def close(self, end: Mapping[str, Any]) -> None:
        """Seal the manifest, take the name. Errors: DiskError."""
        if self._rows:
            self._hand_over_rows()
        self._hand_over(partial(self._storage.close, end))
        self._worker.finish()
        self._finalizer.detach()

    def abandon(self) -> None:
        """The recording could not even start: leave nothing behind."""
        self._worker.end(discard=True)
        self._finalizer.detach()
        self._storage.abandon()
