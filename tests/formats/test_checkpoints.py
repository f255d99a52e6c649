"""Checkpoint files: what is read is what was written; damage is named; thinning and recovery lose no page."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from array import array
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import files_of, tracekit

from tracekit.formats import checkpoint_writer
from tracekit.formats import manifest as manifests
from tracekit.formats.checkpoint_file import Changes, Head, encode_file
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.frames import deflate, inflate
from tracekit.formats.pack import pack, unpack
from tracekit.formats.reader import Trace
from tracekit.formats.recovery import recover
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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(INDICES, st.integers(0, 12).map(page), max_size=30), min_size=8, max_size=30))
def test_thinning_keeps_every_page_of_what_survives(tmp_path_factory: pytest.TempPathFactory, deltas: list[Pages]) -> None:
    """With room for eight: any survivor restores exactly what it did before, after one merge and after several."""
    folder = tmp_path_factory.mktemp("trace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "CHECKPOINTS_MAX", 8)
        path = write(folder / "a.tkt", deltas)
    assert verify(path) == []
    checkpoints = Trace.open(path).checkpoints()
    assert len(checkpoints.entries) <= 8
    assert checkpoints.entries[-1].position == 100 * len(deltas)
    for k, entry in enumerate(checkpoints.entries):
        number = entry.position // 100 - 1
        assert checkpoints.state(k) == {"k": number}
        assert content(path, k) == united(deltas, number)
    files = {name for name in files_of(path) if name.startswith("checkpoints/")}
    assert files == {entry.file for entry in checkpoints.entries}


def test_every_second_goes_and_frames_go_over_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight and one, five stay; no page is compressed again, and frames without a live page are gone."""
    monkeypatch.setattr(checkpoint_writer, "CHECKPOINTS_MAX", 8)
    noise = [random.Random(k).randbytes(4096) for k in range(9 * 16)]
    deltas = [{RAM + n: noise[16 * k + n] for n in range(16)} for k in range(9)]  # always the same sixteen pages
    checkpoints = Trace.open(write(tmp_path / "a.tkt", deltas)).checkpoints()
    assert [entry.position for entry in checkpoints.entries] == [200, 400, 600, 800, 900]
    assert all(entry.bytes < 18 * 4096 for entry in checkpoints.entries)


def test_snapshots_lie_in_spaces_of_their_own(tmp_path: Path) -> None:
    """The pages of a kept snapshot are no pages of the machine, and come back beside them."""
    kept = 1 << 24
    deltas = [{RAM: page(1), RAM + 3: page(2)}, {RAM: page(3), kept | RAM: page(1), kept | PV: page(4)}, {RAM + 1: page(5)}]
    path = write(tmp_path / "a.tkt", deltas)
    assert verify(path) == []
    assert content(path, 2) == {RAM: page(3), RAM + 1: page(5), RAM + 3: page(2)}
    assert content(path, 2, space=1) == {RAM: page(1), PV: page(4)}
    assert content(path, 0, space=1) == {}
    assert [index for index, _ in Trace.open(path).checkpoints().changes(1, space=1)] == [PV, RAM]


# --- crashes ------------------------------------------------------------------------------------------------------------------


def crash(path: Path, deltas: list[Pages]) -> list[Pages]:
    """A recording that dies behind its last checkpoint, before the next commit. Gives what was committed."""
    writer = TraceWriter(path, MANIFEST)
    writer.set()
    for k, pages in enumerate(deltas):
        position = 100 * (k + 1)
        writer.append("states", (position, 0, position, None, "board", None, DIGEST, None))
        writer.add_checkpoint(position, 1, position, {"k": k}, sorted(pages.items()))
        if k < len(deltas) - 1:
            writer.commit(position, 1, position)
    del writer
    return deltas[:-1]


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 10, 17])
def test_recovery_keeps_what_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Also in the middle of thinning: what the last journal line lists is there, and restores what it did."""
    monkeypatch.setattr(checkpoint_writer, "CHECKPOINTS_MAX", 8)
    deltas = [{RAM + n: page(7 * k + n) for n in range(k, k + 20)} for k in range(count + 1)]
    committed = crash(tmp_path / "a.tkt", deltas)
    recover(tmp_path / "a.tkt")
    path = tmp_path / "a.tkt"
    assert verify(path) == []
    checkpoints = Trace.open(path).checkpoints()
    assert checkpoints.entries[-1].position == 100 * count
    for k, entry in enumerate(checkpoints.entries):
        assert content(path, k) == united(committed, entry.position // 100 - 1)


def test_recovery_leaves_out_what_is_not_whole(tmp_path: Path) -> None:
    """A file that is cut takes those behind it along; what comes before it and every row stay."""
    deltas = [{RAM + k: page(k + 1)} for k in range(6)]
    crash(tmp_path / "a.tkt", deltas)
    lines = (tmp_path / "a.tkt.partial" / "journal").read_text().splitlines()
    third = tmp_path / "a.tkt.partial" / json.loads(lines[2])["checkpoints"][0]["file"]
    third.write_bytes(third.read_bytes()[:-10])
    saved = recover(tmp_path / "a.tkt")
    assert saved.position == 500
    assert any("checkpoint 2 (position 300)" in text and "2 checkpoints behind it" in text for text in saved.missing)
    path = tmp_path / "a.tkt"
    assert verify(path) == []
    assert [entry.position for entry in Trace.open(path).checkpoints().entries] == [100, 200]
    assert content(path, 1) == united(deltas, 1)


def test_a_damaged_trace_keeps_its_whole_checkpoints(tmp_path: Path) -> None:
    """Rows are not lost because a checkpoint is; checkpoints behind the first lost row are."""
    path = write(tmp_path / "a.tkt", [{RAM + k: page(k + 1)} for k in range(4)])
    entries = Trace.open(path).checkpoints().entries
    (path / entries[2].file).write_bytes(b"")
    saved = recover(path)
    assert saved.position == 450
    assert verify(saved.path) == []
    assert Trace.open(saved.path).checkpoints().entries == entries[:2]
    assert sum("checkpoint 2" in text for text in saved.missing) == 1


# --- damage -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two checkpoints, with zeros, equal pages, and a snapshot."""
    first = {RAM + n: page(n % 5) for n in range(40)}
    return write(tmp_path / "run.tkt", [first, {RAM + 1: page(9), 1 << 24 | RAM: page(10), PV: page(11)}])


def test_flipped_bytes_and_cuts_are_named(trace: Path) -> None:
    """With the file that it is in; opening with all checks refuses too."""
    names = [entry.file for entry in Trace.open(trace).checkpoints().entries]
    for name in names:
        content = (trace / name).read_bytes()
        for at in range(0, len(content), 3):
            (trace / name).write_bytes(content[:at] + bytes((content[at] ^ 1 << at % 8,)) + content[at + 1 :])
            assert [finding.where for finding in verify(trace)] == [name], at
        with pytest.raises(TraceDamaged, match="checkpoint"):
            Trace.open(trace, verify="all")
        for length in range(0, len(content), 29):
            (trace / name).write_bytes(content[:length])
            (finding,) = verify(trace)
            assert name in finding.what, length
        (trace / name).unlink()
        assert name in verify(trace)[0].what
        (trace / name).write_bytes(content)
    assert verify(trace) == []
    (trace / "checkpoints" / "stray").write_bytes(b"")
    assert "does not belong" in verify(trace)[0].what


def forged(trace: Path, k: int, raw: bytes) -> None:
    """Put another file in the place of checkpoint k, with a name that fits, and a manifest that lists it."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    entry = manifest["checkpoints"][k]
    (trace / entry["file"]).unlink()
    entry["file"], entry["bytes"] = f"checkpoints/{hashlib.sha256(raw).hexdigest()}.ckpt", len(raw)
    (trace / entry["file"]).write_bytes(raw)
    (trace / "trace.json").write_bytes(manifests.encode(manifest))


def parts(raw: bytes) -> tuple[Head, bytes, Changes, list[bytes]]:
    """A file taken apart: header, state, changes, frames as stored."""
    head = Head.decode(raw, len(raw))
    state = inflate(raw[head.state_offset : head.changes_offset], head.state_bytes)
    changes_raw = inflate(raw[head.changes_offset : head.frames_offset], head.changes_bytes)
    changes = Changes.decode(changes_raw, head, ((0, 1 << 24),), len(raw))
    offsets = changes.frame_offsets()
    return head, state, changes, [raw[head.frames_offset + a : head.frames_offset + b] for a, b in pairwise(offsets)]


def test_frames_that_claim_pages_take_no_memory() -> None:
    """A file of little more than zeros that says that it has millions of pages in frames: what is told of each row is all that is kept."""
    count = 1 << 17
    columns = (range(count), range(0, count << 4, 16), [0] * count, [16] * count)
    raw = b"".join(array("I", column).tobytes() for column in columns) + bytes(32 * count)
    head = Head(0, 0, 0, 0, 0, 0, count, count)
    tracemalloc.start()
    try:
        changes = Changes.decode(raw, head, ((0, 1 << 24),), head.frames_offset)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(changes.places) == count and peak < 5 * len(raw)


def test_any_forged_file_is_named(trace: Path) -> None:
    """Bytes changed, with a hash that fits: what it changes is named, or means nothing; never anything but a finding."""
    (original,) = [(trace / Trace.open(trace).checkpoints().entries[0].file).read_bytes()]
    chance = random.Random(3)
    silent = 0
    for at in (*range(48), *sorted(chance.sample(range(48, len(original)), 250))):
        forged(trace, 0, original[:at] + bytes((original[at] ^ 1 << chance.randrange(8),)) + original[at + 1 :])
        findings = verify(trace)
        silent += not findings
        if findings:
            read_all(trace)
    assert silent < 20  # bits that a zstd frame does not look at
    for length in range(0, len(original), 31):
        forged(trace, 0, original[:length])
        assert verify(trace) != []
        read_all(trace)


def read_all(path: Path) -> None:
    """All that can be asked of the checkpoints; nothing but TraceDamaged comes."""
    checkpoints = Trace.open(path).checkpoints()
    for k in range(len(checkpoints.entries)):
        with suppress(TraceDamaged):
            checkpoints.state(k)
        with suppress(TraceDamaged):
            dict(checkpoints.read(checkpoints.table(k)))


def test_hostile_files(trace: Path) -> None:
    """Each part of a file, wrong in a way of its own, and the words that say so."""
    raw = (trace / Trace.open(trace).checkpoints().entries[0].file).read_bytes()
    head, state, changes, frames = parts(raw)

    def of(changed: Changes = changes, told: bytes = state, pages: list[bytes] | None = None) -> bytes:
        return encode_file(head.position, head.sequence, head.vtime_ns, told, changed, frames if pages is None else pages)

    def columns(**values: Any) -> Changes:
        return replace(changes, **{name: array("I", value) for name, value in values.items()})

    count, first = len(changes.indices), len(frames[0])
    bomb = deflate(bytes(1 << 26))
    cases = {
        "begin as a checkpoint": b"PK" + raw[2:],
        "speaks of more than there is": replace(head, state_stored=1 << 31).encode() + raw[len(head.encode()) :],
        "a state of 4294967295 bytes": replace(head, state_bytes=(1 << 32) - 1).encode() + raw[len(head.encode()) :],
        "8388609 changed pages": replace(head, changes=(1 << 23) + 1).encode() + raw[len(head.encode()) :],
        "not what the manifest says": replace(head, position=99).encode() + raw[len(head.encode()) :],
        "ascending": of(columns(indices=[*changes.indices[1:], changes.indices[0]])),
        "no memory": of(columns(indices=[1, *changes.indices[1:]])),
        "of space 70": of(columns(indices=[*changes.indices[:-1], 70 << 24 | RAM])),
        "does not hold": of(columns(places=[15, *changes.places[1:]])),
        "frame of 67108864 bytes": of(columns(frame_bytes=[len(bomb)]), pages=[bomb]),
        "1 to 16 pages": of(columns(frame_pages=[17])),
        "do not fill it": of(columns(frame_bytes=[first - 1])),
        "not the one that its digest says": of(replace(changes, digests=changes.digests[32:] + changes.digests[:32])),
        "cannot be unpacked": of(pages=[bytes(first)]),
        "no canonical JSON object": of(told=b"[1]"),
        "is no JSON": of(told=b"[" * 100_000),
        "state is no JSON": of(told=b'{"a": "\xff"}'),
        "its state is no JSON": of(told=b'{"a": ' + b"9" * 10_000 + b"}"),
    }
    assert count == 40
    for words, content in cases.items():
        forged(trace, 0, content)
        finding, *_ = verify(trace)
        assert words in finding.what
        assert finding.where.startswith("checkpoints/")
        read_all(trace)


@pytest.mark.parametrize(
    "change",
    [
        {"position": 200}, {"position": -1}, {"position": 300}, {"bytes": "1"}, {"file": "checkpoints/../trace.json"}, {"file": 7}, {"more": 1},
        {"pages": None}, {"vtime_ns": 1 << 64},
    ],
)  # fmt: skip
def test_a_manifest_that_lists_what_cannot_be(trace: Path, change: dict[str, Any]) -> None:
    """Order, the end, names and counts of the list are checked before anything is read."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    manifest["checkpoints"][0].update(change)
    (trace / "trace.json").write_bytes(manifests.encode(manifest))
    with pytest.raises(TraceDamaged, match="manifest has not the form"):
        Trace.open(trace)


def test_a_checkpoint_stands_behind_states(trace: Path) -> None:
    """One that stands elsewhere cannot have been compared by anybody."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    raw = (trace / manifest["checkpoints"][0]["file"]).read_bytes()
    manifest["checkpoints"][0]["position"] = 99
    (trace / "trace.json").write_bytes(manifests.encode(manifest))
    forged(trace, 0, replace(parts(raw)[0], position=99).encode() + raw[len(parts(raw)[0].encode()) :])
    assert any("does not stand behind" in finding.what for finding in verify(trace))


def test_pack_and_unpack(trace: Path, tmp_path: Path) -> None:
    """They travel along, byte for byte, and are read from the packed file."""
    pack(trace, tmp_path / "a.packed")
    assert verify(tmp_path / "a.packed") == []
    assert content(tmp_path / "a.packed", 1) == content(trace, 1)
    unpack(tmp_path / "a.packed", tmp_path / "b.tkt")
    assert files_of(tmp_path / "b.tkt") == files_of(trace)


def test_force_replaces_checkpoints_too(trace: Path) -> None:
    """Nothing of the old trace's is left."""
    writer = TraceWriter(trace, MANIFEST, force=True)
    writer.append("states", (50, 0, 50, None, "board", None, DIGEST, DIGEST))
    writer.close(end(50))
    assert Trace.open(trace).checkpoints().entries == ()
    assert not [name for name in files_of(trace) if name.startswith("checkpoints/")]
    assert verify(trace) == []


def test_info_tells_of_them(trace: Path) -> None:
    """How many, how far apart, how large."""
    text = tracekit("info", trace).stdout
    assert "checkpoints 2, one each 100 instructions, 43 pages" in text
    told = json.loads(tracekit("info", trace, "--json").stdout)["checkpoints"]
    assert [one["position"] for one in told] == [100, 200]
