"""Checkpoints under replay: compared when they are reached, gone on from with the same verdict, also in several processes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged import Here, forged, nth_row
from support import GUESTS, busy_host, recorded, replayed, rows, tracekit

from tracekit.formats.checkpoint_file import SPACE_SHIFT
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive
from tracekit.replay.divergence import Cause, Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.verify import verify

MARK_NS = 150_000  # closer than recordings have them, so that short guests have many


@pytest.fixture(autouse=True)
def close_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recordings with a mark every MARK_NS; timings of their own."""
    monkeypatch.setattr("tracekit.recorder.session.STATES_EVERY_NS", MARK_NS)
    monkeypatch.setenv("TRACEKIT_TIMINGS", str(tmp_path / "timings"))


def begun(path: Path, start: int | None, stop: int | None = None, **options: Any) -> Result:
    """A replay from one checkpoint to another."""
    session = Replay(Trace.open(path), ReplayOptions(**options), start=start, stop=stop)
    try:
        return session.run()
    finally:
        session.board.close()


def count(path: Path) -> int:
    """Checkpoints of a trace."""
    return len(Trace.open(path).checkpoints().entries)


@pytest.mark.parametrize("policy", ["fair", "chaos"])
@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest not in ("hello", "lse")])
def test_every_start(tmp_path: Path, guest: str, policy: str) -> None:
    """A replay from the beginning agrees with every checkpoint; one that goes on from any of them ends as it does, in every mode."""
    host = busy_host(policy, pcpus=2 if policy == "fair" else 1)
    recorded(tmp_path / "a.tkt", guest, host=host, seed=3, checkpoint_every=1, max_instructions=2_500_000)
    whole = replayed(tmp_path / "a.tkt")
    assert whole.is_identical, whole.divergence
    met: list[int] = []
    session = Replay(Trace.open(tmp_path / "a.tkt"), on_checkpoint=met.append)
    assert session.run() == whole and met == list(range(count(tmp_path / "a.tkt")))
    modes = ({}, {"mode": "safe"}, {"mode": "exact"}, {"page_size": 1024})
    for n, k in enumerate(sorted({*met[:1], *met[-1:], *random.Random(7).sample(met, min(4, len(met)))})):
        for options in ({}, modes[n % len(modes)]):
            result = begun(tmp_path / "a.tkt", k, **options)
            assert result.is_identical, (k, options, result.divergence)
            assert (result.position, result.vtime_ns, result.is_whole) == (whole.position, whole.vtime_ns, True)


@pytest.mark.parametrize("capture", ["writes", "full"])
def test_every_start_with_captured_columns(tmp_path: Path, capture: str) -> None:
    """The same where thick rows are compared."""
    recorded(
        tmp_path / "a.tkt",
        "timer",
        host=busy_host("fair", pcpus=2),
        checkpoint_every=1,
        capture=capture,
        max_instructions=600_000,
    )
    assert replayed(tmp_path / "a.tkt").is_identical
    assert count(tmp_path / "a.tkt") > 1
    for k in range(count(tmp_path / "a.tkt")):
        assert begun(tmp_path / "a.tkt", k).is_identical
    middle = count(tmp_path / "a.tkt") // 2
    thick = [row for row in rows(tmp_path / "a.tkt", "memory_writes") if row["sequence"] >= 1 << 31]
    change = nth_row("memory_writes", len(rows(tmp_path / "a.tkt", "memory_writes")) - 40, "value", lambda value: value ^ 1)
    forged(tmp_path / "a.tkt", tmp_path / "b.tkt", rows=change)
    found = replayed(tmp_path / "b.tkt").divergence
    assert found is not None and found.position in {row["position"] for row in thick}
    assert begun(tmp_path / "b.tkt", middle).divergence == found


def test_a_stop_inside_a_straight_run(tmp_path: Path) -> None:
    """A run of `blocks` that goes on behind --to is not told as a shorter one; one that is wrong in front of it still is."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host("fair"), checkpoint_every=1, capture="full", max_instructions=400_000)
    long = [row["position"] for row in rows(tmp_path / "a.tkt", "blocks") if row["instructions"] > 4]
    for place in (long[3], long[len(long) // 2], long[-3]):
        result = agreed(tmp_path / "a.tkt", to_position=place + 2)
        assert isinstance(result, Result) and result.is_identical and result.position == place + 2, result
    nth = len(rows(tmp_path / "a.tkt", "blocks")) // 2
    forged(tmp_path / "a.tkt", tmp_path / "b.tkt", rows=nth_row("blocks", nth, "instructions", lambda value: value + 1))
    result = agreed(tmp_path / "b.tkt", to_position=long[-3] + 2)
    assert isinstance(result, Result) and result.divergence is not None and "blocks" in result.divergence.what


def snapshots(tmp_path: Path) -> Path:
    """A run that keeps two snapshots and rolls back to the first."""
    times = [(2_000_000, "snapshot", None), (4_000_000, "snapshot", None), (6_000_000, "restore", 0), (8_000_000, "restore", 1)]
    directives = tuple(Directive(at_ns, kind, value=value) for at_ns, kind, value in times)
    host = busy_host("fair", directives=directives)
    recorded(tmp_path / "a.tkt", "accounting", host=host, checkpoint_every=1, max_vtime_ns=12_000_000)
    return tmp_path / "a.tkt"


def test_snapshots_are_part_of_it(tmp_path: Path) -> None:
    """Snapshots that a run keeps lie in its checkpoints: a replay rolls back to one that it never saw taken."""
    path = snapshots(tmp_path)
    assert replayed(path).is_identical
    last = Trace.open(path).checkpoints().state(count(path) - 1)["snapshots"]
    assert [one["number"] for one in last] == [0, 1]
    for k in range(0, count(path), 5):
        assert begun(path, k).is_identical


def test_a_vcpu_that_runs_and_is_paused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot at a mark pauses one vCPU after the other: the second gets the physical CPU and executes nothing."""
    monkeypatch.setattr("tracekit.recorder.session.STATES_EVERY_NS", 100_000)
    times = [(1_000_000, "snapshot", None), (2_000_000, "restore", 0)]
    host = busy_host("fair", directives=tuple(Directive(at_ns, kind, value=value) for at_ns, kind, value in times))
    recorded(tmp_path / "a.tkt", "accounting", host=host, checkpoint_every=1, max_instructions=1_500_000)
    result = agreed(tmp_path / "a.tkt", (3, 99))
    assert isinstance(result, Result) and result.is_identical, result


# --- forged checkpoints -------------------------------------------------------------------------------------------------------


def at(k: int, change: Callable[[dict[str, Any], dict[int, bytes]], Any]) -> Any:
    """A change of checkpoint k alone."""
    return lambda number, state, pages: change(state, pages) if number == k else None


def flip(state: dict[str, Any], *path: Any) -> None:
    """One bit of a number in a state."""
    for part in path[:-1]:
        state = state[part]
    state[path[-1]] ^= 1


def spoil_page(state: dict[str, Any], pages: dict[int, bytes]) -> None:
    index = sorted(pages)[len(pages) // 2]
    pages[index] = bytes([pages[index][0] ^ 1]) + pages[index][1:]


def lose_page(state: dict[str, Any], pages: dict[int, bytes]) -> None:
    del pages[max(pages)]


def add_page(state: dict[str, Any], pages: dict[int, bytes]) -> None:
    free = next(index for index in range(0x40100, 0x40F00) if index not in pages)
    pages[free] = b"\x11" * 4096


POINTS: dict[str, tuple[Any, Cause, str]] = {
    "a register": (lambda s, p: flip(s, "machine", "vcpus", 0, "registers", "x3"), Cause.DAMAGE, "machine.vcpus[0].registers.x3"),
    "a timer": (lambda s, p: flip(s, "machine", "vcpus", 1, "timers", 0, 0), Cause.DAMAGE, "machine.vcpus[1].timers[0][0]"),
    "the clock": (lambda s, p: flip(s, "machine", "clock_ns"), Cause.DAMAGE, "machine.clock_ns"),
    "a flag's type": (lambda s, p: s["machine"]["gic"].update(enabled=1), Cause.DAMAGE, "machine.gic.enabled"),
    "a number that is none": (lambda s, p: s["machine"].update(random_state=1.5), Cause.DAMAGE, "machine.random_state"),
    "no machine": (lambda s, p: s.update(machine=[]), Cause.DAMAGE, "machine"),
    "an SGI that was not sent": (lambda s, p: s["sgis"].append([5, 0, 1, 3]), Cause.DRIFT, "sgis"),
    "a snapshot that was not kept": (lambda s, p: s["snapshots"].append({"number": 3}), Cause.DRIFT, "snapshots"),
    "a snapshot's page": (lambda s, p: p.update({1 << SPACE_SHIFT | 0x40001: bytes(4096)}), Cause.DRIFT, "pages of snapshot 0"),
    "the greatest time": (lambda s, p: s.update(vtime_max_ns=1 << 60), Cause.DAMAGE, "vtime_max_ns"),
    "its own time": (lambda s, p: {"vtime_ns": 5}, Cause.DAMAGE, "vtime_ns"),
    "a page": (spoil_page, Cause.DRIFT, "page 0x"),
    "a page too few": (lose_page, Cause.DRIFT, "page 0x"),
    "a page too many": (add_page, Cause.DRIFT, "page 0x"),
    "another place": (lambda s, p: {"sequence": 77}, Cause.DAMAGE, "is not where the recorded run has a mark"),
}


@pytest.fixture(scope="module")
def steal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with many checkpoints."""
    folder = tmp_path_factory.mktemp("steal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracekit.recorder.session.STATES_EVERY_NS", MARK_NS)
        recorded(folder / "a.tkt", "steal", host=busy_host("fair", pcpus=2), seed=3, checkpoint_every=1)
    assert count(folder / "a.tkt") > 20
    return folder / "a.tkt"


def verdict(path: Path, jobs: int, **options: Any) -> Result | str:
    """What a replay says, or why it cannot."""
    trace = Trace.open(path)
    try:
        return verify(trace, ReplayOptions(**options), jobs=jobs, executor=Here() if jobs > 1 else None)
    except TraceDamaged as damage:
        return str(damage)


def agreed(path: Path, shares: tuple[int, ...] = (3,), **options: Any) -> Result | str:
    """The serial verdict, which those of several shares must be, field by field."""
    serial = verdict(path, 1, **options)
    for jobs in shares:
        assert verdict(path, jobs, **options) == serial, jobs
    return serial


@pytest.mark.parametrize("name", POINTS)
def test_a_checkpoint_is_not_believed(tmp_path: Path, steal: Path, name: str) -> None:
    """A checkpoint that says otherwise than the run is the first divergence, with its proof, however the work is shared out."""
    change, cause, field = POINTS[name]
    for k in (count(steal) // 2,):
        path = forged(steal, tmp_path / f"{k}.tkt", point=at(k, change))
        result = agreed(path)
        assert isinstance(result, Result) and result.divergence is not None
        assert result.divergence.cause is cause
        assert field in result.divergence.what and f"checkpoint {k}" in result.divergence.what
        assert result.divergence.position == Trace.open(path).checkpoints().entries[k].position or name == "another place"
    done = tracekit("replay", path)
    assert done.returncode == 1 and f"checkpoint {k}" in done.stdout


def test_a_page_that_is_not_its_digest(tmp_path: Path, steal: Path) -> None:
    """The digests are right, a page's bytes are not: going past it proves the run all the same; nothing can go on from it."""
    path = forged(steal, tmp_path / "a.tkt")
    trace = Trace.open(path)
    k = count(path) // 2
    file = path / trace.checkpoints().entries[k].file
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 0xFF
    file.write_bytes(raw)
    with pytest.raises(TraceDamaged, match="SHA-256 does not agree"):
        verify(Trace.open(path), ReplayOptions())
    done = tracekit("replay", path, "--jobs", 2)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and f"checkpoint {k}" in done.stderr


# --- the same verdict from several processes ----------------------------------------------------------------------------------


def corruptions(path: Path, more: int) -> list[tuple[str, dict[str, Any]]]:
    """One change at each of many places of every table, of an image, of rows left out."""
    chosen, out = random.Random(11), []
    places = {
        "schedule": ("vtime_ns", lambda ns: ns + 16),
        "interrupts": ("position", lambda position: max(0, position - 3)),
        "hypercalls": ("x1", lambda value: value ^ 2),
        "memory_writes": ("value", lambda value: value ^ 4),
        "memory_reads": ("value", lambda value: value ^ 1),
        "pvtime": ("stolen_ns", lambda ns: ns ^ 8),
        "console": ("data", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "states": ("registers", lambda digest: None if digest is None else bytes(32)),
    }
    for table, (column, value) in places.items():
        rows_there = Trace.open(path).row_count(table)
        for nth in sorted({chosen.randrange(rows_there), *(chosen.randrange(rows_there) for _ in range(more))}):
            out.append((f"{table} {nth}", {"rows": nth_row(table, nth, column, value)}))
    for table in ("schedule", "interrupts", "states"):
        nth = Trace.open(path).row_count(table) // 2
        out.append((f"{table} without {nth}", {"rows": without(table, nth)}))
    out.append(
        ("image", {"image": lambda content: content[: len(content) // 2] + b"\xff" * 64 + content[len(content) // 2 + 64 :]})
    )
    return out


def without(table: str, nth: int) -> Any:
    """A table lacks its nth row."""
    numbers = iter(range(1 << 40))
    return lambda name, row: None if name == table and next(numbers) == nth else row


@pytest.mark.parametrize(
    ("more", "shares"), [(0, (3,)), pytest.param(8, (2, 7, 50), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_shares_agree_with_the_whole(tmp_path: Path, steal: Path, more: int, shares: tuple[int, ...]) -> None:
    """Whatever is wrong and wherever: one verdict, field by field."""
    assert isinstance(agreed(steal, shares), Result)
    differing: list[str] = []
    for name, change in corruptions(steal, more):
        path = forged(steal, tmp_path / "b.tkt", **change)
        result = agreed(path, shares)
        if isinstance(result, Result) and not result.is_identical:
            differing.append(name)
        shutil.rmtree(path)
    assert len(differing) >= 8 + 5 * more, differing  # some draws name the same row


def test_shares_of_a_part(steal: Path) -> None:
    """--from and --to: the same, and it is told from where."""
    end = int(Trace.open(steal).manifest["end"]["position"])
    places = [entry.position for entry in Trace.open(steal).checkpoints().entries]
    for low, high in (
        (places[3], places[9]),
        (places[3] + 1, places[9] + 1),
        (0, end // 2),
        (places[0] - 1, None),
        (places[5], end),
        (end, end),
    ):
        result = agreed(steal, from_position=low, to_position=high)
        assert isinstance(result, Result) and result.is_identical
        assert result.from_position == max((one for one in places if one <= low), default=0)
        assert result.position == (end if high is None else high) and result.is_whole == (result.position == end)


@pytest.mark.parametrize("form", ["folder", "packed"])
def test_processes(tmp_path: Path, steal: Path, form: str) -> None:
    """Real worker processes, an identical trace and one that is not, from the command and from Python."""
    wrong = forged(steal, tmp_path / "b.tkt", rows=nth_row("hypercalls", Trace.open(steal).row_count("hypercalls") - 1, "x2", 5))
    for path, code in ((steal, 0), (wrong, 1)):
        if form == "packed":
            done = tracekit("pack", path, "-o", tmp_path / f"{code}.packed")
            assert done.returncode == 0, done.stderr
            path = tmp_path / f"{code}.packed"
        serial = tracekit("replay", path, "--json")
        shared = tracekit("replay", path, "--json", "--jobs", 3)
        assert (serial.returncode, shared.returncode) == (code, code), shared.stderr
        assert serial.stdout == shared.stdout and shared.stderr == ""
        assert tracekit("replay", path, "--jobs", 2, "--progress", "plain").returncode == code


def test_options_that_cannot_be(tmp_path: Path, steal: Path) -> None:
    """One line and exit code 2 for odd input; a note where nothing can be gone on from."""
    end = int(Trace.open(steal).manifest["end"]["position"])
    for options, message in (
        (["--jobs", 0], "--jobs"),
        (["--jobs", -2], "--jobs"),
        (["--from", 10, "--to", 5], "lies behind"),
        (["--from", end + 1], "the recording ends at"),
        (["--from", "many"], "--from"),
        (["--from", 5, "-o", tmp_path / "x.tkt"], "adds nothing"),
    ):
        done = tracekit("replay", steal, *options)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "x.tkt").exists()
    done = tracekit("replay", steal, "--from", "1k", "--to", "2_000")
    assert (
        done.returncode == 0 and "no checkpoint at or before position 1000" in done.stderr and "to position 2,000" in done.stdout
    )
    place = Trace.open(steal).checkpoints().entries[4].position
    done = tracekit("replay", steal, "--from", place + 5)
    assert done.returncode == 0 and f"identical from position {place:,} to the recorded end" in done.stdout and not done.stderr
    recorded(tmp_path / "none.tkt", "hello", checkpoints=False)
    done = tracekit("replay", tmp_path / "none.tkt", "--jobs", 2, "--from", 10)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 2 and "no checkpoints" in done.stderr
