"""Where an export goes: made beside its name, renamed when it is whole, never over something else unasked."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tracekit.formats.errors import DiskError, InputError, TraceExistsError
from tracekit.formats.storage import remove_path

INDEX = "export.json"  # what a folder that we made has in it


@contextmanager
def fresh(output: Path, trace: Path, *, force: bool, is_folder: bool) -> Iterator[Path]:
    """A place to write to; it takes the name `output` when all went well, and is removed when not.

    Errors: TraceExistsError, InputError when the trace itself would be hit, DiskError.
    """
    _check(output, trace, force)
    temporary = output.with_name(output.name + ".writing")
    try:
        if os.path.lexists(temporary):
            remove_path(temporary)
        if is_folder:
            temporary.mkdir()
        yield temporary
        _take(temporary, output)
    except OSError as error:
        raise DiskError(f"cannot write {output}: {error.strerror or error}") from None
    finally:
        if os.path.lexists(temporary):
            remove_path(temporary)


def _check(output: Path, trace: Path, force: bool) -> None:
    here, there = output.resolve(), trace.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"{output}: is, holds or lies in the trace {trace}; choose another place")
    if not output.parent.is_dir():
        raise DiskError(f"cannot write {output}: the folder {output.parent} does not exist")
    if not os.path.lexists(output):
        return
    if not force:
        raise TraceExistsError(f"{output} exists; --force replaces it")
    if output.exists() and not output.is_file() and not output.is_dir():
        raise InputError(f"{output} is no regular file (a device or a pipe); it is not replaced")
    if output.is_dir() and not output.is_symlink() and any(output.iterdir()) and not (output / INDEX).is_file():
        raise TraceExistsError(
            f"{output} is a folder that no export made (it has no {INDEX}); it is not replaced, remove it yourself"
        )


def _take(temporary: Path, output: Path) -> None:
    for file in [temporary, *sorted(temporary.rglob("*"))]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if (output.is_dir() and not output.is_symlink()) or (os.path.lexists(output) and temporary.is_dir()):
        old = output.with_name(output.name + ".old")
        if os.path.lexists(old):
            raise TraceExistsError(f"{old} is in the way; remove it first")
        output.rename(old)
        temporary.rename(output)
        remove_path(old)
    else:
        os.replace(temporary, output)


@contextmanager
def sink(path: Path, *, is_packed: bool) -> Iterator[BinaryIO]:
    """A file to write bytes to; packed: through gzip, without name and date, so that equal content gives equal bytes."""
    with path.open("wb", buffering=1 << 20) as file:
        if not is_packed:
            yield file
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            yield cast(BinaryIO, packed)
