"""The writer's background thread: bounded, in order, and silent about nothing."""

from __future__ import annotations

import errno
import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import files_of

from tracekit.formats import storage as storages
from tracekit.formats import worker as workers
from tracekit.formats.errors import DiskError
from tracekit.formats.reader import Trace
from tracekit.formats.recovery import recover
from tracekit.formats.storage import Storage
from tracekit.formats.tables import BATCH_ROWS
from tracekit.formats.verify import verify
from tracekit.formats.worker import QUEUE_BYTES, Worker
from tracekit.formats.writer import TraceWriter

MANIFEST: dict[str, Any] = {
    "scenario": {"host": {"pcpus": 1}, "image": "none"},
    "machine": {"vcpus": 1, "segments": [], "pv_structures": []},
    "threads": [{"thread": 0, "kind": "vcpu", "name": "vcpu0"}],
}
END = {"reason": "power_off", "position": 1 << 40, "sequence": 1, "vtime_ns": 1 << 40}
WIDTHS = {"position": 8, "sequence": 4, "vtime_ns": 8, "vcpu": 2, "origin": 1, "ipa": 8, "size": 1, "value": 8, "pc": 8}


def columns(first: int, count: int) -> dict[str, Any]:
    """Raw columns of `count` stores, positions from `first` on."""
    out: dict[str, Any] = {name: bytes(width * count) for name, width in WIDTHS.items()}
    for name in ("position", "vtime_ns", "value"):
        out[name] = b"".join(n.to_bytes(8, "little") for n in range(first, first + count))
    out["sequence"] = b"\0\0\0\x80" * count
    return {**out, "cause": None}


def read(first: int) -> tuple[str, tuple[Any, ...]]:
    """A row of another table."""
    return "memory_reads", (first, 0, first, 0, "guest", 0x4000_0000, 8, first, 0)


def fill(writer: TraceWriter, pieces: int = 40, size: int = 7_001) -> None:
    """Columns, rows and commits, more than the caller does itself."""
    data = columns(0, pieces * size)
    for piece in range(pieces):
        first = piece * size
        part = {
            name: None if column is None else column[first * WIDTHS[name] : (first + size) * WIDTHS[name]]
            for name, column in data.items()
        }
        writer.extend("memory_writes", part, size)
        for n in range(3):
            writer.append(*read(first + n))
        if piece % 3 == 0:
            writer.commit(first + size, 0, first + size)


def test_the_thread_comes_with_the_work(tmp_path: Path) -> None:
    """A small run has none; one with much to write has one, and it is gone afterwards."""
    before = threading.active_count()
    small = TraceWriter(tmp_path / "small.tkt", MANIFEST)
    small.append(*read(0))
    small.commit(1, 0, 1)
    assert threading.active_count() == before
    small.close(END)
    large = TraceWriter(tmp_path / "large.tkt", MANIFEST)
    fill(large)
    assert threading.active_count() == before + 1
    large.close(END)
    assert threading.active_count() == before
    assert verify(tmp_path / "large.tkt")[0].what == "the final memory digest is missing"
    assert Trace.open(tmp_path / "large.tkt", verify="all").row_count("memory_writes") == 40 * 7_001


@pytest.mark.parametrize("where", [*range(8), "slow"])
def test_bytes_do_not_depend_on_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int | str) -> None:
    """The thread is delayed here and there, or there is none: the same files, each time."""
    writer = TraceWriter(tmp_path / "plain.tkt", MANIFEST)
    fill(writer)
    writer.close(END)
    chance, do = random.Random(where), Worker._do

    def late(self: Worker, *arguments: Any) -> None:
        if where == "slow" or chance.random() < 0.2:
            time.sleep(0.002)
        do(self, *arguments)

    monkeypatch.setattr(Worker, "_do", late)
    if where == 0:
        monkeypatch.setattr(workers, "INLINE_BYTES", 1 << 40)
    elif where == 1:
        monkeypatch.setattr(workers, "INLINE_BYTES", -1)
    other = TraceWriter(tmp_path / "other.tkt", MANIFEST)
    fill(other)
    other.close(END)
    assert other._worker.has_thread == (where != 0)
    assert files_of(tmp_path / "plain.tkt") == files_of(tmp_path / "other.tkt")


class Gate:
    """A disk that writes nothing until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        add = Storage.add_columns

        def held(storage: Storage, *arguments: Any, **options: Any) -> None:
            self.opened.wait()
            add(storage, *arguments, **options)

        monkeypatch.setattr(Storage, "add_columns", held)


def test_a_slow_disk_holds_the_giver_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk stands still, no more than the queue's bytes are taken; then everything arrives."""
    gate = Gate(monkeypatch)
    writer = TraceWriter(tmp_path / "a.tkt", MANIFEST)
    data = columns(0, BATCH_ROWS)
    weight = sum(len(column) for column in data.values() if column is not None)
    given, count = [], 3 * QUEUE_BYTES // weight

    def give() -> None:
        for n in range(count):
            data["position"] = b"".join(p.to_bytes(8, "little") for p in range(n * BATCH_ROWS, (n + 1) * BATCH_ROWS))
            writer.extend("memory_writes", data, BATCH_ROWS)
            given.append(n)

    giver = threading.Thread(target=give)
    giver.start()
    while len(given) < QUEUE_BYTES // weight - 1:
        time.sleep(0.001)
    giver.join(0.3)
    assert giver.is_alive() and len(given) <= QUEUE_BYTES // weight
    gate.opened.set()
    giver.join()
    writer.close(END)
    assert QUEUE_BYTES - weight < writer.weight_max <= QUEUE_BYTES
    assert Trace.open(tmp_path / "a.tkt", verify="all").row_count("memory_writes") == count * BATCH_ROWS


def test_lent_columns_come_back(tmp_path: Path) -> None:
    """A lent buffer is read before it is given back, and not afterwards; each comes back once, also when nothing can be written."""
    for fails in (False, True):
        writer = TraceWriter(tmp_path / f"{fails}.tkt", MANIFEST)
        back: list[int] = []
        if fails:
            writer._worker.failure = DiskError("full")
        for n, count in enumerate((BATCH_ROWS, 5, BATCH_ROWS, BATCH_ROWS - 5, 7)):
            lent = {k: v if v is None else bytearray(v) for k, v in columns(n * BATCH_ROWS, count).items()}

            def spoil(number: int = n, buffers: dict[str, Any] = lent, back: list[int] = back) -> None:
                for buffer in buffers.values():
                    if buffer is not None:
                        buffer[:] = b"\xff" * len(buffer)
                back.append(number)

            if fails:
                with pytest.raises(DiskError):
                    writer.extend("memory_writes", lent, count, spoil)
            else:
                writer.extend("memory_writes", lent, count, spoil)
        if fails:
            writer.abandon()
        else:
            writer.close(END)
            rows = list(Trace.open(tmp_path / "False.tkt", verify="all").rows("memory_writes"))
            assert [row[0] for row in rows[:3]] == [0, 1, 2]
            assert [row[7] for row in rows] == [row[0] for row in rows]
        assert back == [0, 1, 2, 3, 4]


def full(*_: Any, **__: Any) -> None:
    """What a disk says that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


STEPS = {
    "manifest": (Storage, "_save_manifest"), "image": (storages, "_write_all"), "rows": ("TableWriter", "add_rows"),
    "columns": ("TableWriter", "add_columns"), "commit": ("TableWriter", "commit"), "close": ("TableWriter", "close"),
    "name": (Storage, "_take_name"),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("threaded", [False, True])
def test_every_error_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, threaded: bool) -> None:
    """Wherever the disk fails, one of the next calls says so, every later one too, and no thread stays."""
    before = threading.active_count()
    monkeypatch.setattr(workers, "INLINE_BYTES", -1 if threaded else 1 << 40)
    writer = TraceWriter(tmp_path / "a.tkt", MANIFEST)
    where, name = STEPS[step]
    monkeypatch.setattr(storages.TableWriter if isinstance(where, str) else where, name, full)
    with pytest.raises(DiskError, match=r"cannot write .*No space left on device; what was committed can be had with"):
        writer.add_image("kernel", "a", b"x")
        writer.set(engine={})
        fill(writer)
        writer.close(END)
    with pytest.raises(DiskError):
        writer.commit(1, 0, 1)
    with pytest.raises(DiskError):
        writer.close(END)
    assert not (tmp_path / "a.tkt").exists()
    writer.abandon()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_our_own_mistakes_come_out(tmp_path: Path) -> None:
    """A name that no dictionary has is no disk error."""
    writer = TraceWriter(tmp_path / "a.tkt", MANIFEST)
    writer.append("schedule", (0, 0, 0, 0, 0, "explode", 0, None, "start"))
    with pytest.raises(KeyError, match="explode"):
        writer.close(END)
    writer.abandon()


def test_a_dropped_writer_leaves_what_it_was_given(tmp_path: Path) -> None:
    """No thread stays; everything up to the last commit can be recovered, rests that fill a batch later included."""
    before = threading.active_count()
    writer = TraceWriter(tmp_path / "a.tkt", MANIFEST)
    fill(writer)
    del writer
    gc.collect()
    assert threading.active_count() == before
    saved = recover(tmp_path / "a.tkt")
    assert saved.position == 40 * 7_001
    back = Trace.open(tmp_path / "a.tkt", verify="all")
    assert [row[0] for row in back.rows("memory_writes")] == list(range(40 * 7_001))
    assert back.row_count("memory_reads") == 120


def test_an_interrupted_wait_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the queue is full: the job is in the queue all the same."""
    monkeypatch.setattr(workers, "INLINE_BYTES", -1)
    worker, done, gate = Worker(), [], threading.Event()
    job: Callable[[int], Callable[[], None]] = lambda n: lambda: (gate.wait(), done.append(n))[1]
    worker.put(job(0), QUEUE_BYTES)

    def interrupted(timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker._changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.put(job(1), QUEUE_BYTES)
    gate.set()
    worker.finish()
    assert done == [0, 1]


LEFT_OPEN = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_writer import MANIFEST, TraceWriter, fill
writer = TraceWriter(Path(sys.argv[1]), MANIFEST)
fill(writer)
if {fails}:
    raise RuntimeError("the recorder's own mistake")
"""


@pytest.mark.parametrize("fails", [False, True])
def test_the_interpreter_ends_with_a_writer_left_open(tmp_path: Path, fails: bool) -> None:
    """It does not hang, and what was committed can be recovered."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", LEFT_OPEN.format(fails=fails), str(tmp_path / "a.tkt"), str(here), str(here.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == fails and ("own mistake" in done.stderr) == fails, done.stderr
    assert recover(tmp_path / "a.tkt").position == 40 * 7_001
