"""A kernel that was recorded before is not compressed again; a cache that is lost or damaged is only slower."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support import files_of

from tracekit.formats import image_cache
from tracekit.formats.image_cache import CACHED_BYTES_MIN, ENTRIES_MAX
from tracekit.formats.reader import Trace
from tracekit.formats.storage import Storage
from tracekit.formats.writer import TraceWriter

MANIFEST: dict[str, Any] = {"threads": [], "scenario": {}, "machine": {}}
END = {"reason": "power_off", "position": 0, "sequence": 0, "vtime_ns": 0}


def content(seed: int, size: int = CACHED_BYTES_MIN) -> bytes:
    """Something that compresses to about half."""
    return b"".join(bytes(8) + random.Random(seed + n).randbytes(8) for n in range(64)) * (size // 1024)


def written(path: Path, data: bytes) -> Path:
    """A trace with one image."""
    writer = TraceWriter(path, MANIFEST)
    writer.add_image("kernel", "k", data)
    writer.close(END)
    return path


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Sizes of what had to be compressed, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes: list[int] = []
    compress = Storage._compress_image

    def counted(target: Path, data: bytes) -> tuple[int, str]:
        sizes.append(len(data))
        return compress(target, data)

    monkeypatch.setattr(Storage, "_compress_image", staticmethod(counted))
    return sizes


def test_the_second_time_it_is_found(tmp_path: Path, compressed: list[int]) -> None:
    """Equal traces; small images are never kept."""
    first = written(tmp_path / "a.tkt", content(1))
    second = written(tmp_path / "b.tkt", content(1))
    assert files_of(first) == files_of(second)
    assert compressed == [CACHED_BYTES_MIN]
    image = Trace.open(second, verify="all").manifest["images"][0]
    assert Trace.open(second).image(image["sha256"]) == content(1)
    for name in "cd":
        written(tmp_path / f"{name}.tkt", content(1, 1024))
    assert compressed == [CACHED_BYTES_MIN, 1024, 1024]


@pytest.mark.parametrize("damage", ["cut", "flipped", "longer", "another's", "empty", "unreadable", "no folder"])
def test_a_damaged_cache_is_passed_over(tmp_path: Path, compressed: list[int], damage: str) -> None:
    """The image is compressed again; the trace is the same."""
    first = written(tmp_path / "a.tkt", content(1))
    (entry,) = (tmp_path / "cache" / "tracekit" / "images").iterdir()
    raw = entry.read_bytes()
    if damage == "another's":
        written(tmp_path / "o.tkt", content(2, 2 * CACHED_BYTES_MIN))
        (other,) = (path for path in entry.parent.iterdir() if path != entry)
        entry.write_bytes(other.read_bytes())
    elif damage in ("unreadable", "no folder"):
        entry.unlink()
        if damage == "unreadable":
            entry.mkdir()
        else:
            entry.parent.rmdir()
            entry.parent.write_text("a file")
    else:
        flipped = raw[:500] + bytes((raw[500] ^ 1,)) + raw[501:]
        entry.write_bytes({"cut": raw[:-100], "flipped": flipped, "longer": raw + bytes(8 << 20), "empty": b""}[damage])
    assert files_of(written(tmp_path / "b.tkt", content(1))) == files_of(first)
    assert compressed[-1] == CACHED_BYTES_MIN and len(compressed) >= 2


def test_old_entries_make_room(tmp_path: Path, compressed: list[int]) -> None:
    """No more than ENTRIES_MAX are kept, and nothing half-written."""
    for seed in range(ENTRIES_MAX + 2):
        written(tmp_path / f"{seed}.tkt", content(1000 * seed))
    folder = image_cache.default_folder()
    assert folder is not None and len(list(folder.iterdir())) == ENTRIES_MAX
    written(tmp_path / "last.tkt", content(1000 * (ENTRIES_MAX + 1)))
    assert len(compressed) == ENTRIES_MAX + 2
