"""One trace and many as tables: everything is there, nothing is read needlessly, damage is seen, SQL errors point."""

from __future__ import annotations

import copy
import gc
import pickle
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import handmade
import polars as pl
import pytest
from handmade import Handmade
from hypothesis import given, settings
from hypothesis import strategies as st
from support import busy_host, recorded, rows

import tracekit
from tracekit.analyzers.pruning import conjuncts, might_hold
from tracekit.formats.pack import pack
from tracekit.formats.reader import Trace
from tracekit.formats.tables import DICTIONARIES, TABLES

MANY = 200


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded trace; packed beside it."""
    path = tmp_path_factory.mktemp("run") / "steal.tkt"
    recorded(path, "steal", host=busy_host())
    pack(path, path.with_name("packed.tkt"))
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of many small batches: 302 rows of `schedule`, ten in a batch."""
    return turns().write(tmp_path_factory.mktemp("long") / "long.tkt", batch_rows=10)


def turns() -> Handmade:
    """Two vCPUs take 150 turns."""
    trace = Handmade(2).begin()
    for turn in range(150):
        trace.schedule(turn * 100, turn % 2, "run", "slice")
        trace.schedule(turn * 100 + 50, turn % 2, "preempt", "slice")
    return trace


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """(trace, table, batch) as they are read."""
    seen: list[tuple[str, str, int]] = []
    original = Trace.batch

    def batch(self: Trace, name: str, index: int) -> Any:
        seen.append((self.path.name, name, index))
        return original(self, name, index)

    monkeypatch.setattr(Trace, "batch", batch)
    return seen


# --- one trace ----------------------------------------------------------------------------------------------------------------------


LIGHT = """
import sys, tracekit
assert not {"polars", "pyarrow", "unicorn", "click", "rich", "zstandard"} & set(sys.modules)
"""
WHOLE = """
import tracekit
assert {*tracekit.__all__} <= {*dir(tracekit)}
assert all(callable(getattr(tracekit, name)) for name in tracekit.__all__)
import tracekit.replay.session
assert callable(tracekit.replay) and tracekit.replay.session.Replay
try: tracekit.nonsense
except AttributeError: print("good")
"""


@pytest.mark.parametrize("program", [LIGHT + WHOLE, "import tracekit.replay.session" + WHOLE], ids=["light", "replay first"])
def test_import(program: str) -> None:
    """`import tracekit` loads nothing; `dir` and `__all__` know what there is; the replay package can be called whoever imports it first."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "good\n", done.stderr


@pytest.mark.parametrize("verify", ["read", "none"])
def test_a_relative_path_stays_where_it_was(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str) -> None:
    """Also when the process has gone elsewhere since."""
    monkeypatch.chdir(run.parent)
    with tracekit.open(run.name, verify=verify) as t:
        monkeypatch.chdir(tmp_path)
        assert t.schedule.select(pl.len()).collect().item() == len(rows(run, "schedule"))
        assert tracekit.replay(t).is_identical
        assert str(t.path) == run.name


@pytest.mark.parametrize("name", ["steal.tkt", "packed.tkt"])
@pytest.mark.parametrize("verify", ["read", "all", "none"])
def test_tables_are_the_trace(run: Path, name: str, verify: str) -> None:
    """Every table has the rows that the reader gives, and the types of SPEC."""
    with tracekit.open(run.with_name(name), verify=verify) as t, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in TABLES:
            frame: pl.LazyFrame = getattr(t, table)
            assert frame.collect_schema() == frame.collect().schema
            assert frame.collect().to_dicts() == rows(run, table), table
            assert frame.select(pl.len()).collect().item() == len(rows(run, table))
            assert frame.select("vcpu").collect().columns == ["vcpu"]
        late = t.schedule
    with pytest.raises(tracekit.InputError, match="was closed"):
        t.schedule.collect()
    if name == "packed.tkt":
        with pytest.raises(tracekit.InputError, match="was closed"):
            late.collect()


def test_what_is_not_there(run: Path, tmp_path: Path) -> None:
    """Wrong names and options say what there is."""
    t = tracekit.open(run)
    with pytest.raises(KeyError, match="no table 'nonsense'; there are schedule"):
        t.table("nonsense")
    with pytest.raises(tracekit.InputError, match="must be one of read, all, none"):
        tracekit.open(run, verify="some")
    with pytest.raises(tracekit.TraceError, match="no such trace"):
        tracekit.open(tmp_path / "nothing.tkt")


def test_damage_is_seen(run: Path, tmp_path: Path) -> None:
    """A spoilt batch is named when it is read, or at once, or never: as was asked for."""
    path = Path(shutil.copytree(run, tmp_path / "spoilt.tkt"))
    batch = Trace.open(path).manifest["tables"]["schedule"]["batches"][0]
    raw = bytearray((path / "schedule.arrow").read_bytes())
    raw[batch["offset"] + batch["length"] - 20] ^= 1
    (path / "schedule.arrow").write_bytes(raw)
    t = tracekit.open(path)
    assert t.hypercalls.collect().height
    for engine in ("in-memory", "streaming"):
        with pytest.raises(tracekit.TraceDamaged, match=r"schedule\.arrow: batch 0 .* altered"):
            t.schedule.collect(engine=engine)  # type: ignore[call-overload]
    with pytest.raises(tracekit.TraceDamaged, match="altered"):
        t.sql("SELECT count(*) FROM schedule")
    with pytest.raises(tracekit.TraceDamaged, match="altered"):
        tracekit.open(path, verify="all")
    assert tracekit.open(path, verify="none").schedule.select(pl.len()).collect().item() == len(rows(run, "schedule"))


@pytest.mark.parametrize(
    ("where", "batches"),
    [
        ("position BETWEEN 1000 AND 1100", 2),
        ("position >= 1000 AND position < 1010 AND event = 'run'", 1),
        ("1000 = position OR position = 2000", 2),
        ("position IN (1000, 2000, 2500)", 3),
        ("vtime_ns > 14000", 3),
        ("vcpu = 0 AND position < 0", 0),
        ("vcpu = 0", 31),
    ],
)
def test_only_batches_in_question_are_read(long: Path, touched: list[Any], where: str, batches: int) -> None:
    """A range of positions or times touches only its batches; the answer is the same as by reading everything."""
    found = tracekit.open(long).sql(f"SELECT * FROM schedule WHERE {where} ORDER BY position, sequence")
    assert len(set(touched)) == batches, touched
    everything = tracekit.open(long).schedule.collect()
    assert found.equals(pl.SQLContext(schedule=everything.lazy()).execute(f"SELECT * FROM schedule WHERE {where}").collect())


def predicates() -> st.SearchStrategy[pl.Expr]:
    """AND, OR and NOT of comparisons of two columns with numbers."""
    column = st.sampled_from(["position", "vtime_ns", "vcpu"])
    number = st.integers(-5, 120)
    operators: list[Callable[[pl.Expr, Any], pl.Expr]] = [
        lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a > b, lambda a, b: a >= b, lambda a, b: a == b, lambda a, b: a != b,
        lambda a, b: pl.lit(b) < a, lambda a, b: pl.lit(b) >= a, lambda a, b: pl.lit(b) == a, lambda a, b: a.is_in([b, b + 7]),
        lambda a, b: a.is_between(b, b + 9, "none"), lambda a, b: a.is_between(b, b + 9), lambda a, b: a + 3 > b, lambda a, b: a.is_null() | (a > b),
    ]  # fmt: skip
    leaf = st.builds(lambda operator, name, b: operator(pl.col(name), b), st.sampled_from(operators), column, number)
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner), st.builds(lambda a, b: a | b, inner, inner), inner.map(lambda a: ~a)
        ),
        max_leaves=6,
    )


@settings(max_examples=300, deadline=None)
@given(predicates(), st.lists(st.tuples(st.integers(0, 110), st.integers(0, 110)), min_size=1, max_size=8))
def test_nothing_that_holds_is_left_out(predicate: pl.Expr, values: list[tuple[int, int]]) -> None:
    """Where a row satisfies a predicate, so can its batch; and all conjuncts together are the predicate."""
    types = {"position": pl.UInt64, "vtime_ns": pl.UInt64}
    frame = pl.DataFrame(values, schema=types, orient="row").with_columns(vcpu=pl.lit(1, pl.UInt16))
    ranges = {name: (int(frame[name].min()), int(frame[name].max())) for name in types}  # type: ignore[arg-type]
    found = frame.filter(predicate)
    assert might_hold(predicate)(ranges) or not found.height
    assert frame.filter(*conjuncts(predicate)).equals(found)


def test_pruning_prunes() -> None:
    """What is plainly outside is left out."""
    ranges = {"position": (100, 200)}
    position = pl.col("position")
    outside = [
        position > 200,
        position < 100,
        position == 99,
        201 <= position,
        position.is_between(201, 300),
        position.is_in([7, 300]),
    ]
    for one in outside:
        assert not might_hold(one)(ranges) and not might_hold(one & (pl.col("event") == "run"))(ranges), one
        assert might_hold(one | (pl.col("event") == "run"))(ranges)


def test_thin_traces_say_so_once(run: Path, tmp_path: Path) -> None:
    """A table that is not whole warns once, with a command that works; at the right capture level nothing is said."""
    t = tracekit.open(shutil.copytree(run, tmp_path / "it's a run.tkt"))
    with pytest.warns(tracekit.ThinTraceWarning, match="captured thin") as caught:
        thin = t.memory_writes
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert t.memory_writes.collect().height == t.sql("SELECT count(*) FROM memory_writes").item()
    command = shlex.split(str(caught[0].message).split("`")[1])
    assert command[:2] == ["tracekit", "replay"]
    assert tracekit.replay(command[2], capture=command[4], output=command[6]).is_identical
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tracekit.open(command[6]).memory_writes.collect().height > thin.collect().height
        assert "schedule" in repr(t)
    with pytest.warns(tracekit.ThinTraceWarning, match="blocks holds nothing"):
        tracekit.open(command[6]).sql("SELECT * FROM Blocks")


def test_how_it_shows_itself(run: Path) -> None:
    """Text, rich and HTML name guest, end and tables; HTML of a hostile name is text."""
    t = tracekit.open(run)
    for shown in (repr(t), t._repr_html_(), rich_text(t)):
        assert "steal.elf, 2 vCPU(s)" in shown and "power off after" in shown and "memory_writes" in shown
    t.manifest = {**t.manifest, "scenario": {**t.manifest["scenario"], "image": "<script>x</script>[b]"}}
    assert "<script>" not in t._repr_html_() and "<script>x</script>[b]" in rich_text(t)
    many = tracekit.open_many([run, run.with_name("packed.tkt")])
    assert "2 traces" in repr(many) and "packed" in many._repr_html_() and "steal.elf" in rich_text(many)


def rich_text(value: object) -> str:
    """As rich prints it."""
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def test_analyses(run: Path) -> None:
    """The analyses are those of tracekit.analyzers; a wrong unit is a row of `invariants`, with the command that shows it."""
    t = tracekit.open(run)
    assert t.steal()["error_ns"].to_list() == [0, 0] and t.invariants().is_empty()
    assert t.publications()["error_ns"].abs().max() == 0 and t.reads().height == t.steal()["reads"].sum()
    assert t.console_text().endswith("PASS\n") and t.console_text(vcpu=1) == ""
    assert t.intervals()["kind"].unique().sort().to_list() == ["block", "run", "wait"]
    assert t.threads["name"].to_list() == ["vcpu0", "vcpu1", "neighbour0"]
    wrong = Handmade().begin()
    wrong.enable(100, 0)
    wrong.schedule(200, 0, "preempt", "slice")
    wrong.enter(300, 0, 4096 * 100 // 1000)
    wrong.schedule(400, 0, "preempt", "slice")
    found = tracekit.open(wrong.write(run.with_name("wrong.tkt"))).invariants()
    assert found.height and found["command"][0].startswith("tracekit dump") and found.schema["position"] == pl.UInt64


def test_unknown_policy(run: Path) -> None:
    """Named, with those that there are, by every analysis that takes one."""
    t = tracekit.open(run)
    for analysis in (t.steal, t.publications, t.reads, t.invariants):
        with pytest.raises(tracekit.InputError, match="no publication policy 'mine'; there are kvm"):
            analysis(policy="mine")


@pytest.mark.parametrize(
    ("between", "message"),
    [("2ms", "two times"), (("2ms",), "two times"), (("3ms", "2ms"), "no time lies"), ((5, 5), "no time lies")],
)
def test_no_such_window(run: Path, between: Any, message: str) -> None:
    """A window that no time lies in is a mistake, not an empty answer."""
    t = tracekit.open(run)
    for analysis in (t.runtime, t.waits):
        with pytest.raises(tracekit.InputError, match=message):
            analysis(between=between)


def test_threads_and_copies(long: Path, tmp_path: Path) -> None:
    """A packed trace may be read from many threads at once; a copy has a file of its own, and closing one leaves the other open."""
    pack(long, tmp_path / "packed.tkt")
    t = tracekit.open(tmp_path / "packed.tkt")
    expected = t.schedule.collect()
    with ThreadPoolExecutor(8) as pool:
        assert all(one.equals(expected) for one in pool.map(lambda _: t.schedule.collect(), range(64)))
    for copied in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        copied.close()
        assert t.schedule.collect().equals(expected)
    t.close()
    with pytest.raises(tracekit.InputError, match="was closed"):
        copy.copy(t)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_trace_that_is_not_opened_is_not_kept_open(long: Path, tmp_path: Path) -> None:
    """Damage that is seen at once closes the file: no ResourceWarning."""
    packed = tmp_path / "packed.tkt"
    pack(long, packed)
    raw = packed.read_bytes()
    at = raw.index(b"ARROW1") + 4000
    packed.write_bytes(raw[:at] + bytes(64) + raw[at + 64 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(tracekit.TraceDamaged):
            tracekit.open(packed, verify="all")
        gc.collect()


# --- many ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred copies of a trace; 100 rows in a batch."""
    path = tmp_path_factory.mktemp("many")
    one = turns().write(path / "one", batch_rows=100)
    for number in range(MANY):
        shutil.copytree(one, path / f"run{number:03}.tkt")
    return path


def test_many_are_one_below_the_other(folder: Path, long: Path) -> None:
    """The table of all is that of each, led by `run`, in order, in both engines; SQL sees the runs too."""
    many = tracekit.open_many(f"{folder}/*.tkt")
    one = tracekit.open(long).schedule.collect()
    assert len(many) == MANY and many.names[7] == "run007" and list(many) == many.names and "run007" in many and "zz" not in many
    for engine in ("in-memory", "streaming"):
        whole = many.schedule.collect(engine=engine)  # type: ignore[call-overload]
        assert whole.columns == ["run", *one.columns] and whole.height == MANY * one.height
        assert whole["run"].unique(maintain_order=True).to_list() == many.names
        assert whole.filter(run="run123").drop("run").equals(one)
    counts = many.sql("SELECT run, count(*) AS n FROM schedule GROUP BY run ORDER BY run")
    assert counts.rows() == [(name, one.height) for name in many.names]
    joined = many.sql("SELECT count(*) FROM schedule s JOIN runs r ON s.run = r.run WHERE r.vcpus = 2 AND s.position < 100")
    assert joined.item() == MANY * one.filter(pl.col("position") < 100).height


def test_a_filter_leaves_others_closed(folder: Path, touched: list[Any]) -> None:
    """One run and a range: of two hundred traces one is opened, and of it one batch read."""
    many = tracekit.open_many(f"{folder}/*.tkt")
    found = many.sql("SELECT * FROM schedule WHERE run = 'run042' AND position BETWEEN 1000 AND 1005")
    assert found.height == 1 and {name for name, _, _ in touched} == {"run042.tkt"} and len(touched) == 1
    assert many.schedule.filter(pl.col("run").is_in(["run001", "run002"])).select("run").unique().collect().height == 2
    assert {name for name, _, _ in touched} == {"run042.tkt", "run001.tkt", "run002.tkt"}


def test_analyses_of_many(folder: Path) -> None:
    """Each run's frame under its name."""
    many = tracekit.open_many([folder / "run000.tkt", folder / "run001.tkt"])
    steal = many.steal()
    assert steal["run"].to_list() == ["run000", "run000", "run001", "run001"]
    assert steal.filter(run="run001").drop("run").equals(many["run001"].steal())
    assert many.invariants()["run"].unique().sort().to_list() in ([], ["run000", "run001"])
    assert many.each(lambda t: t.intervals()).columns[:2] == ["run", "vcpu"]


def test_bad_lists(folder: Path, tmp_path: Path) -> None:
    """What cannot be opened is named; a trace that was replaced is not taken for the old one."""
    with pytest.raises(tracekit.InputError, match="no trace has such a name"):
        tracekit.open_many(f"{folder}/nothing*.tkt")
    with pytest.raises(tracekit.InputError, match="no trace was named"):
        tracekit.open_many([])
    with pytest.raises(tracekit.InputError, match="named twice"):
        tracekit.open_many([folder / "run000.tkt", f"{folder}/run00*.tkt"])
    (tmp_path / "empty.tkt").mkdir()
    with pytest.raises(tracekit.TraceError, match="an empty directory"):
        tracekit.open_many([folder / "run000.tkt", tmp_path / "empty.tkt"])
    path = Handmade().begin().write(tmp_path / "run000.tkt")
    many = tracekit.open_many([path, folder / "run000.tkt"])
    assert many.names == [str(path), str(folder / "run000.tkt")]
    shutil.rmtree(path)
    Handmade(2).begin().write(path)
    with pytest.raises(tracekit.TraceDamaged, match="another trace lies there"):
        many.schedule.collect()


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A trace as version 1.0 wrote it: shorter dictionaries."""
    with monkeypatch.context() as patch:
        patch.setattr(handmade, "MINOR", 0)
        shorter = {"schedule.event": 14, "schedule.reason": 21, "directives.kind": 12}
        patch.setattr(handmade, "DICTIONARIES", {name: DICTIONARIES[name][: shorter.get(name)] for name in DICTIONARIES})
        path = Handmade(2).begin().write(tmp_path / "older.tkt")
    yield path


def test_minor_versions_fit_together(older: Path, long: Path) -> None:
    """An older trace's shorter dictionaries are no obstacle."""
    many = tracekit.open_many([older, long])
    assert many.runs["format"].to_list() == ["1.0", "1.2"]
    whole = many.schedule.collect()
    assert whole.filter(run="older").drop("run").equals(tracekit.open(older).schedule.collect())
    assert tracekit.open(older, verify="none").schedule.collect().equals(tracekit.open(older).schedule.collect())
