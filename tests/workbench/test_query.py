"""`tracekit query`: answers in every form, one run or many, and errors that point at the query."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support import busy_host, recorded, rows, tracekit

import tracekit as kit
from tracekit.analyzers.query import QueryError, table_lines

CALLS = "SELECT function, count(*) AS n FROM hypercalls GROUP BY function ORDER BY n DESC, function"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded trace."""
    path = tmp_path_factory.mktemp("query") / "steal.tkt"
    recorded(path, "steal", host=busy_host())
    return path


@pytest.fixture(scope="module")
def calls(run: Path) -> list[dict[str, Any]]:
    """The answer to CALLS, counted by hand."""
    names = [row["function"] for row in rows(run, "hypercalls")]
    return sorted(
        ({"function": name, "n": names.count(name)} for name in set(names)), key=lambda one: (-one["n"], one["function"])
    )


def test_every_form(run: Path, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    """The same answer as csv, json, parquet and arrow, on stdout and in a file whose suffix says what it is."""
    assert [json.loads(line) for line in tracekit("query", run, CALLS, "--json").stdout.splitlines()] == calls
    readers = {"csv": pl.read_csv, "ndjson": pl.read_ndjson, "parquet": pl.read_parquet, "arrow": pl.read_ipc}
    for suffix, read in readers.items():
        target = tmp_path / f"answer.{suffix}"
        done = tracekit("query", run, CALLS, "-o", target)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert read(target).to_dicts() == calls  # type: ignore[operator]
        kind = {"ndjson": "json"}.get(suffix, suffix)
        piped = subprocess.run([sys.executable, "-m", "tracekit.cli", "query", run, CALLS, "--format", kind], capture_output=True)
        assert read(io.BytesIO(piped.stdout)).to_dicts() == calls  # type: ignore[operator]
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(f"answer.{suffix}" for suffix in readers)


def test_table(run: Path, calls: list[dict[str, Any]]) -> None:
    """For people: aligned, addresses in hexadecimal, bytes as text or hexadecimal, null as a dash; `--limit` holds."""
    shown = [line.split() for line in tracekit("query", run, CALLS, "--limit", 3).stdout.splitlines()]
    assert shown == [["function", "n"], *([one["function"], str(one["n"])] for one in calls[:3])]
    frame = pl.DataFrame({"pc": [4096, None], "name": ["a", "bc"], "data": [b"x\n", b"\xff\x00"], "n": [1, 23456]})
    assert list(table_lines(frame)) == [
        "    pc  name  data       n",
        "0x1000  a     'x\\n'      1",
        "     -  bc    ff00   23456",
    ]
    assert list(table_lines(frame.clear())) == ["pc  name  data  n"]


def test_many_runs(run: Path, tmp_path: Path) -> None:
    """Several runs, or a pattern, have a column `run`."""
    other = tmp_path / "other.tkt"
    recorded(other, "hello")
    query = "SELECT run, count(*) AS n FROM console GROUP BY run ORDER BY run"
    expected = [{"run": "other", "n": len(rows(other, "console"))}, {"run": "steal", "n": len(rows(run, "console"))}]
    for names in ([run, other], [f"{run.parent}/st*.tkt", f"{tmp_path}/*.tkt"]):
        assert [json.loads(line) for line in tracekit("query", *names, query, "--json").stdout.splitlines()] == expected


@pytest.mark.parametrize(
    ("query", "message", "marked"),
    [
        ("SELECT posn FROM schedule", "no column 'posn'; did you mean position?", "posn"),
        ("SELECT s.posn FROM schedule s", "no column 'posn'; did you mean position?", "posn"),
        ("SELECT * FROM pvtime ORDER BY zz", "no column 'zz'; there are position, sequence,", "zz"),
        ("SELECT * FROM Shedule", "no table 'Shedule'; did you mean schedule?", "Shedule"),
        ("SELECT 1 FROM qqqq", "no table 'qqqq'; there are schedule, directives,", "qqqq"),
        ("SELEC * FROM schedule", "Expected: an SQL statement, found: SELEC", "S"),
        ("SELECT * FROM schedule WHERE", "Expected: an expression, found: EOF", ""),
        ("SELECT foo(position) FROM schedule", "unsupported function 'foo'", "foo"),
        ("SELECT *\nFROM schedule\nWHERE vcpu >>> 3", "Expected: an expression, found: >", ">"),
        ("SELECT 'a", "Unterminated string literal", "'"),
        ("/* x */ DROP TABLE schedule", "a query only reads", "DROP"),
        ("SELECT event, position FROM schedule GROUP BY event", "'position' should participate in the GROUP BY", "position"),
        ("SELECT position FROM pvtime JOIN schedule ON pvtime.position = schedule.position", "ambiguous reference", "position"),
        ("SELECT cast(event AS int) FROM schedule", "conversion from `str` to `i32` failed", "event"),
    ],
)
def test_errors_point_at_the_query(run: Path, query: str, message: str, marked: str) -> None:
    """What is wrong, the line of the query, and marks under the word."""
    with pytest.raises(QueryError) as caught:
        kit.open(run).sql(query)
    what, line, marks = str(caught.value).split("\n")
    assert what.startswith(message) and line.strip() in query
    begin = marks.index("^")
    assert line[begin : begin + marks.count("^")] == marked and set(marks) <= {" ", "^"}


def test_trouble(run: Path, tmp_path: Path) -> None:
    """Exit code 2 and nothing on stdout; an existing file stays as it is."""
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    for arguments, message in (
        ([run, "SELECT nonsense FROM schedule"], "no column 'nonsense'"),
        ([run, "SELECT array_agg(vcpu) FROM schedule", "--format", "csv"], "CSV format does not support nested data"),
        (["SELECT 1"], "which trace?"),
        ([tmp_path / "no.tkt", "SELECT 1"], "no such trace"),
        ([run, "SELECT * FROM read_parquet('/no/such')"], "No such file or directory"),
        ([run, "SELECT columns('(') FROM schedule"], "tracekit: polars cannot answer that"),
        ([run, "SELECT \udcff FROM schedule"], "SELECT \\udcff FROM"),
        ([CALLS + " -- swapped" + " " * 300, run], "File name too long: SELECT function"),
        ([run, CALLS, "-o", ".", "--force"], "is a folder"),
        ([run, CALLS, "-o", "/dev/stdout", "--force"], "is no regular file"),
        ([run, CALLS, "-o", taken], "exists; --force replaces it"),
        ([run, CALLS, "-o", tmp_path / "no" / "x.csv"], "does not exist"),
    ):
        done = tracekit("query", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and message in done.stderr, done
    assert taken.read_text() == "mine" and [one.name for one in tmp_path.iterdir()] == ["taken.csv"]
    assert tracekit("query", run, CALLS, "-o", taken, "--force").returncode == 0 and taken.read_text().startswith("function,n")


def test_thin_note(run: Path) -> None:
    """A thin table is said to be one, on stderr."""
    done = tracekit("query", run, "SELECT count(*) AS n FROM memory_writes", "--json")
    assert json.loads(done.stdout) == {"n": len(rows(run, "memory_writes"))}
    assert "--capture writes" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["table", "csv", "json", "arrow"])
def test_nobody_reads(run: Path, kind: str) -> None:
    """A pipe that is closed early is silent, and no trouble."""
    query = "SELECT a.* FROM pvtime a JOIN (SELECT position FROM pvtime LIMIT 20) b ON a.position > b.position"
    command = [sys.executable, "-m", "tracekit.cli", "query", str(run), query, "--format", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["table", "csv", "json", "parquet", "arrow"])
def test_a_full_disk(run: Path, kind: str) -> None:
    """Trouble, in one line: no internal error, and no exit code of a finding."""
    command = [sys.executable, "-m", "tracekit.cli", "query", str(run), "SELECT * FROM pvtime", "--format", kind]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("tracekit: cannot write the output: "), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_that_are_no_utf8(run: Path, tmp_path: Path) -> None:
    """Every command that names a trace in what it writes takes a name that Linux allows and UTF-8 does not."""
    odd = tmp_path / "odd\udcff.tkt"
    odd.symlink_to(run)
    copied = tmp_path / "copied\udcff.tkt"
    shutil.copytree(run, copied)
    done = tracekit("query", odd, "SELECT run FROM runs", "--json")
    assert json.loads(done.stdout) == {"run": "odd\\udcff"}
    for arguments in (
        ["query", copied, CALLS, "-o", tmp_path / "\udcff.csv"],
        ["report", copied, "-o", tmp_path / "\udcff.html"],
        *(["export", copied, "--to", to, "-o", tmp_path / f"{to}\udcff"] for to in ("chrome", "perfetto", "parquet", "csv")),
    ):
        done = tracekit(*arguments, errors="surrogateescape")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (tmp_path / "\udcff.csv").read_text().startswith("function,n")
