"""Compressed guest images that earlier recordings stored: the same kernel is compressed once.

$XDG_CACHE_HOME/tracekit/images, or ~/.cache/tracekit/images; it may be lost at any time, and whatever is wrong with it is passed
over in silence. An entry is a zstd frame and its SHA-256; a frame that has not that hash is not used, and a replay checks what comes out of it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import zstandard

CACHED_BYTES_MIN = 4 << 20  # of the content; smaller ones are compressed faster than found
ENTRIES_MAX = 8
_DIGEST_BYTES = 32
_MAKER = f"zstd{'.'.join(str(part) for part in zstandard.ZSTD_VERSION)}-1"  # other versions may give other bytes


def default_folder() -> Path | None:
    """Where the cache is; None where there is no home."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "tracekit" / "images"
    except RuntimeError:
        return None


def _entry(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.{_MAKER}"


def find(sha256: str, size: int, folder: Path | None) -> tuple[bytes, str] | None:
    """The frame of the content with this hash and size, and the frame's own SHA-256; None where there is none that is whole."""
    if folder is None or size < CACHED_BYTES_MIN:
        return None
    try:
        with _entry(folder, sha256).open("rb") as file:
            if os.fstat(file.fileno()).st_size > size + size // 64 + 4096:  # more than any frame of that content
                return None
            raw = file.read()
        frame = memoryview(raw)[:-_DIGEST_BYTES]
        digest = hashlib.sha256(frame)
        if digest.digest() != raw[-_DIGEST_BYTES:] or zstandard.frame_content_size(frame[:32].tobytes()) != size:
            return None
        os.utime(_entry(folder, sha256))
    except (OSError, zstandard.ZstdError):
        return None
    return frame.tobytes(), digest.hexdigest()


def keep(sha256: str, size: int, stored: Path, stored_sha256: str, folder: Path | None) -> None:
    """Remember a frame that has just been written to `stored`; the entries used longest ago make room."""
    if folder is None or size < CACHED_BYTES_MIN:
        return
    temporary = folder / f"{os.getpid()}.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(stored.read_bytes() + bytes.fromhex(stored_sha256))
        os.replace(temporary, _entry(folder, sha256))
        entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for old in entries[:-ENTRIES_MAX]:
            old.unlink(missing_ok=True)
    except OSError:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            return
