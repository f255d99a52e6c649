"""Checkpoint files: what is read is what was written; damage is named; thinning and recovery lose no page."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import files_of

from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.formats.writer import TraceWriter

RAM = 0x4000_0000 >> 12
PV = 0x090A_0000 >> 12
RAM_PAGES = 256
MANIFEST: dict[str, Any] = {
    "scenario": {"host": {"pcpus": 1}, "image": "none"},
    "machine": {
        "vcpus": 1, "segments": [], "pv_structures": [], "ram_base": RAM << 12, "ram_size": RAM_PAGES << 12,
    },
    "threads": [{"thread": 0, "kind": "vcpu", "name": "vcpu0"}],
}  # fmt: skip
DIGEST = bytes(range(32))
Pages = dict[int, bytes]


def page(seed: int) -> bytes:
    """A page of content; 0 is the page of zeros."""
    return random.Random(seed).randbytes(64) * 64 if seed else bytes(4096)


def end(position: int) -> dict[str, Any]:
    """How a run ends."""
    return {"reason": "power_off", "detail": None, "position": position, "sequence": 1, "vtime_ns": position}


def write(path: Path, deltas: list[Pages]) -> Path:
    """A trace with a checkpoint for each element: the pages that changed."""
    writer = TraceWriter(path, MANIFEST)
    writer.set()
    for k, pages in enumerate(deltas):
        position = 100 * (k + 1)
        writer.append("states", (position, 0, position, None, "board", None, DIGEST, None))
        writer.add_checkpoint(position, 1, position, {"k": k}, sorted(pages.items()))
        writer.commit(position, 1, position)
    position = 100 * len(deltas) + 50
    writer.append("states", (position, 0, position, None, "board", None, DIGEST, DIGEST))
    writer.close(end(position))
    return path


def content(path: Path, k: int, space: int = 0) -> Pages:
    """Every page that the table of a checkpoint names, read."""
    checkpoints = Trace.open(path).checkpoints()
    return dict(checkpoints.read(checkpoints.table(k, space)))


def united(deltas: list[Pages], k: int) -> Pages:
    """What must be there: of every page the newest version."""
    pages: Pages = {}
    for delta in deltas[: k + 1]:
        pages |= delta
    return pages


INDICES = st.one_of(st.integers(RAM, RAM + RAM_PAGES - 1), st.integers(PV, PV + 15))
DELTAS = st.lists(st.dictionaries(INDICES, st.integers(0, 40).map(page), max_size=40), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DELTAS)
def test_read_gives_what_was_written(tmp_path_factory: pytest.TempPathFactory, deltas: list[Pages]) -> None:
    """Any changes, zeros and equal pages too: each checkpoint's table is the newest version of every page that ever changed."""
    path = write(tmp_path_factory.mktemp("trace") / "a.tkt", deltas)
    assert verify(path) == []
    checkpoints = Trace.open(path, verify="all").checkpoints()
    assert [entry.pages for entry in checkpoints.entries] == [len(delta) for delta in deltas]
    for k, delta in enumerate(deltas):
        assert checkpoints.state(k) == {"k": k}
        assert checkpoints.changes(k) == [(i, hashlib.sha256(delta[i]).digest()) for i in sorted(delta)]
        assert content(path, k) == united(deltas, k)
        checkpoints.check(k)


def test_where_a_checkpoint_is(tmp_path: Path) -> None:
    """The last at or before a position; none before the first."""
    checkpoints = Trace.open(write(tmp_path / "a.tkt", [{}, {}, {}])).checkpoints()
    assert [checkpoints.at_or_before(at) for at in (0, 99, 100, 101, 299, 300, 10**12)] == [None, None, 0, 0, 1, 2, 2]


def test_equal_pages_are_kept_once(tmp_path: Path) -> None:
    """Sixty pages with one content cost as much as one; pages of zeros cost nothing."""
    noise = random.Random(1).randbytes(4096)
    one = write(tmp_path / "one.tkt", [{RAM: noise}])
    many = write(tmp_path / "many.tkt", [{RAM + n: noise if n % 2 else bytes(4096) for n in range(120)}])
    sizes = [Trace.open(path).checkpoints().entries[0].bytes for path in (one, many)]
    assert sizes[1] - sizes[0] < 1000
    assert content(many, 0)[RAM + 119] == noise


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    """Byte for byte, the manifest included."""
    deltas = [{RAM + n: page(n + k) for n in range(30)} for k in range(3)]
    assert files_of(write(tmp_path / "a.tkt", deltas)) == files_of(write(tmp_path / "b.tkt", deltas))
