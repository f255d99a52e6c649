"""Thin recordings become thicker: the rows are those of a recording made with that capture, for the whole run and for windows of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pytest
from support import busy_host, files_of, recorded, replayed, rows, tracekit

from tracekit.analyzers.compare import compare
from tracekit.analyzers.diff import diff
from tracekit.formats import manifest as manifests
from tracekit.formats.captures import WHOLE_AT
from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES, THICK_SEQUENCE
from tracekit.formats.verify import verify
from tracekit.host.config import Directive
from tracekit.replay.capture import Done, Job, Plan, capture, capture_part, plan_of
from tracekit.replay.options import ReplayOptions
from tracekit.replay.who_wrote import who_wrote

MS = 1_000_000
RAM = 0x4000_0000
ROLL_BACK = (Directive(2 * MS, "snapshot"), Directive(4 * MS, "restore", value=0))
SHORT: dict[str, Any] = {"max_vtime_ns": 6 * MS}
# A slow guest has a mark, and a checkpoint, each 500,000 instructions.
SLOW: dict[str, Any] = {"max_vtime_ns": 65 * MS, "ns_per_instruction": (20, 1), "checkpoint_every": 500_000}
SLOW_ROLL_BACK = (Directive(25 * MS, "snapshot"), Directive(45 * MS, "restore", value=0))


def captured(source: Path, output: Path, level: str, begin: int | None = None, end: int | None = None, **options: Any) -> Path:
    """Capture and check that the result is a whole trace that replays."""
    result = capture(source, output, plan_of(Trace.open(source), level, begin, end), ReplayOptions(), **options)
    assert result.is_identical, result.divergence
    assert verify(output) == []
    return output


def recordings(folder: Path, guest: str, **changes: Any) -> dict[str, Path]:
    """The same run at every level."""
    return {
        level: recorded(folder / f"{level}.tkt", guest, capture=level, **changes).path for level in ("thin", "writes", "full")
    }


def tables_of(path: Path) -> dict[str, bytes]:
    """The files of the tables."""
    return {name: data for name, data in files_of(path).items() if name.endswith(".arrow")}


@pytest.mark.parametrize(
    ("guest", "pace"), [("hello", SHORT), ("steal", SHORT), ("memory", SHORT), ("lse", SHORT), ("steal", SLOW)]
)
def test_the_whole_run(tmp_path: Path, guest: str, pace: dict[str, Any]) -> None:
    """Every byte of every table is that of a recording made with the level; checkpoints and images come along."""
    made = recordings(tmp_path, guest, host=busy_host(), **pace)
    assert bool(Trace.open(made["thin"]).manifest["checkpoints"]) == (pace is SLOW)
    for level in ("writes", "full"):
        new = captured(made["thin"], tmp_path / f"new-{level}.tkt", level)
        assert tables_of(new) == tables_of(made[level])
        manifest, wanted = Trace.open(new).manifest, Trace.open(made[level]).manifest
        assert {key: manifest[key] for key in ("tables", "scenario", "end", "images")} == {
            key: wanted[key] for key in ("tables", "scenario", "end", "images")
        }
        assert manifest.get("checkpoints") == Trace.open(made["thin"]).manifest.get("checkpoints")
        assert "captured" not in manifest
        thin = captured(new, tmp_path / f"thin-{level}.tkt", "thin")
        assert tables_of(thin) == tables_of(made["thin"])


def table(path: Path, name: str) -> pa.Table:
    """All rows, by pyarrow."""
    return pa.ipc.open_file(str(path / f"{name}.arrow")).read_all()


def expected(source: Path, full: Path, level: str, name: str, begin: int, end: int) -> pa.Table:
    """Rows of a window's table, out of two recordings."""
    base = table(source, name)
    if level not in WHOLE_AT.get(name, ()) or pc.any(pc.greater_equal(base["sequence"], THICK_SEQUENCE)).as_py():
        return base
    more = table(full, name)
    position = more["position"]
    in_window = pc.and_(pc.greater_equal(position, begin), pc.less(position, end))
    is_thick = pc.greater_equal(more["sequence"], THICK_SEQUENCE)
    both = pa.concat_tables([base, more.filter(pc.and_(in_window, is_thick))])
    return both.sort_by([("position", "ascending"), ("sequence", "ascending")])


@pytest.mark.parametrize(
    ("guest", "changes"),
    [
        ("steal", {"host": busy_host()}),
        ("steal", {"host": busy_host("chaos", 2, directives=ROLL_BACK)}),
        ("steal", {**SLOW, "host": busy_host("fair", 2)}),
        ("steal", {**SLOW, "host": busy_host("chaos", 2, directives=SLOW_ROLL_BACK)}),
        ("spinlock", {"host": busy_host("fair", 2)}),
        ("faults", {}),
    ],
)
def test_windows(tmp_path: Path, guest: str, changes: dict[str, Any]) -> None:
    """A row belongs to a window if its position does; windows begin and end anywhere, also where a straight run is under way."""
    made = recordings(tmp_path, guest, **{**SHORT, **changes})
    last = Trace.open(made["thin"]).manifest["end"]["position"]
    chance = random.Random(11)
    runs = table(made["full"], "blocks").filter(pc.field("instructions") > 3)["position"].to_pylist()
    marks = [row["position"] for row in rows(made["thin"], "states")]
    inside = chance.choice(runs) + 2
    windows = [(inside, inside + 1), (chance.choice(marks[:-1]), None), (0, last // 3), (last // 3, marks[-1])]
    for number, (begin, end) in enumerate(windows):
        level = ("full", "writes")[number % 2]
        new = captured(made["thin"], tmp_path / f"{number}.tkt", level, begin, end)
        for name in TABLES:
            wanted = expected(made["thin"], made["full"], level, name, begin, last + 1 if end is None else end)
            assert table(new, name).equals(wanted), (name, begin, end)
        told = Trace.open(new).manifest["captured"]
        assert told == {"level": level, "from": begin, "to": last + 1 if end is None else end}
        assert Trace.open(new).manifest["scenario"]["capture"] == "thin"
        result = replayed(new)
        assert result.is_identical, result.divergence


def test_a_window_of_reads_on_top_of_writes(tmp_path: Path) -> None:
    """What the recording has stays over the whole run; a level that adds nothing is refused."""
    made = recordings(tmp_path, "steal", **SHORT)
    new = captured(made["writes"], tmp_path / "new.tkt", "full", 1000, 90_000)
    assert table(new, "memory_writes").equals(table(made["writes"], "memory_writes"))
    assert table(new, "memory_reads").equals(expected(made["thin"], made["full"], "full", "memory_reads", 1000, 90_000))
    assert replayed(new).is_identical
    again = captured(new, tmp_path / "again.tkt", "full", 90_000, 91_000)  # another window takes the place of the first
    assert table(again, "memory_reads").equals(expected(made["thin"], made["full"], "full", "memory_reads", 90_000, 91_000))
    assert tables_of(captured(new, tmp_path / "whole.tkt", "full")) == tables_of(made["full"])
    for level, begin, end, message in (
        ("writes", 5, None, "adds nothing"),
        ("thin", 5, 10, "adds nothing"),
        ("full", 10, 10, "no instruction"),
        ("full", 1 << 40, None, "no instruction"),
    ):
        with pytest.raises(InputError, match=message):
            plan_of(Trace.open(made["writes"]), level, begin, end)


def test_what_a_window_is_compared_with(tmp_path: Path) -> None:
    """A captured row that is not the guest's is a divergence when the trace is replayed at its level."""
    made = recordings(tmp_path, "steal", **SHORT)
    new = captured(made["thin"], tmp_path / "new.tkt", "writes", 10_000, 200_000)
    manifest = Trace.open(new).manifest
    manifest["captured"]["from"] -= 5_000  # rows are missing there now
    (new / manifests.NAME).write_bytes(manifests.encode(manifest))
    result = replayed(new)
    assert result.divergence is not None and 5_000 <= result.divergence.position < 10_000
    assert result.divergence.replayed is not None and result.divergence.replayed.table == "memory_writes"
    assert replayed(new, capture="thin").is_identical


def test_comparing_thin_with_captured(tmp_path: Path) -> None:
    """The same run: no difference, and a note that only the rows of a thin capture are compared."""
    made = recordings(tmp_path, "steal", **SHORT)
    new = captured(made["thin"], tmp_path / "new.tkt", "full", 10_000, 200_000)
    thin, window = Trace.open(made["thin"]), Trace.open(new)
    for a, b in ((thin, window), (window, Trace.open(made["full"]))):
        found = diff(a, b)
        assert found.is_same and any("thin capture" in note for note in found.notes)
        assert compare([a], [b]).verdict == "same"
    assert diff(window, window).is_same
    with pytest.raises(InputError, match="holds no blocks"):
        diff(thin, Trace.open(made["full"]), tables=["blocks"])


def test_who_wrote_uses_the_window(tmp_path: Path) -> None:
    """Columns where they are, a replay elsewhere, the same answer."""
    made = recordings(tmp_path, "steal", host=busy_host(), **SHORT)
    last = Trace.open(made["thin"]).manifest["end"]["position"]
    new = captured(made["thin"], tmp_path / "new.tkt", "writes", last // 2, last // 2 + 400_000)
    ipa = next(row["ipa"] for row in rows(new, "memory_writes") if row["sequence"] >= THICK_SEQUENCE and row["ipa"] >= RAM)
    for before in (None, last // 2 + 400_000, last // 2 + 1):
        answers = [who_wrote(Trace.open(path), ipa, before=before, limit=3) for path in (made["writes"], new)]
        assert [(one.position, one.value, one.pc) for one in answers[0].writes] == [
            (one.position, one.value, one.pc) for one in answers[1].writes
        ]
    inside = who_wrote(Trace.open(new), ipa, before=last // 2 + 400_000)
    assert not inside.replayed and inside.writes[0].row is not None


class Counting(Executor):
    """Runs jobs when they are asked for; knows how many were waiting at most."""

    def __init__(self) -> None:
        self.waiting = self.waiting_max = self.jobs = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        self.jobs += 1
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        executor = self

        class Later(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                executor.waiting -= 1
                return function(*arguments, **options)

            def exception(self, timeout: float | None = None) -> BaseException | None:
                return None

        return Later()


def test_processes(tmp_path: Path) -> None:
    """Workers give what one process gives; so many are ahead and no more."""
    made = recordings(tmp_path, "steal", host=busy_host(), **SLOW)
    counting = Counting()
    new = captured(made["thin"], tmp_path / "counted.tkt", "full", executor=counting, jobs=2)
    assert tables_of(new) == tables_of(made["full"]) and counting.jobs > 3 >= counting.waiting_max
    new = captured(made["thin"], tmp_path / "pool.tkt", "full", jobs=2)
    assert tables_of(new) == tables_of(made["full"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TraceDamaged("a worker's"), RuntimeError("ours")])
def test_nothing_is_left_when_it_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Neither under the name nor beside it."""
    made = recorded(tmp_path / "a.tkt", "hello").path

    def breaks(job: Job) -> Done:
        capture_part(job)
        raise error

    monkeypatch.setattr("tracekit.replay.capture.capture_part", breaks)
    with pytest.raises(type(error)):
        captured(made, tmp_path / "new.tkt", "writes")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tkt"]


def test_a_run_that_diverges_is_not_written(tmp_path: Path) -> None:
    """The first divergence is the answer; an existing trace of the name stays, even with force."""
    made = recorded(tmp_path / "a.tkt", "steal", **SHORT).path
    manifest = Trace.open(made).manifest
    manifest["machine"]["ns_per_instruction"] = [2, 1]
    (made / manifests.NAME).write_bytes(manifests.encode(manifest))
    other = recorded(tmp_path / "new.tkt", "hello").path
    before = files_of(other)
    result = capture(made, other, plan_of(Trace.open(made), "writes", None, None), ReplayOptions(), force=True)
    assert not result.is_identical and files_of(other) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tkt", "new.tkt"]


def test_a_spoiled_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk gives back is checked before it is merged."""
    made = recorded(tmp_path / "a.tkt", "hello").path

    def spoils(job: Job) -> Done:
        done = capture_part(job)
        file = job.folder / "memory_writes.arrow"
        raw = bytearray(file.read_bytes())
        raw[done.entries["memory_writes"]["batches"][0]["offset"] + 100] ^= 1
        file.write_bytes(raw)
        return done

    monkeypatch.setattr("tracekit.replay.capture.capture_part", spoils)
    with pytest.raises(TraceDamaged, match="altered since it was written"):
        captured(made, tmp_path / "new.tkt", "writes")
    assert not (tmp_path / "new.tkt").exists()


def test_command_tells_the_window(tmp_path: Path) -> None:
    """info, dump and query say what is captured."""
    made = recorded(tmp_path / "a.tkt", "steal", **SHORT).path
    new = captured(made, tmp_path / "new.tkt", "writes", 1000, 2000)
    assert "thin; writes from position 1,000 to 2,000" in tracekit("info", new).stdout
    told = tracekit("dump", new, "memory_writes", "--limit", 1).stderr
    assert "captured thin; writes from position 1,000 to 2,000" in told and "who-wrote" in told
    assert tracekit("dump", new, "schedule", "--limit", 1).stderr == ""


@pytest.mark.parametrize(
    "window",
    [
        3,
        {},
        {"level": "thin", "from": 0, "to": 1},
        {"level": "writes", "from": 1, "to": 1},
        {"level": "writes", "from": -1, "to": 1},
    ],
)
def test_a_window_of_another_form(tmp_path: Path, window: Any) -> None:
    """Named when the trace is opened."""
    made = recorded(tmp_path / "a.tkt", "hello").path
    manifest = {**Trace.open(made).manifest, "captured": window}
    (made / manifests.NAME).write_bytes(manifests.encode(manifest))
    with pytest.raises(TraceDamaged, match="form"):
        Trace.open(made)


def test_plans_are_values() -> None:
    """Which tables a window adds."""
    plan = Plan("full", "writes", 0, 5)
    assert plan.tables == ("memory_reads", "blocks") and plan.keeps_thick("memory_writes") and not plan.keeps_thick("blocks")
    assert replace(plan, base="thin", level="writes").tables == ("memory_writes",)
    assert not Plan("thin", "full", 0, None).keeps_thick("memory_writes") and Plan("thin", "full", 0, None).keeps_thick(
        "schedule"
    )


def test_command(tmp_path: Path) -> None:
    """A window by the command, in two processes; what a window cannot be."""
    made = recorded(tmp_path / "a.tkt", "steal", **SLOW).path
    options = ("--capture", "writes", "--from", "1M", "--to", 1_200_000, "--jobs", 2, "-o", tmp_path / "new.tkt")
    done = tracekit("replay", made, *options)
    assert done.returncode == 0 and "identical" in done.stdout, done.stderr
    assert Trace.open(tmp_path / "new.tkt").manifest["captured"] == {"level": "writes", "from": 1_000_000, "to": 1_200_000}
    again = tracekit("replay", made, *options)
    assert again.returncode == 2 and "exists" in again.stderr
    assert tracekit("replay", made, *options, "--force").returncode == 0
    refused = tracekit("replay", made, "--from", 5, "-o", tmp_path / "x.tkt")
    assert refused.returncode == 2 and "thin adds nothing" in refused.stderr and not (tmp_path / "x.tkt").exists()
