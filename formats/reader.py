"""Reading a trace: a directory or a packed file; nothing is used before its hash has been checked."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tracekit.formats import arrow
from tracekit.formats import manifest as manifests
from tracekit.formats.arrow import Row
from tracekit.formats.checkpoints import FOLDER, Checkpoints, entries_of
from tracekit.formats.errors import InputError, NotATraceError, TraceDamaged, TraceIncompleteError
from tracekit.formats.frames import inflate
from tracekit.formats.storage import IMAGES
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import PARTIAL_SUFFIX, partial_path

_OURS = (f"{IMAGES}/", f"{FOLDER}/")
PACKED_MAGIC = b"PK\x03\x04"
DECODED_BYTES = 16 << 20


class Store(Protocol):
    """The files of a trace."""

    def names(self) -> list[str]: ...
    def size(self, name: str) -> int | None: ...
    def read(self, name: str, offset: int, length: int) -> bytes: ...
    def close(self) -> None: ...


class FolderStore:
    """A trace as a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # what is read later is read from the same place, wherever the process has gone

    def names(self) -> list[str]:
        """Relative names of all files, sorted."""
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if not p.is_dir())

    def size(self, name: str) -> int | None:
        """Bytes of a file, None if it is not there."""
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A range of a file; shorter where the file ends."""
        with (self.path / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def close(self) -> None:
        """Nothing is held open."""


class PackedStore:
    """A trace as one stored (uncompressed) zip file: an entry is a plain range of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb")
        self._turn = threading.Lock()  # several threads read (polars asks two tables at once), and the file has one place
        self._entries: dict[str, tuple[int, int]] = {}
        try:
            with zipfile.ZipFile(self._file) as archive:
                for info in archive.infolist():
                    self._entries[info.filename] = self._range(info)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
            self._file.close()
            raise TraceDamaged(f"{path}: a packed trace whose directory is damaged ({error})") from None
        if Path(path).stat().st_size and not self._entries:
            raise NotATraceError(f"{path}: an empty zip file, not a packed trace")

    def _range(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"entry {info.filename!r} is not stored plainly")
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        if len(header) != 30 or header[:4] != PACKED_MAGIC:
            raise ValueError(f"entry {info.filename!r} has no header")
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        if self._file.read(name) != info.filename.encode():
            raise ValueError(f"entry {info.filename!r} is named otherwise in its header")
        return info.header_offset + 30 + name + extra, info.file_size

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(self._entries)

    def size(self, name: str) -> int | None:
        """Bytes of an entry, None if it is not there."""
        return self._entries[name][1] if name in self._entries else None

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A range of an entry; shorter where it ends."""
        start, size = self._entries[name]
        if self._file.closed:
            raise InputError(f"{self.path}: the trace was closed")
        with self._turn:
            self._file.seek(start + offset)
            return self._file.read(max(0, min(length, size - offset)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_store(path: Path) -> Store:
    """The files behind a path. Errors: NotATraceError, TraceIncompleteError, TraceDamaged."""
    if path.is_dir():
        if not (path / manifests.NAME).is_file():
            what = "an empty directory" if not any(path.iterdir()) else f"a directory without {manifests.NAME}"
            raise NotATraceError(f"{path}: not a trace ({what})")
        return FolderStore(path)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != PACKED_MAGIC:
                raise NotATraceError(f"{path}: not a trace (a plain file, neither a directory nor a packed trace)")
        return PackedStore(path)
    if partial_path(path).is_dir():
        raise TraceIncompleteError(f"{path}: its recording was not closed; `tracekit recover {path}` makes it usable")
    raise NotATraceError(f"{path}: no such trace")


class Trace:
    """An open trace. Rows come batch by batch, each checked before it is used."""

    def __init__(self, path: Path, store: Store, manifest: dict[str, Any]) -> None:
        self.path = path
        self.store = store
        self.manifest = manifest
        self._preludes: dict[str, bytes] = {}
        self._decoded: OrderedDict[tuple[str, int], Any] = OrderedDict()  # the batches used last, DECODED_BYTES of them in all
        self._decoded_bytes = 0

    @classmethod
    def open(cls, path: Path | str, *, verify: str = "lazy") -> Trace:
        """verify: "lazy" checks what is read when it is read, "all" checks every file first.

        Errors: NotATraceError, TraceVersionError, TraceIncompleteError, TraceDamaged.
        """
        path = Path(path)
        store = open_store(path)
        try:
            size = store.size(manifests.NAME)
            if size is None:
                raise NotATraceError(f"{path}: not a trace (no {manifests.NAME} in it)")
            if size > manifests.MANIFEST_BYTES_MAX:
                raise TraceDamaged(f"{path}/{manifests.NAME}: {size} bytes; at most {manifests.MANIFEST_BYTES_MAX} are read")
            where = f"{path}/{manifests.NAME}"
            manifest = manifests.decode(store.read(manifests.NAME, 0, size), where)
            if manifest.get("complete") is not True:
                name = str(path).removesuffix(PARTIAL_SUFFIX)
                raise TraceIncompleteError(f"{path}: the recording was not closed; `tracekit recover {name}` makes it usable")
            manifests.check(manifest, where)
            trace = cls(path, store, manifest)
            trace.check_files()
            if verify == "all":
                trace.check_all()
            return trace
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._decoded.clear()
        self._decoded_bytes = 0
        self.store.close()

    def expected_files(self) -> set[str]:
        """Every file that the manifest speaks of."""
        images = {f"{IMAGES}/{image['sha256']}.zst" for image in self.manifest["images"]}
        checkpoints = (entry.file for entry in entries_of(self.manifest))
        return {manifests.NAME, *(table.file for table in TABLES.values()), *images, *checkpoints}

    def check_files(self) -> None:
        """Every file is there, in its size, and none that does not belong. Errors: TraceDamaged."""
        expected, found = self.expected_files(), set(self.store.names())
        for name in sorted(expected - found):
            raise TraceDamaged(f"{self.path}: {name} is missing; `tracekit recover` saves what is left")
        stray = sorted(name for name in found - expected if name.endswith(".arrow") or name.startswith(_OURS))
        if stray:
            raise TraceDamaged(f"{self.path}: {stray[0]} does not belong to this trace")
        sizes = {table.file: self.manifest["tables"][name]["bytes"] for name, table in TABLES.items()}
        sizes |= {entry.file: entry.bytes for entry in entries_of(self.manifest)}
        for name, wanted in sizes.items():
            size = self.store.size(name)
            if size != wanted:
                raise TraceDamaged(f"{self.path}/{name}: {size} bytes instead of {wanted}; `tracekit recover` saves what is left")

    def check_all(self, *, unpacks_images: bool = True) -> None:
        """Every hash of every file. unpacks_images False: that of an image's content is left to who reads it. Errors: TraceDamaged."""
        for name, table in TABLES.items():
            entry = self.manifest["tables"][name]
            if self.hash_of(table.file) != entry["sha256"]:
                list(self.batches(name))  # a more precise complaint, if a batch is to blame
                raise TraceDamaged(f"{self.path}/{table.file}: altered outside its batches (SHA-256 does not agree)")
        for image in self.manifest["images"]:
            if unpacks_images:
                self.image(image["sha256"])
            else:
                self._stored_image(image["sha256"])
        checkpoints = self.checkpoints()
        for k in range(len(checkpoints.entries)):
            checkpoints.check_hash(k)

    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self)

    def hash_of(self, file: str) -> str:
        """SHA-256 of a whole file."""
        total, at = hashlib.sha256(), 0
        while chunk := self.store.read(file, at, 1 << 20):
            total.update(chunk)
            at += len(chunk)
        return total.hexdigest()

    def _prelude(self, name: str) -> bytes:
        if name not in self._preludes:
            entry = self.manifest["tables"][name]["prelude"]
            if entry["length"] > 1 << 20:
                raise TraceDamaged(f"{self.path}/{TABLES[name].file}: a prelude of {entry['length']} bytes")
            raw = self.store.read(TABLES[name].file, 0, entry["length"])
            if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
                raise TraceDamaged(f"{self.path}/{TABLES[name].file}: its first {len(raw)} bytes were altered")
            self._preludes[name] = raw
        return self._preludes[name]

    def batches(self, name: str, *, from_position: int = 0) -> Iterator[Any]:
        """pyarrow RecordBatches, those that end before from_position left out. Errors: TraceDamaged."""
        for index, entry in enumerate(self.manifest["tables"][name]["batches"]):
            if entry["position"][1] >= from_position:
                yield self.batch(name, index)

    def batch(self, name: str, index: int) -> Any:
        """One verified batch; small ones are kept for whoever asks again (a session that seeks does, at each place).

        Errors: TraceDamaged, naming table, batch and position.
        """
        key = name, index
        if key in self._decoded:
            self._decoded.move_to_end(key)
            return self._decoded[key]
        batch = self.decoded(name, index, self.verified(name, index))
        if batch.nbytes <= DECODED_BYTES // 4:
            self._decoded[key] = batch
            self._decoded_bytes += batch.nbytes
            while self._decoded_bytes > DECODED_BYTES:
                self._decoded_bytes -= self._decoded.popitem(last=False)[1].nbytes
        return batch

    def _where(self, name: str, index: int) -> str:
        entry = self.manifest["tables"][name]["batches"][index]
        return f"{self.path}/{TABLES[name].file}: batch {index} (from position {entry['position'][0]})"

    def verified(self, name: str, index: int) -> bytes:
        """The bytes of a batch, whose hash holds. Errors: TraceDamaged."""
        entry, where = self.manifest["tables"][name]["batches"][index], self._where(name, index)
        if entry["length"] > 1 << 30:
            raise TraceDamaged(f"{where}: {entry['length']} bytes")
        raw = self.store.read(TABLES[name].file, entry["offset"], entry["length"])
        if len(raw) != entry["length"]:
            raise TraceDamaged(f"{where}: cut short")
        if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
            raise TraceDamaged(f"{where}: altered (SHA-256 does not agree); `tracekit recover` saves what comes before")
        return raw

    def some_columns(self, name: str, index: int, raw: bytes, columns: Sequence[str]) -> Any:
        """Some columns (none of text) of a batch whose bytes are verified; nothing else is decompressed. Errors: TraceDamaged."""
        batch = arrow.decode_batch(name, self._prelude(name), raw, columns)
        if batch.num_rows != self.manifest["tables"][name]["batches"][index]["rows"]:
            raise TraceDamaged(f"{self._where(name, index)}: {batch.num_rows} rows instead of what the manifest says")
        return batch

    def decoded(self, name: str, index: int, raw: bytes) -> Any:
        """A batch whose bytes are verified. Errors: TraceDamaged."""
        entry, where = self.manifest["tables"][name]["batches"][index], self._where(name, index)
        batch = arrow.decode_batch(name, self._prelude(name), raw)
        if batch.num_rows != entry["rows"]:
            raise TraceDamaged(f"{where}: {batch.num_rows} rows instead of {entry['rows']}")
        latest_ns = arrow.first_last(batch)["vtime_ns"][1] if batch.num_rows else 0
        if latest_ns >= 1 << 63:
            raise TraceDamaged(f"{where}: a time of {latest_ns} ns; every time is below 2^63 ns")
        return batch

    def rows(self, name: str) -> Iterator[Row]:
        """Rows in order, as tuples of Python values. Errors: TraceDamaged."""
        for batch in self.batches(name):
            yield from arrow.rows_of(batch)

    def row_count(self, name: str) -> int:
        """Rows of a table."""
        return int(self.manifest["tables"][name]["rows"])

    def image(self, sha256: str) -> bytes:
        """Initial guest memory, verified. Errors: TraceDamaged."""
        name, entry, raw = self._stored_image(sha256)
        try:
            data = inflate(raw, entry["size"])
        except ValueError as error:
            raise TraceDamaged(f"{self.path}/{name}: damaged ({error})") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise TraceDamaged(f"{self.path}/{name}: not the image that its name says (SHA-256 does not agree)")
        return data

    def _stored_image(self, sha256: str) -> tuple[str, dict[str, Any], bytes]:
        """(file, entry of the manifest, compressed bytes, verified) of an image. Errors: TraceDamaged."""
        name = f"{IMAGES}/{sha256}.zst"
        entry = next((image for image in self.manifest["images"] if image["sha256"] == sha256), None)
        if entry is None or entry["size"] > 1 << 31:
            raise TraceDamaged(f"{self.path}: no usable image {sha256[:12]} in the manifest")
        raw = self.store.read(name, 0, (self.store.size(name) or 0) + 1)
        stored = entry["stored"]
        if len(raw) != stored["bytes"] or hashlib.sha256(raw).hexdigest() != stored["sha256"]:
            raise TraceDamaged(f"{self.path}/{name}: altered (SHA-256 does not agree); the guest cannot be had from this trace")
        return name, entry, raw
