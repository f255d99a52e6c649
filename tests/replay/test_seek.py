"""A session inside a recorded run: wherever it goes, it is what a straight replay to there is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from forged import forged, nth_row
from support import busy_host, recorded

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.machine.board import Board
from tracekit.machine.portable import encode
from tracekit.replay import seek
from tracekit.replay.seek import Session, SessionDiverged
from tracekit.replay.session import Replay
from tracekit.replay.standing import Standing


@pytest.fixture(autouse=True)
def close_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many marks in a short run."""
    monkeypatch.setattr("tracekit.recorder.session.STATES_EVERY_NS", 150_000)


def state(board: Board, standing: Standing) -> tuple[Any, ...]:
    """All that a place is."""
    return encode(board.save_portable()), board.memory.digest(), standing.sgis, standing.loaded, list(standing.snapshots)


def straight(trace: Trace, position: int) -> tuple[Any, ...]:
    """The place as a replay from the beginning finds it."""
    session = Replay(trace)
    try:
        session.run_to(position)
        return state(session.board, session.standing)
    finally:
        session.board.close()


@pytest.mark.parametrize("jump", [0, 10_000_000], ids=["every checkpoint", "near ones are not worth it"])
@pytest.mark.parametrize("guest", ["steal", "spinlock", "accounting"])
def test_goto_is_a_straight_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest: str, jump: int) -> None:
    """Registers, devices, clocks, memory and SGIs at random positions, at checkpoints and beside them, in random order."""
    monkeypatch.setattr(seek, "JUMP_MIN", jump)
    recorded(tmp_path / "a.tkt", guest, host=busy_host("chaos", pcpus=2), seed=5, checkpoint_every=1, max_instructions=1_500_000)
    trace = Trace.open(tmp_path / "a.tkt")
    places = [entry.position for entry in trace.checkpoints().entries]
    chosen = random.Random(guest)
    session = Session(trace)
    end = session.end_position
    wanted = [*(chosen.randrange(end) for _ in range(8)), 0, 1, end, places[0], places[-1] + 1, places[len(places) // 2] - 1]
    chosen.shuffle(wanted)
    for position in [*wanted, *wanted[:3]]:
        session.goto(position)
        assert session.position == position
        assert state(session.board, session.standing) == straight(trace, position), position
    session.close()


def test_nowhere(tmp_path: Path) -> None:
    """Outside the run; and where the run is not the recorded one, before which it can still go."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host("fair"), checkpoint_every=1)
    hypercalls = Trace.open(tmp_path / "a.tkt").row_count("hypercalls")
    wrong = Trace.open(forged(tmp_path / "a.tkt", tmp_path / "b.tkt", rows=nth_row("hypercalls", hypercalls - 1, "x1", 99)))
    session = Session(wrong)
    for position in (-1, session.end_position + 1):
        with pytest.raises(InputError, match="is not in the run"):
            session.goto(position)
    with pytest.raises(SessionDiverged, match="hypercalls: x1 differs") as caught:
        session.goto(session.end_position)
    assert caught.value.divergence.position < session.end_position
    session.goto(1000)
    assert state(session.board, session.standing) == straight(wrong, 1000)
    session.close()
