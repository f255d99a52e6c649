"""One file of a trace, and back: a stored zip with fixed dates, so that equal traces give equal files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from tracekit.formats.errors import DiskError, InputError, TraceExistsError
from tracekit.formats.reader import PackedStore, Trace
from tracekit.formats.storage import remove_path

_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def pack(path: Path, output: Path, *, force: bool = False) -> None:
    """Pack a whole, verified trace. Errors: TraceError, TraceExistsError, DiskError."""
    trace = Trace.open(path, verify="all")
    if isinstance(trace.store, PackedStore):
        raise InputError(f"{path}: is packed already")
    temporary = _temporary(output, force)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(trace.expected_files()):
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = 0o644 << 16
                info.create_system = 3
                size = trace.store.size(name) or 0
                info.file_size = size
                with archive.open(info, "w", force_zip64=size >= 1 << 31) as entry:
                    for at in range(0, size, _CHUNK):
                        entry.write(trace.store.read(name, at, _CHUNK))
        _take(temporary, output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskError(f"cannot write {output}: {error.strerror or error}") from None


def unpack(path: Path, output: Path, *, force: bool = False) -> None:
    """Unpack a packed, verified trace; only files that its manifest names are written, by names that it gives.

    Errors: TraceError, TraceExistsError, DiskError.
    """
    trace = Trace.open(path, verify="all")
    if not isinstance(trace.store, PackedStore):
        raise InputError(f"{path}: is a directory already")
    temporary = _temporary(output, force)
    try:
        for name in sorted(trace.expected_files()):  # fixed names and hashes: nothing can climb out of the folder
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for at in range(0, trace.store.size(name) or 0, _CHUNK):
                    file.write(trace.store.read(name, at, _CHUNK))
        _take(temporary, output)
    except OSError as error:
        if temporary.exists():
            remove_path(temporary)
        raise DiskError(f"cannot write {output}: {error.strerror or error}") from None


def _temporary(output: Path, force: bool) -> Path:
    if output.exists() and not force:
        raise TraceExistsError(f"{output} exists; --force replaces it")
    if not output.parent.is_dir():
        raise DiskError(f"cannot write {output}: the folder {output.parent} does not exist")
    temporary = output.with_name(output.name + ".writing")
    if temporary.exists():
        remove_path(temporary)
    return temporary


def _take(temporary: Path, output: Path) -> None:
    if output.exists():
        remove_path(output)
    os.rename(temporary, output)
