"""Recordings whose every mark is kept in portable form, and replays that go on from one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tracekit.formats.checkpoints import Entry
from tracekit.formats.reader import Trace
from tracekit.machine.board import Board
from tracekit.machine.dirty import DirtyPages
from tracekit.machine.portable import decode, encode
from tracekit.recorder import session
from tracekit.recorder.record import Recorded, record
from tracekit.recorder.scenario import Scenario
from tracekit.replay.checkpoints import Point
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.standing import Standing

OTHER_ENGINES: tuple[dict[str, Any], ...] = (
    {}, {"page_size": 1024}, {"mode": "safe"}, {"counting": "instruction"}, {"mode": "exact"},
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """One mark: its state as JSON text, pages that changed since the one before, and what a replay knows beside the board."""

    position: int
    sequence: int
    vtime_ns: int
    state: str
    changes: dict[int, bytes]
    sgis: list[tuple[int, int, int, int]]
    gap: str | None


@dataclass
class Marked:
    """A recording with its marks."""

    path: Path
    done: Recorded
    vcpus: int
    marks: list[Mark] = field(default_factory=list)

    def pages(self, number: int) -> dict[int, bytes]:
        """Memory at a mark: every page that has ever been non-zero."""
        out: dict[int, bytes] = {}
        for mark in self.marks[: number + 1]:
            out.update(mark.changes)
        return out

    def point(self, number: int) -> Point:
        """Where a replay goes on from."""
        mark = self.marks[number]
        machine = decode(json.loads(mark.state), self.vcpus)
        standing = Standing(sgis=list(mark.sgis), loaded=machine.loaded_vcpu, last_check=mark.position, vtime_ns=mark.vtime_ns)
        entry = Entry(mark.position, mark.sequence, mark.vtime_ns, "", 0, 0)
        return Point(0, entry, machine, standing)

    def go_on(self, replay: Replay, number: int) -> tuple[Result, bytes]:
        """The rest of the run from a mark on: the verdict and the digest of memory at its end."""
        pages = self.pages(number)
        for index, _ in replay.board.memory.pages():
            pages.setdefault(index, bytes(4096))
        replay.go_on_from(self.point(number), pages)
        return replay.run(), replay.board.memory.digest()

    def replay(self, **options: Any) -> Replay:
        """A replay that has not begun; close its board."""
        return Replay(Trace.open(self.path, verify="all"), ReplayOptions(**options), compares_checkpoints=False)

    def straight(self, **options: Any) -> tuple[Result, bytes]:
        """The whole run."""
        replay = self.replay(**options)
        try:
            return replay.run(), replay.board.memory.digest()
        finally:
            replay.board.close()

    def fresh(self, number: int, **options: Any) -> tuple[Result, bytes]:
        """The rest of the run from a mark on, on a board that has run nothing."""
        replay = self.replay(**options)
        try:
            return self.go_on(replay, number)
        finally:
            replay.board.close()


def record_marks(scenario: Scenario, path: Path) -> Marked:
    """Record, and keep the machine at each mark."""
    marks: list[Mark] = []
    told, dirty = session.emit_states, []

    def keep(board: Board, *, with_memory: bool) -> None:
        told(board, with_memory=with_memory)
        if with_memory:
            return
        if not dirty:
            dirty.append(DirtyPages(board.memory))
            changes = dict(board.memory.pages())
        else:
            changes = {index: bytes(page) for index, page in dirty[0].scan()}
        sgis = list(board._director.pending_sgis())  # type: ignore[attr-defined]  # the recording itself
        sequence = int(board.engine.state.sequence_next)
        text = json.dumps(encode(board.save_portable()), sort_keys=True)
        marks.append(Mark(board.engine.position, sequence, board.here()[1], text, changes, sgis, board.portable_gap()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "emit_states", keep)
        done = record(scenario, path)
    return Marked(path, done, scenario.vcpus, marks)


def spread(marked: Marked, count: int) -> Iterator[int]:
    """Numbers of `count` marks from the first to the last."""
    last = len(marked.marks) - 1
    yield from sorted({round(n * last / max(count - 1, 1)) for n in range(count)})


def check(marked: Marked, count: int, engines: tuple[dict[str, Any], ...] = OTHER_ENGINES) -> None:
    """From `count` marks on, each on another engine: the same rows, states and memory as the straight run."""
    straight, memory = marked.straight()
    assert straight.is_identical, str(straight.divergence)
    assert len(marked.marks) >= count
    assert {mark.gap for mark in marked.marks} == {None}
    for turn, number in enumerate(spread(marked, count)):
        options = engines[turn % len(engines)]
        result, digest = marked.fresh(number, **options)
        assert result.is_identical, (number, options, str(result.divergence))
        assert digest == memory, (number, options)
