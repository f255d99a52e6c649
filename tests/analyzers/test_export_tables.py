"""Parquet and CSV: every row and type of the trace; and what an export may and may not write over."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from handmade import Handmade
from support import busy_host, files_of, recorded, rows, tracekit

from tracekit.analyzers.export import folders
from tracekit.analyzers.export.export import export
from tracekit.analyzers.export.window import Window
from tracekit.formats import parquet
from tracekit.formats.errors import DiskError, InputError, TraceExistsError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import DICTIONARIES, TABLES

POLARS = {
    "u8": pl.UInt8,
    "u16": pl.UInt16,
    "u32": pl.UInt32,
    "u64": pl.UInt64,
    "i32": pl.Int32,
    "binary": pl.Binary,
    "digest": pl.Binary,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run with rows in nearly every table."""
    path = tmp_path_factory.mktemp("tables") / "my run=1.tkt"
    recorded(path, "steal", host=busy_host())
    return path


def test_parquet_has_every_row_and_type(run: Path, tmp_path: Path) -> None:
    """Read by polars as a lake."""
    export(run, "parquet", tmp_path / "lake")
    for name, table in TABLES.items():
        frame = pl.scan_parquet(tmp_path / "lake" / name, hive_partitioning=True)
        schema = frame.collect_schema()
        for column in table.columns:
            wanted = pl.Enum(DICTIONARIES[column.dictionary]) if column.dictionary else POLARS[column.type]
            assert schema[column.name] == wanted, (name, column.name)
        assert frame.drop("run").collect().to_dicts() == rows(run, name)
        runs = frame.select("run").unique().collect()["run"].to_list()
        assert runs == (["my run=1"] if rows(run, name) else [])


def test_row_groups_are_bounded_and_told_apart(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics on position fit to the rows, follow each other and let a reader skip."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1000)
    monkeypatch.setattr(folders, "PART_ROWS", 8000)
    export(run, "parquet", tmp_path / "lake", tables=["pvtime"])
    parts = sorted((tmp_path / "lake" / "pvtime" / "run=my%20run%3D1").iterdir())
    assert len(parts) == 3 and not (tmp_path / "lake" / "schedule").exists()
    positions = [row["position"] for row in rows(run, "pvtime")]
    at = 0
    for part in parts:
        file = pq.ParquetFile(part)
        assert file.metadata.num_rows <= 8000
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            assert group.num_rows == min(1000, len(positions) - at)
            by_name = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
            statistics = by_name["position"].statistics
            assert (statistics.min, statistics.max) == (positions[at], positions[at + group.num_rows - 1])
            assert statistics.null_count == 0 and by_name["vtime_ns"].statistics.has_min_max
            assert [one.column_index for one in group.sorting_columns] == [0, 1]
            at += group.num_rows
    assert at == len(positions)
    middle = positions[len(positions) // 2]
    found = pl.scan_parquet(parts).filter(pl.col("position") == middle).collect()
    assert found.height == positions.count(middle)


def test_batches_change_nothing(tmp_path: Path) -> None:
    """The same rows give the same Parquet, whatever batches the trace has."""
    made = Handmade().begin()
    for turn in range(50):
        made.schedule(turn * 10, 0, "run" if turn % 2 else "preempt", "slice")
    for name, batch_rows in (("a", 7), ("b", 65_536)):
        (tmp_path / name).mkdir()
        export(made.write(tmp_path / name / "t.tkt", batch_rows), "parquet", tmp_path / name / "out")
    whole, cut = (files_of(tmp_path / name / "out") for name in "ab")
    for one in (whole, cut):
        one.pop("export.json")
    assert whole == cut


def test_csv_has_every_row(run: Path, tmp_path: Path) -> None:
    """Read by Python's own reader: nulls are empty, binaries hexadecimal."""
    export(run, "csv", tmp_path / "csv")
    for name, table in TABLES.items():
        with (tmp_path / "csv" / f"{name}.csv").open(newline="") as file:
            head, *found = csv.reader(file)
        assert head == [column.name for column in table.columns]
        assert found == [[_cell(value) for value in row.values()] for row in rows(run, name)]


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None else str(value)


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_the_index_tells_what_is_there(run: Path, tmp_path: Path, to: str) -> None:
    """Every file with its hash, every table's rows and columns, and the trace's manifest."""
    done = export(run, to, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "export.json").read_text())
    assert index["to"] == to and index["run"] == "my run=1" and index["trace"] == Trace.open(run).manifest
    told = {file["path"]: file["sha256"] for table in index["tables"].values() for file in table["files"]}
    there = {name: hashlib.sha256(raw).hexdigest() for name, raw in files_of(tmp_path / "out").items() if name != "export.json"}
    assert told == there
    assert {name: table["rows"] for name, table in index["tables"].items()} == done.counts
    assert done.counts == {name: len(rows(run, name)) for name in TABLES}
    again = export(run, to, tmp_path / "again")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "again") and again.size == done.size


@pytest.mark.parametrize("to", ["parquet", "csv"])
@pytest.mark.parametrize(
    "window", [Window(2_000_000, 5_000_000), Window(to_position=1), Window(from_ns=3_000_000, to_ns=4_000_000), Window(1 << 60)]
)
def test_windows(run: Path, tmp_path: Path, to: str, window: Window) -> None:
    """Exactly the rows inside."""
    done = export(run, to, tmp_path / "out", window=window)
    for name in TABLES:
        inside = [
            row for row in rows(run, name)
            if window.from_position <= row["position"] < (window.to_position or 1 << 64)
            and window.from_ns <= row["vtime_ns"] < (window.to_ns or 1 << 64)
        ]  # fmt: skip
        assert done.counts[name] == len(inside)
        if to == "parquet":
            assert pl.read_parquet(tmp_path / "out" / name / "**/*.parquet", hive_partitioning=False).to_dicts() == inside


def test_nothing_is_written_over_unasked(run: Path, tmp_path: Path) -> None:
    """Neither files nor folders; --force replaces what an export made, and nothing else; the trace is never hit."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "letter").write_text("dear")
    for output in (kept, tmp_path / "a.json"):
        (tmp_path / "a.json").touch()
        with pytest.raises(TraceExistsError, match="--force"):
            export(run, "csv" if output.is_dir() else "chrome", output)
    for to in ("csv", "chrome"):
        with pytest.raises(TraceExistsError, match="no export made"):
            export(run, to, kept, force=True)
    assert files_of(kept) == {"letter": b"dear"}
    for output in (run, run / "out", run.parent):
        with pytest.raises(InputError, match="the trace"):
            export(run, "csv", output, force=True)
    with pytest.raises(DiskError, match="does not exist"):
        export(run, "csv", tmp_path / "none" / "out")
    for to in ("csv", "parquet", "csv", "chrome", "parquet"):
        export(run, to, tmp_path / "a.json", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "kept"]


def test_a_damaged_trace_leaves_nothing(run: Path, tmp_path: Path) -> None:
    """A batch that was altered stops every format; nothing new is left, and nothing old is lost."""
    spoilt = tmp_path / "spoilt.tkt"
    spoilt.mkdir()
    for name, raw in files_of(run).items():
        (spoilt / name).parent.mkdir(exist_ok=True)
        (spoilt / name).write_bytes(raw)
    at = Trace.open(run).manifest["tables"]["schedule"]["batches"][0]
    raw = bytearray((spoilt / "schedule.arrow").read_bytes())
    raw[at["offset"] + at["length"] // 2] ^= 1
    (spoilt / "schedule.arrow").write_bytes(raw)
    for to in ("perfetto", "chrome", "parquet", "csv"):
        before = tmp_path / f"before.{to}"
        export(run, to, before)
        there = files_of(before) or before.read_bytes()
        for output, force in ((tmp_path / "out", []), (before, ["--force"])):
            done = tracekit("export", spoilt, "--to", to, "-o", output, *force)
            assert done.returncode == 2 and "altered" in done.stderr and done.stdout == ""
        assert (files_of(before) or before.read_bytes()) == there, "the old one stays"
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"spoilt", "before"} and len(list(tmp_path.iterdir())) == 5


def test_command(run: Path, tmp_path: Path) -> None:
    """JSON, text, a default name, and what is refused with exit code 2."""
    done = tracekit(
        "export", run, "--to", "csv", "-o", tmp_path / "o", "--tables", "console,schedule", "--to-time", "5ms", "--json"
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0 and list(told["counts"]) == ["schedule", "console"] and told["window"]["to_ns"] == 5_000_000
    assert told["bytes"] == sum(len(raw) for raw in files_of(tmp_path / "o").values())
    done = tracekit("export", run, "--to", "chrome", cwd=tmp_path)
    assert (
        done.returncode == 0 and done.stdout.startswith("my run=1.trace.json: ") and (tmp_path / "my run=1.trace.json").is_file()
    )
    for arguments, words in (
        (["--to", "csv", "--tables", "calls"], "no table 'calls'"),
        (["--to", "chrome", "--tables", "blocks"], "no table 'blocks' for chrome"),
        (["--to", "csv", "--tables", ","], "no table is left"),
        (["--to", "csv", "--from", "5", "--to-position", "5"], "between 5 and 5"),
        (["--to", "csv", "--from-time", "5"], "not a duration"),
        (["--to", "svg"], "svg"),
        ([], "--to"),
    ):
        done = tracekit("export", run, *arguments, "-o", tmp_path / "none")
        assert done.returncode == 2 and words in done.stderr and done.stdout == "", arguments
    assert not (tmp_path / "none").exists()


def test_a_packed_trace(run: Path, tmp_path: Path) -> None:
    """The same export as of the folder."""
    packed = tmp_path / "my run=1.tkt"
    assert tracekit("pack", run, "-o", packed).returncode == 0
    for to in ("perfetto", "parquet"):
        export(run, to, tmp_path / "a")
        export(packed, to, tmp_path / "b")
        there = [files_of(path) if path.is_dir() else path.read_bytes() for path in (tmp_path / "a", tmp_path / "b")]
        assert there[0] == there[1]
        tracekit("export", run, "--to", "csv", "-o", tmp_path / "a", "--force")
        for path in (tmp_path / "a", tmp_path / "b"):
            path.rename(tmp_path / f"{to}-{path.name}")
