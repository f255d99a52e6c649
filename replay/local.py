"""Checkpoints that a session keeps in memory of places where it has been, so that going back a little is quick.

They are full machine states of this process, between any two instructions, and never leave it. Each holds the pages that changed since the
one before it; all of them lie behind one checkpoint of the trace (or its beginning), their root.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.machine.memory import PAGE_SIZE, Page
from tracekit.machine.state import MachineState
from tracekit.replay.options import ReplayOptions
from tracekit.replay.recent import RecentEvents
from tracekit.replay.seek import JUMP_MIN, Session, SessionDiverged
from tracekit.replay.session import Replay
from tracekit.replay.standing import Standing

POINTS_MAX = 64
BYTES_MAX = 128 << 20  # of their pages
NEAREST, FACTOR = 2_048, 8  # instructions before a goal: the last point on the way, and how much farther away each other one is
KEEP_EVERY = 20_000_000  # instructions, while running on
HITS_MAX = 1_000_000  # of breakpoints, kept at once
STALE_MAX = 512  # pages
SHORT = 250_000  # instructions: going on over so few is quicker than going to a point


@dataclass(slots=True)
class LocalPoint:
    """A place that the session can return to. pages: by ipa >> 12, those that changed since the point before it, perhaps more."""

    machine: MachineState
    standing: Standing
    place: tuple[int, int]
    pages: dict[int, bytes]

    @property
    def position(self) -> int:
        """Instructions retired."""
        return self.machine.position


class LocalSession(Session):
    """A session whose every place is as the next instruction finds the machine: what is decided there has happened, except at the end.

    Errors of goto(): InputError for a position outside the run; SessionDiverged; TraceDamaged.
    """

    def __init__(self, trace: Trace, options: ReplayOptions | None = None) -> None:
        """Errors: TraceDamaged."""
        self._points: list[LocalPoint] = []  # ascending
        self._anchor = -1  # number of the point that memory was compared with last; -1: the root
        self._stale: set[int] = set()  # pages in which the last look at memory may differ from the anchor
        super().__init__(trace, replace(options or ReplayOptions(), counting="block"))
        self.goto(0)

    def _new_replay(self) -> Replay:
        return Replay(self._trace, self._options, compares_checkpoints=False, events=RecentEvents(self._trace))

    def goto(self, position: int) -> None:
        """Be there, by the shortest way that is known."""
        if not 0 <= position <= self.end_position:
            raise InputError(f"position {position} is not in the run, which ends at {self.end_position}")
        try:
            self._go(position)
        except SessionDiverged:
            if not self._points:
                raise
            self._forget()  # a guest that leans on stale translations may notice a return: once more, from the trace's own checkpoint
            self._go(position)

    def _go(self, position: int) -> None:
        before_end = min(position, self.end_position - 1)
        k = self._checkpoints.at_or_before(before_end)
        root = 0 if k is None else self._checkpoints.entries[k].position
        at = bisect_right(self._points, before_end, key=lambda one: one.position) - 1
        local = self._points[at].position if at >= 0 else -1
        here = -1 if self._is_lost or self.position > position else self.position
        if here < max(local - SHORT, root - JUMP_MIN, 0):
            if local >= root - JUMP_MIN and local >= 0:
                self._return(at)
            else:
                self._jump(k)
                self._points.clear()
                self._stale.clear()
                self._anchor = -1
                self._decide()
        for goal in self._stages(position):
            self._advance(goal)
            self._decide()
            self._keep()
        self._advance(position)
        self._decide()

    def _advance(self, position: int) -> None:
        """Run on to a position, before what is decided there."""
        if position != self.position:
            self._guarded(lambda: self._replay.run_to(position))

    def _decide(self) -> None:
        self._guarded(self._replay.decide_here)

    # --- breakpoints ---------------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, addresses: Iterable[int], vcpu: int | None = None) -> Iterator[deque[int]]:
        """Wherever it runs meanwhile, positions at which the instruction at one of the addresses is about to execute are appended, in the
        order of running; only the last HITS_MAX are kept. vcpu: only those of this one."""
        hits: deque[int] = deque(maxlen=HITS_MAX)

        def reached(position: int, runs: int, _pc: int) -> None:
            if vcpu is None or runs == vcpu:
                hits.append(position)

        engine = self.board.engine
        handles = [engine.watch_pc(address, reached) for address in sorted(set(addresses))]
        try:
            yield hits
        finally:
            for handle in handles:
                engine.unwatch_pc(handle)

    def run_on(self, position: int) -> None:
        """Go on forwards to a position, before what is decided there; a point is kept now and then. Errors: as of goto()."""
        if self.position - max((one.position for one in self._points), default=0) >= KEEP_EVERY:
            self._decide()
            self._keep()
        self._advance(position)

    def known_before(self, position: int) -> int:
        """The last place before a position that it can be at without replaying: a point, a checkpoint or the beginning."""
        k = self._checkpoints.at_or_before(position - 1)
        checkpoint = 0 if k is None else self._checkpoints.entries[k].position
        return max((one.position for one in self._points if checkpoint < one.position < position), default=checkpoint)

    # --- points --------------------------------------------------------------------------------------------------------------------

    def _stages(self, position: int) -> list[int]:
        """Where points are kept on the way to a position: the closer, the denser."""
        out: list[int] = []
        distance = NEAREST
        while position - distance >= self.position + NEAREST:
            out.append(position - distance)
            distance *= FACTOR
        known = {one.position for one in self._points}
        return [one for one in reversed(out) if one not in known]

    def _keep(self) -> None:
        """The present place becomes a point."""
        self._stale.update(self._dirty.scan().indices)
        changed = set(self._stale)
        board, here = self.board, self.position
        at = bisect_right(self._points, here, key=lambda one: one.position)
        for one in self._points[self._anchor + 1 : at]:
            changed.update(one.pages)
        pages = {index: board.memory.read_bytes(index * PAGE_SIZE, PAGE_SIZE) for index in changed}
        standing = Standing()
        standing.become(self.standing)
        if at < len(self._points):  # what was changed here and is as before at the next point: that one did not need to say so
            follower = self._points[at]
            before = self._pages_at(at - 1, pages.keys() - follower.pages.keys())
            follower.pages.update((index, bytes(content)) for index, content in before.items())
        self._points.insert(at, LocalPoint(board.save_here(), standing, self._replay.place, pages))
        self._anchor = at
        self._stale.clear()
        self._prune()

    def _prune(self) -> None:
        """Within bounds: the point that is farthest away goes, its pages to its successor."""
        while len(self._points) > POINTS_MAX or sum(len(one.pages) for one in self._points) * PAGE_SIZE > BYTES_MAX:
            ends = [n for n in (0, len(self._points) - 1) if n != self._anchor]
            if not ends:
                break
            drop = max(ends, key=lambda n: abs(self._points[n].position - self.position))
            if drop + 1 < len(self._points):
                follower = self._points[drop + 1]
                follower.pages = {**self._points[drop].pages, **follower.pages}
            del self._points[drop]
            self._anchor -= drop < self._anchor

    def _return(self, at: int) -> None:
        """Be at point number `at`."""
        self._is_lost = True
        low, high = sorted((self._anchor, at))
        self._stale.update(self._dirty.scan().indices)
        wanted = set(self._stale)
        for one in self._points[low + 1 : high + 1]:
            wanted.update(one.pages)
        pages = self._pages_at(at, wanted)
        point = self._points[at]
        self._guarded(lambda: self._replay.return_to(point.machine, point.standing, point.place, pages))
        self._stale = set(pages)  # a look at all memory would cost more than writing these once more
        if len(pages) > STALE_MAX:
            self._dirty.scan()
            self._stale.clear()
        self._anchor = at
        self._is_lost = False

    def _pages_at(self, at: int, wanted: AbstractSet[int]) -> dict[int, Page]:
        """Content of some pages at point number `at` (-1: at the root)."""
        pages: dict[int, Page] = {}
        for one in reversed(self._points[: at + 1]):
            pages.update((index, one.pages[index]) for index in wanted & one.pages.keys() - pages.keys())
        pages.update(self._contents(wanted - pages.keys(), self._table))
        return pages

    def _forget(self) -> None:
        """No point is known any more; the machine is to be built from the trace."""
        self._stale.update(self._changed_before())
        self._points.clear()
        self._anchor, self._is_lost = -1, True

    def _changed_before(self) -> Iterable[int]:
        return self._stale.union(*(one.pages for one in self._points[: self._anchor + 1]))
