"""Writing, reading, damage, recovery and packing of traces."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import REPOSITORY, environment, files_of, replayed, tracekit

from tracekit.formats import manifest as manifests
from tracekit.formats.errors import (
    InputError,
    NotATraceError,
    TraceDamaged,
    TraceError,
    TraceExistsError,
    TraceIncompleteError,
    TraceVersionError,
)
from tracekit.formats.pack import pack, unpack
from tracekit.formats.reader import Trace
from tracekit.formats.recovery import recover
from tracekit.formats.tables import DICTIONARIES, TABLES
from tracekit.formats.units import parse_duration_ns, parse_size
from tracekit.formats.verify import verify
from tracekit.formats.writer import TraceWriter, partial_path

MANIFEST: dict[str, Any] = {
    "scenario": {"host": {"pcpus": 1}, "image": "none"},
    "machine": {"vcpus": 2, "segments": [], "pv_structures": []},
    "threads": [{"thread": n, "kind": "vcpu", "name": f"vcpu{n}"} for n in range(2)],
}
END = {"reason": "power_off", "position": 1000, "sequence": 1, "vtime_ns": 1000}
DIGEST = bytes(range(32))


def sample_rows() -> list[tuple[str, tuple[Any, ...]]]:
    """A few rows of several tables, in order."""
    rows: list[tuple[str, tuple[Any, ...]]] = [
        ("schedule", (0, 0, 0, 0, 0, "online", 0, None, "start")),
        ("schedule", (0, 1, 0, 1, 1, "offline", 0, None, "start")),
        ("schedule", (0, 2, 0, 0, 0, "run", 0, None, "start")),
    ]
    for position in range(10, 400, 10):
        rows.append(("console", (position, 0, position, 0, f"line {position}\n".encode())))
        rows.append(("memory_reads", (position, 1, position, 0, "guest", 0x4000_0000 + position, 8, position, 0x4008_0000)))
    rows.append(("states", (1000, 0, 1000, None, "board", None, DIGEST, DIGEST)))
    return rows


def write(path: Path, rows: list[tuple[str, tuple[Any, ...]]], *, commit_every: int = 0) -> Path:
    """A small whole trace."""
    writer = TraceWriter(path, MANIFEST)
    writer.add_image("kernel", "guest.elf", b"guest" * 1000)
    for index, (table, row) in enumerate(rows, start=1):
        writer.append(table, row)
        if commit_every and index % commit_every == 0:
            writer.commit(row[0], row[1] + 1, row[2])
    writer.close({**END, "position": max(1000, *(row[0] for _, row in rows), 0)})
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A whole trace."""
    return write(tmp_path / "run.tkt", sample_rows())


VALUES = {
    "u8": st.integers(0, 255),
    "u16": st.integers(0, 1),
    "u32": st.integers(0, 2**32 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "binary": st.binary(max_size=50),
    "digest": st.binary(min_size=32, max_size=32),
}
TIMES = st.integers(0, 2**63 - 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), table=st.sampled_from(sorted(TABLES)), commits=st.integers(0, 5))
def test_read_gives_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, table: str, commits: int
) -> None:
    """read(write(rows)) == rows for every table, whatever the commits."""
    columns = []
    for column in TABLES[table].columns[2:]:
        values = (
            TIMES
            if column.name == "vtime_ns"
            else st.sampled_from(DICTIONARIES[column.dictionary])
            if column.dictionary
            else VALUES[column.type]
        )
        columns.append(st.one_of(st.none(), values) if column.nullable else values)
    tails = data.draw(st.lists(st.tuples(*columns), max_size=30))
    rows = [(index, 0, *tail) for index, tail in enumerate(tails)]
    folder = tmp_path_factory.mktemp("trace")
    write(folder / "a.tkt", [(table, row) for row in rows], commit_every=commits)

    assert list(Trace.open(folder / "a.tkt", verify="all").rows(table)) == rows


def test_commits_leave_no_mark(tmp_path: Path) -> None:
    """A finished trace does not depend on when it was committed."""
    plain = files_of(write(tmp_path / "a.tkt", sample_rows()))
    committed = files_of(write(tmp_path / "b.tkt", sample_rows(), commit_every=3))

    assert plain == committed


def test_a_stranger_reads_it(trace: Path) -> None:
    """Any Arrow reader opens a table; a second reader written from SPEC.md alone agrees with ours."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    for name, entry in manifest["tables"].items():
        raw = (trace / entry["file"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == entry["sha256"]
        with pa.ipc.open_file(pa.BufferReader(raw)) as reader:
            table = reader.read_all()
        assert table.num_rows == entry["rows"]
        assert [tuple(row.values()) for row in table.to_pylist()] == list(Trace.open(trace).rows(name))
    body = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == manifest["digest"]


def test_a_trace_made_by_pyarrow_alone(trace: Path, tmp_path: Path) -> None:
    """The reader takes files that our writer did not make: the console rewritten by pyarrow, the manifest by hand."""
    other = tmp_path / "other.tkt"
    shutil.copytree(trace, other)
    schema = pa.schema(
        [
            pa.field("position", pa.uint64(), nullable=False),
            pa.field("sequence", pa.uint32(), nullable=False),
            pa.field("vtime_ns", pa.uint64(), nullable=False),
            pa.field("vcpu", pa.uint16()),
            pa.field("data", pa.binary(), nullable=False),
        ]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.RecordBatch.from_pylist([], schema))
        prelude = sink.tell()
        file.write_batch(
            pa.RecordBatch.from_pylist([{"position": 7, "sequence": 0, "vtime_ns": 7, "vcpu": 0, "data": b"hi"}], schema)
        )
        end = sink.tell()
    raw = sink.getvalue().to_pybytes()
    (other / "console.arrow").write_bytes(raw)
    manifest = json.loads((other / "trace.json").read_bytes())
    manifest["tables"]["console"] = {
        "file": "console.arrow",
        "rows": 1,
        "bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "prelude": {"length": prelude, "sha256": hashlib.sha256(raw[:prelude]).hexdigest()},
        "batches": [
            {
                "offset": prelude,
                "length": end - prelude,
                "rows": 1,
                "sha256": hashlib.sha256(raw[prelude:end]).hexdigest(),
                "position": [7, 7],
                "sequence": [0, 0],
                "vtime_ns": [7, 7],
            }
        ],
    }
    del manifest["digest"]
    manifest["digest"] = hashlib.sha256(manifests.canonical(manifest)).hexdigest()
    (other / "trace.json").write_bytes(manifests.canonical(manifest) + b"\n")

    assert list(Trace.open(other, verify="all").rows("console")) == [(7, 0, 7, 0, b"hi")]
    assert verify(other) == []


def damaged(path: Path) -> bool:
    """Whether opening with full checks names the damage; anything but a TraceError is a bug."""
    try:
        opened = Trace.open(path, verify="all")
        for name in TABLES:
            list(opened.rows(name))
    except TraceError:
        return True
    return False


def test_every_flipped_byte_is_named(trace: Path) -> None:
    """Any flipped byte in any file."""
    whole = files_of(trace)
    random.seed(1)
    for name, content in whole.items():
        places = range(len(content)) if len(content) < 1500 else sorted(random.sample(range(len(content)), 700))
        for at in places:
            (trace / name).write_bytes(content[:at] + bytes((content[at] ^ 1 << at % 8,)) + content[at + 1 :])
            assert damaged(trace), f"{name}: byte {at}"
        (trace / name).write_bytes(content)
    assert not damaged(trace)
    assert verify(trace) == []


def test_every_cut_is_named(trace: Path) -> None:
    """Any file cut at any byte."""
    for name, content in files_of(trace).items():
        for length in sorted({0, 1, 7, 8, *range(0, len(content), max(1, len(content) // 60)), len(content) - 1}):
            (trace / name).write_bytes(content[:length])
            assert damaged(trace), f"{name}: cut to {length}"
            assert verify(trace), f"{name}: cut to {length}"
        (trace / name).write_bytes(content)


def test_missing_and_extra_tables(trace: Path) -> None:
    """A table that is not there, or that nobody speaks of."""
    shutil.copy(trace / "console.arrow", trace / "extra.arrow")
    with pytest.raises(TraceDamaged, match=r"extra\.arrow does not belong"):
        Trace.open(trace)
    (trace / "extra.arrow").unlink()
    (trace / "inputs.arrow").unlink()
    with pytest.raises(TraceDamaged, match=r"inputs\.arrow is missing"):
        Trace.open(trace)


def rewritten(trace: Path, **changes: Any) -> None:
    """The manifest with other entries and a right digest."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    manifest.update(changes)
    del manifest["digest"]
    manifest["digest"] = hashlib.sha256(manifests.canonical(manifest)).hexdigest()
    (trace / "trace.json").write_bytes(manifests.canonical(manifest) + b"\n")


def test_versions(trace: Path) -> None:
    """A later minor version is read, a later major one is refused with what to do."""
    rewritten(trace, format={"name": "tracekit-trace", "major": 1, "minor": 7, "quirks": []})
    assert not damaged(trace)
    rewritten(trace, format={"name": "tracekit-trace", "major": 2, "minor": 0, "quirks": []})
    with pytest.raises(TraceVersionError, match=r"format 2\.0; this version reads 1\.x"):
        Trace.open(trace)


def test_wrong_schema(trace: Path) -> None:
    """A table under another table's name."""
    manifest = json.loads((trace / "trace.json").read_bytes())
    (trace / "inputs.arrow").write_bytes((trace / "console.arrow").read_bytes())
    rewritten(trace, tables={**manifest["tables"], "inputs": {**manifest["tables"]["console"], "file": "inputs.arrow"}})
    with pytest.raises(TraceDamaged, match="another schema"):
        list(Trace.open(trace).rows("inputs"))


def test_not_a_trace(tmp_path: Path) -> None:
    """Plain files, empty directories, other JSON."""
    (tmp_path / "file").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "trace.json").write_text("{}")
    for name, text in (
        ("file", "a plain file"),
        ("empty", "an empty directory"),
        ("json", "not a trace's manifest"),
        ("no", "no such trace"),
    ):
        with pytest.raises(NotATraceError, match=text):
            Trace.open(tmp_path / name)


@pytest.mark.parametrize("keep", [5, 20, 40, 60])
def test_an_unfinished_recording_is_recovered(tmp_path: Path, keep: int) -> None:
    """What was committed comes back, with the unfinished console row; what is missing is said."""
    rows = sample_rows()
    writer = TraceWriter(tmp_path / "run.tkt", MANIFEST)
    for index, (table, row) in enumerate(rows[: keep + 3]):
        if index == keep:
            open_row = (row[0], 0, row[2], 0, b"unfinished")
            writer.commit(row[0], 1, row[2], {"console": [open_row]})
        writer.append(table, row)
    del writer  # the process dies here

    with pytest.raises(TraceIncompleteError, match="recover"):
        Trace.open(tmp_path / "run.tkt")
    saved = recover(tmp_path / "run.tkt")
    back = Trace.open(tmp_path / "run.tkt", verify="all")
    expected = [row for table, row in rows[:keep] if table == "memory_reads"]
    assert list(back.rows("memory_reads")) == expected
    assert list(back.rows("console"))[-1][4] == b"unfinished"
    assert saved.missing
    assert back.manifest["end"]["reason"] == "recovered"


def test_a_garbled_tail_costs_only_the_last_commit(tmp_path: Path) -> None:
    """Half-written bytes after a crash: the commit before them holds."""
    rows = sample_rows()
    writer = TraceWriter(tmp_path / "run.tkt", MANIFEST)
    for index, (table, row) in enumerate(rows, start=1):
        writer.append(table, row)
        if index % 10 == 0:
            writer.commit(row[0], row[1] + 1, row[2])
    del writer
    partial = partial_path(tmp_path / "run.tkt")
    journal = (partial / "journal").read_bytes()
    (partial / "journal").write_bytes(journal[:-20])

    saved = recover(tmp_path / "run.tkt")
    assert any("cut or garbled" in text for text in saved.missing)
    assert saved.rows == len(rows) // 10 * 10 - 10


def test_a_damaged_trace_is_recovered_up_to_the_damage(tmp_path: Path) -> None:
    """Everything before the first lost row, in every table."""
    rows = [("memory_reads", (n, 0, n, 0, "guest", n, 8, n, 0)) for n in range(150_000)]
    rows += [("console", (n, 1, n, 0, b"x\n")) for n in range(0, 150_000, 1000)]
    path = write(tmp_path / "run.tkt", sorted(rows, key=lambda one: one[1][:2]))
    manifest = json.loads((path / "trace.json").read_bytes())
    batch = manifest["tables"]["memory_reads"]["batches"][1]
    content = bytearray((path / "memory_reads.arrow").read_bytes())
    content[batch["offset"] + 500] ^= 0xFF
    (path / "memory_reads.arrow").write_bytes(content)

    saved = recover(path)
    assert saved.position == 65_536
    back = Trace.open(saved.path, verify="all")
    assert back.row_count("memory_reads") == 65_536
    assert back.row_count("console") == 66
    assert any("everything from position 65536 on" in text for text in saved.missing)


def test_names_are_never_taken(trace: Path) -> None:
    """An existing trace stays until the new one is whole."""
    with pytest.raises(TraceExistsError, match="--force"):
        TraceWriter(trace, MANIFEST)
    before = files_of(trace)
    writer = TraceWriter(trace, MANIFEST, force=True)
    assert files_of(trace) == before
    writer.close(END)
    assert Trace.open(trace).row_count("console") == 0


def test_pack_and_unpack(trace: Path, tmp_path: Path) -> None:
    """One file and back, equal bytes both ways; damage in it is named."""
    pack(trace, tmp_path / "a.packed")
    pack(trace, tmp_path / "b.packed")
    assert (tmp_path / "a.packed").read_bytes() == (tmp_path / "b.packed").read_bytes()
    assert list(Trace.open(tmp_path / "a.packed", verify="all").rows("console")) == list(Trace.open(trace).rows("console"))
    unpack(tmp_path / "a.packed", tmp_path / "c.tkt")
    assert files_of(tmp_path / "c.tkt") == files_of(trace)
    with pytest.raises(InputError, match="packed already"):
        pack(tmp_path / "a.packed", tmp_path / "d")
    content = (tmp_path / "a.packed").read_bytes()
    random.seed(2)
    silent = 0
    for at in sorted(random.sample(range(len(content)), 300)):
        (tmp_path / "x.packed").write_bytes(content[:at] + bytes((content[at] ^ 0x10,)) + content[at + 1 :])
        silent += not damaged(tmp_path / "x.packed")
    assert silent < 60  # only bytes of the zip's own directory that say nothing of the content (dates, attributes)
    for length in range(0, len(content), len(content) // 40):
        (tmp_path / "x.packed").write_bytes(content[:length])
        assert damaged(tmp_path / "x.packed")


def test_commands(trace: Path, tmp_path: Path) -> None:
    """info, dump, verify, recover, pack, unpack as a user calls them."""
    assert json.loads(tracekit("info", trace, "--json").stdout)["end"]["position"] == 1000
    assert tracekit("dump", trace, "console", "--raw").stdout.startswith("line 10\nline 20\n")
    lines = tracekit("dump", trace, "console", "--json", "--from", 20, "--to", 50).stdout.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [20, 30, 40]
    assert json.loads(tracekit("verify", trace, "--json").stdout) == {"trace": str(trace), "whole": True, "findings": []}
    assert tracekit("pack", trace, "-o", tmp_path / "p").returncode == 0
    assert tracekit("verify", tmp_path / "p").returncode == 0
    assert tracekit("unpack", tmp_path / "p", "-o", tmp_path / "u.tkt").returncode == 0
    (trace / "console.arrow").write_bytes(b"")
    broken = tracekit("verify", trace)
    assert (broken.returncode, broken.stderr) == (2, "")
    assert "console.arrow" in broken.stdout
    for command in ("info", "dump"):
        done = tracekit(command, trace, *(["console"] if command == "dump" else []))
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("text", "ns"), [("3ms", 3_000_000), ("1.5s", 1_500_000_000), ("7 ns", 7), ("0.5us", 500)])
def test_durations(text: str, ns: int) -> None:
    """Numbers with units, exactly."""
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "3", "ms", "-1ms", "0.5ns", "1e3ms", "99999999999999999999s"])
def test_wrong_durations(text: str) -> None:
    """One line that says what is wanted."""
    with pytest.raises(InputError):
        parse_duration_ns(text)


def test_sizes() -> None:
    """Bytes, K, M, G."""
    assert [parse_size(text) for text in ("4096", "1K", "512M", "2GiB")] == [4096, 1024, 512 << 20, 2 << 30]
    with pytest.raises(InputError):
        parse_size("lots")


OLDER = """
import sys
import tracekit.formats.manifest as manifests
import tracekit.formats.tables as tables
tables.MINOR = manifests.MINOR = int(sys.argv[2])
if tables.MINOR == 0:
    for name, count in (("schedule.event", 14), ("schedule.reason", 21), ("directives.kind", 12)):
        tables.DICTIONARIES[name] = tables.DICTIONARIES[name][:count]
encode = manifests.encode
manifests.encode = lambda manifest: encode({key: value for key, value in manifest.items() if key != "checkpoints"})
from dataclasses import replace
from pathlib import Path
import tracekit.recorder.session as session
from support import busy_host, recorded
board_config = session.board_config
session.board_config = lambda *given: replace(board_config(*given), marks=False)
recorded(Path(sys.argv[1]), "steal", host=busy_host())
"""


@pytest.mark.parametrize("minor", [0, 1])
def test_a_trace_of_an_older_version(tmp_path: Path, minor: int) -> None:
    """1.0: shorter dictionaries, the same indices; before 1.2 no word of checkpoints and marks: whole, replayed and analysed by this version."""
    path = tmp_path / "old.tkt"
    environment_ = environment(PYTHONPATH=os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests"))))
    command = [sys.executable, "-c", OLDER, str(path), str(minor)]
    done = subprocess.run(command, env=environment_, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened = Trace.open(path)
    assert (opened.manifest["format"]["minor"], opened.manifest.get("checkpoints")) == (minor, None)
    assert opened.checkpoints().entries == ()
    assert verify(path) == []
    assert replayed(path).is_identical
    assert tracekit("analyze", path).returncode == 0
