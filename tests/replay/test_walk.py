"""Walking through a recorded run: every place is what a straight replay has there, from wherever it is come to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, recorded

import tracekit
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.machine.map import RAM_BASE
from tracekit.machine.portable import encode
from tracekit.replay import local
from tracekit.replay.divergence import Event
from tracekit.replay.local import LocalSession
from tracekit.replay.session import Replay
from tracekit.replay.stops import Reason
from tracekit.replay.translation import NotMapped, translate
from tracekit.replay.walk import Walk

RUNS = {  # guest, vCPUs, whether the trace has checkpoints
    "accounting, 1 vCPU": ("accounting", 1, True),
    "spinlock, 2 vCPUs": ("spinlock", 2, True),
    "steal, 4 vCPUs": ("steal", 4, True),
    "steal, 2 vCPUs, no checkpoints": ("steal", 2, False),
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs with many marks and switches."""
    folder = tmp_path_factory.mktemp("walk")
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracekit.recorder.session.STATES_EVERY_NS", 150_000)
        for number, (name, (guest, vcpus, has_checkpoints)) in enumerate(RUNS.items()):
            out[name] = folder / f"{number}.tkt"
            more: dict[str, Any] = {"checkpoint_every": 1} if has_checkpoints else {"checkpoints": False}
            host = busy_host("chaos", pcpus=min(2, vcpus))
            recorded(out[name], guest, vcpus=vcpus, host=host, seed=5, max_instructions=1_200_000, **more)
    return out


@pytest.fixture(params=list(RUNS))
def walk(request: pytest.FixtureRequest, traces: dict[str, Path]) -> Iterator[Walk]:
    """Inside each of them."""
    with tracekit.session(traces[request.param]) as opened:
        yield opened


def state(session: Any) -> tuple[Any, ...]:
    """All that a place is; session: a Replay or a LocalSession."""
    board, standing = session.board, session.standing
    return encode(board.save_portable()), board.memory.digest(), standing.sgis, standing.loaded, list(standing.snapshots)


def inside(walk: Walk) -> LocalSession:
    """What the walk stands on."""
    return walk._session


def straight(walk: Walk, position: int) -> tuple[Any, ...]:
    """The place as a replay from the beginning finds it."""
    replay = Replay(walk.trace)
    try:
        replay.run_to(position)
        replay.decide_here()
        return state(replay)
    finally:
        replay.board.close()


def visit(walk: Walk) -> tuple[int, int, int]:
    """What a debugger shows of a place."""
    return walk.position, walk.pc, walk.vcpu


def positions(walk: Walk, name: str, count: int) -> list[int]:
    """Random ones, and those at which interrupts are taken, vCPUs switched and calls made."""
    chosen = random.Random(name)
    events = [
        event.row[0] for event in walk.events(0, walk.end_position) if event.table in ("interrupts", "schedule", "hypercalls")
    ]
    return [*chosen.sample(events, min(count, len(events))), *(chosen.randrange(walk.end_position) for _ in range(count))]


def test_every_place_is_a_straight_replay(walk: Walk) -> None:
    """goto() there, away and back: registers, devices, clocks, memory, SGIs; at checkpoints, at events, at the end and between."""
    places = [entry.position for entry in walk.trace.checkpoints().entries]
    wanted = [*positions(walk, "straight", 3), 0, walk.end_position, walk.end_position - 1, *places[:1], *places[-1:]]
    random.Random(3).shuffle(wanted)
    for position in wanted:
        expected = straight(walk, position)
        assert walk.goto(position).position == walk.position == position
        assert state(inside(walk)) == expected, position
        for count in (-1, -3_000, 5_000):
            there = walk.step(count).position
            walk.step(position - there)
            assert state(inside(walk)) == expected, (position, count)


def test_wandering(walk: Walk) -> None:
    """To and fro between places, the same ones again and again, near and far: points in memory come and go, each place stays what it is."""
    chosen = random.Random(11)
    wanted = sorted(
        {max(0, place - back) for place in (300_000, 700_000, 1_100_000) for back in (0, 1_000, 3_000, 9_000, 40_000, 200_000)}
    )
    replay, expected = Replay(walk.trace), {}
    for position in wanted:
        replay.run_to(position)
        replay.decide_here()
        expected[position] = state(replay)
    replay.board.close()
    for position in chosen.choices(wanted, k=60):
        walk.goto(position)
        assert state(inside(walk)) == expected[position], position


def test_wandering_where_points_are_dense(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points between points, some of them where a page is as it was at neither neighbour: a lock that is taken and given back."""
    for name, value in (("NEAREST", 8), ("FACTOR", 2), ("SHORT", 0), ("POINTS_MAX", 24)):
        monkeypatch.setattr(local, name, value)
    chosen = random.Random(12)
    wanted = sorted({*(700_000 + chosen.randrange(1_500) for _ in range(40))})
    replay, expected = Replay(walk.trace), {}
    for position in wanted:
        replay.run_to(position)
        replay.decide_here()
        expected[position] = replay.board.memory.digest(), encode(replay.board.save_portable())
    replay.board.close()
    for position in chosen.choices(wanted, k=150):
        walk.goto(position)
        board = inside(walk).board
        assert (board.memory.digest(), encode(board.save_portable())) == expected[position], position


def test_a_page_that_changes_and_changes_back(traces: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A point that comes between two others, at which a page is as at neither; the page is one that the guest leaves alone."""
    monkeypatch.setattr(local, "SHORT", 0)
    session = LocalSession(Trace.open(traces["spinlock, 2 vCPUs"]))
    memory, page = session.board.memory, RAM_BASE + session.board.config.ram_size - 0x1000
    for position in (1_000, 1_400):
        session.goto(position)
        session._keep()
    session.goto(1_000)
    session.goto(1_200)
    memory.write(page, 8, 1)
    session._keep()
    memory.write(page, 8, 0)
    session.goto(1_400)
    assert memory.read(page, 8) == 0
    session.goto(1_200)
    assert memory.read(page, 8) == 1
    session.goto(1_000)
    assert memory.read(page, 8) == 0
    session.close()


def test_forwards_and_backwards_are_the_same_way(walk: Walk) -> None:
    """The same places, instruction by instruction, around switches, interrupts and calls; and one step forward and back is none."""
    for position in positions(walk, "same way", 2):
        walk.goto(position - 30)
        forwards = [visit(walk)]
        while walk.position < min(position + 30, walk.end_position):
            walk.step()
            forwards.append(visit(walk))
        backwards = [visit(walk)]
        while walk.position > forwards[0][0]:
            walk.step(-1)
            backwards.append(visit(walk))
        assert forwards == backwards[::-1]
        assert len({place for place, _, _ in forwards}) == len(forwards)


def test_breakpoints_find_the_same_places_both_ways(walk: Walk) -> None:
    """Against what stepping sees: each place of an address in a stretch, forwards, backwards, of one vCPU, with a condition."""
    begin = walk.end_position // 2
    walk.goto(begin)
    seen = [visit(walk)]
    for _ in range(600):
        walk.step()
        seen.append(visit(walk))
    end = walk.position
    pc = seen[len(seen) // 3][1]
    vcpu = next(runs for _, address, runs in seen if address == pc)
    for only in (None, vcpu):
        expected = [
            place
            for place in seen
            if place[1] == pc and place[2] == (place[2] if only is None else only) and begin < place[0] < end
        ]
        walk.goto(begin)
        found = []
        for _ in expected[:5]:
            assert walk.run_until(pc=pc, vcpu=only).reason is Reason.BREAKPOINT
            found.append(visit(walk))
        assert found == expected[:5]
        walk.goto(end)
        found = []
        for _ in expected[-5:]:
            assert walk.run_until(pc=[pc, 0x10], vcpu=only, backwards=True).pc == pc
            found.append(visit(walk))
        assert found[::-1] == expected[-5:]
    wanted = expected[len(expected) // 2][0]
    for start, backwards in ((begin, False), (end, True)):
        walk.goto(start)
        assert walk.run_until(lambda here: here.position == wanted, pc=pc, backwards=backwards).position == wanted
        walk.goto(wanted - 50 if not backwards else wanted + 50)
        assert walk.run_until(lambda here: here.position == wanted, backwards=backwards).reason is Reason.CONDITION
        assert walk.position == wanted


def test_the_run_is_untouched_by_breakpoints(walk: Walk) -> None:
    """Memory and registers under a breakpoint are the recorded ones, and one that is never reached ends with the run."""
    middle = walk.end_position // 2
    walk.goto(middle)
    before, pc = state(inside(walk)), walk.pc
    stop = walk.run_until(pc=0x1234_5678)
    assert (stop.reason, stop.position) == (Reason.END, walk.end_position)
    stop = walk.run_until(pc=0x1234_5678, backwards=True)
    assert (stop.reason, stop.position, stop.vcpu) == (Reason.START, 0, 0)
    walk.goto(middle - 200)
    while walk.position < middle:
        assert walk.run_until(lambda here: here.position >= middle, pc=pc).reason is Reason.BREAKPOINT
    assert (walk.position, state(inside(walk))) == (middle, before)


def test_start_and_end(walk: Walk) -> None:
    """They stop every way of going, and say so."""
    assert walk.step(-1) == walk.goto(-7) == walk.goto(0)
    assert walk.goto(0).reason is Reason.START
    for stop in (walk.goto(walk.end_position + 5), walk.step(), walk.run_until(pc=4), walk.run_until(lambda here: True)):
        assert (stop.reason, stop.position) == (Reason.END, walk.end_position)
    assert walk.step(-1).reason is Reason.STEP
    assert walk.step(1).reason is Reason.END


def test_registers_and_memory(walk: Walk) -> None:
    """As the board has them, of any vCPU; what is no memory is named."""
    walk.goto(walk.end_position // 3)
    for vcpu in range(walk.vcpu_count):
        values = walk.registers(vcpu)
        board = inside(walk).board
        assert {name: values[name] for name in ("x0", "x30", "sp", "pc", "pstate", "esr_el1")} == {
            name: board.registers(vcpu)[name] for name in ("x0", "x30", "sp", "pc", "pstate", "esr_el1")
        }
        assert values["v5"] == board.registers(vcpu)["v5_lo"] | board.registers(vcpu)["v5_hi"] << 64
    assert walk.registers()["pc"] == walk.pc
    word = walk.read(walk.pc, 4)
    assert word == walk.read_physical(walk.translate(walk.pc), 4) and any(word)
    with pytest.raises(NotMapped, match="no memory"):
        walk.read_physical(0x10, 4)
    with pytest.raises(InputError, match="has vCPUs 0 to"):
        walk.registers(walk.vcpu_count)
    with pytest.raises(InputError, match="can be read at once"):
        walk.read(walk.pc, 1 << 40)


def test_the_trace_is_not_changed(traces: dict[str, Path]) -> None:
    """Byte for byte, and the run still replays."""
    path = traces["spinlock, 2 vCPUs"]

    def content() -> dict[str, str]:
        return {str(one): hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(path.rglob("*")) if one.is_file()}

    before = content()
    result = tracekit.replay(path)
    with result.session() as walk:
        walk.goto(500_000)
        walk.run_until(pc=walk.pc)
        walk.step(-10)
    assert result.is_identical and content() == before
    with pytest.raises(InputError, match="engine"):
        tracekit.session(path, engine="slow")


def test_watchpoints_and_last_write(tmp_path: Path) -> None:
    """Against the table of a full capture: the same accesses both ways, each place behind the instruction that made it."""
    recorded(
        tmp_path / "thin.tkt", "accounting", vcpus=2, host=busy_host("fair"), max_instructions=400_000, checkpoint_every=100_000
    )
    result = tracekit.replay(tmp_path / "thin.tkt", capture="full", output=tmp_path / "full.tkt")
    assert result.is_identical
    full = Trace.open(tmp_path / "full.tkt")
    writes = [row for row in full.rows("memory_writes") if row[4] == "guest"]
    ipa = writes[len(writes) // 2][5]
    for table, keyword in (("memory_writes", "write"), ("memory_reads", "read")):
        rows = [row for row in full.rows(table) if row[5] < ipa + 8 and row[5] + row[6] > ipa]
        places = sorted({row[0] + (row[4] == "guest") for row in rows})
        assert places
        with tracekit.session(tmp_path / "thin.tkt") as walk:
            for place in places[:4]:
                stop = walk.run_until(**{keyword: (ipa, 8)})
                assert (stop.reason, stop.position, walk.position) == (Reason.WATCHPOINT, place, place)
                assert (
                    stop.event is not None
                    and stop.event.table == table
                    and stop.event.row[0] == place - (stop.event.row[4] == "guest")
                )
            walk.goto(walk.end_position)
            for place in [one for one in reversed(places) if one < walk.end_position][:4]:
                assert walk.run_until(**{keyword: (ipa, 8)}, backwards=True).position == place
    with tracekit.session(tmp_path / "thin.tkt") as walk:
        row = next(row for row in reversed(writes) if row[5] == ipa)
        walk.goto(row[0] + 1)
        last = walk.last_write(ipa, row[6])
        assert last is not None and (last.position, last.pc, last.value) == (row[0], row[8], row[7])
        walk.step(-1)
        assert walk.pc == row[8] and walk.vcpu == row[3]
        coming = walk.next_write(ipa, row[6])
        assert coming is not None and coming.row[0] == row[0]
        with pytest.raises(InputError, match="either pc"):
            walk.run_until(pc=1, write=(ipa, 8))
        with pytest.raises(InputError, match="nothing to stop at"):
            walk.run_until()


def test_events_on_the_way(walk: Walk) -> None:
    """Rows of the trace's tables between two places, whichever way it went; of chosen tables, of any stretch."""
    walk.goto(200_000)
    walk.goto(400_000)
    events = walk.events()
    assert events and all(200_000 <= event.row[0] < 400_000 for event in events)
    walk.goto(200_000)
    assert walk.events() == events == walk.events(200_000, 400_000)
    rows = [Event("schedule", row) for row in walk.trace.rows("schedule") if 200_000 <= row[0] < 400_000]
    assert walk.events(tables=["schedule"]) == rows


def descriptors(*entries: tuple[int, int]) -> Any:
    """A load() over few words."""
    return lambda ipa: dict(entries).get(ipa, 0)


TCR = 16 | 16 << 16 | 2 << 30  # 48 bits, 4 KiB, both halves


@pytest.mark.parametrize(
    ("va", "tcr", "entries", "expected"),
    [
        pytest.param(
            0xFFFF_0000_0000_1234,
            TCR,
            [(0x9000, 0xA003), (0xA000, 0xB003), (0xB000, 0xC003), (0xC008, 0x4000_0703)],
            (0x4000_0234, 0xDCC),
            id="a page of the upper half",
        ),
        pytest.param(
            0x4020_0010,
            TCR,
            [(0x8000, 0xA003), (0xA008, 0xB003), (0xB008, 0x8060_0701)],
            (0x8060_0010, 0x1F_FFF0),
            id="a block of 2 MiB",
        ),
        pytest.param(
            0x4020_0010, TCR, [(0x8000, 0xA003), (0xA008, 0x8000_0701)], (0x8020_0010, 0x3FDF_FFF0), id="a block of 1 GiB"
        ),
        pytest.param(
            0x7F00_0000_0000_0008,
            TCR | 1 << 37,
            [(0x8000, 0xA003), (0xA000, 0x4000_0701)],
            (0x4000_0008, 0x3FFF_FFF8),
            id="a tagged address",
        ),
        pytest.param(
            0x2001_0004,
            25 | 1 << 14 | 1 << 23,
            [(0x8008, 0xB_0003), (0xB_0008, 0x5_0003)],
            (0x5_0004, 0xFFFC),
            id="64 KiB pages, 39 bits",
        ),
    ],
)
def test_translation(va: int, tcr: int, entries: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    """Levels, blocks, granules, both halves, tagged addresses."""
    registers = {"sctlr_el1": 1, "tcr_el1": tcr, "ttbr0_el1": 0x8000, "ttbr1_el1": 0x9001}
    assert translate(va, registers, descriptors(*entries)) == expected


@pytest.mark.parametrize(
    ("va", "tcr", "what"),
    [
        (0x1000, TCR, "not mapped"),
        (0x0001_0000_0000_0000, TCR, "outside"),
        (0x1000, TCR | 1 << 7, "outside"),
        (0x1000, 0x3F, "outside"),
    ],
)
def test_no_translation(va: int, tcr: int, what: str) -> None:
    """Nothing there, between the halves, a half that is off, sizes that cannot be."""
    registers = {"sctlr_el1": 1, "tcr_el1": tcr, "ttbr0_el1": 0x8000, "ttbr1_el1": 0x9000}
    with pytest.raises(NotMapped, match=what):
        translate(va, registers, descriptors())
