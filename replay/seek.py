"""Standing inside a recorded run: a session goes to any position, exact to the instruction, within one board.

Only pages that differ are written when it goes from one checkpoint to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tracekit.formats.checkpoint_file import ZERO_DIGEST, ZERO_PAGE
from tracekit.formats.checkpoints import Place
from tracekit.formats.errors import InputError, TracekitError
from tracekit.formats.reader import Trace
from tracekit.machine.board import Board
from tracekit.machine.dirty import DirtyPages
from tracekit.machine.memory import PAGE_SIZE, Page
from tracekit.replay.difference import Diverged
from tracekit.replay.divergence import Divergence
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.standing import Standing

JUMP_MIN = 10_000_000  # instructions: a checkpoint that is less far ahead is not worth its restoring


class SessionDiverged(TracekitError):
    """The run cannot be followed to the place that was asked for: it is not the recorded one. `divergence` has the proof."""

    def __init__(self, trace: Trace, divergence: Divergence) -> None:
        super().__init__(f"{trace.path}: diverged at position {divergence.position}: {divergence.what}")
        self.divergence = divergence


class InitialPages:
    """The guest's memory before the first instruction, by page (ipa >> 12)."""

    def __init__(self, images: Iterator[tuple[int, bytes]]) -> None:
        self._images = tuple(images)  # later ones lie over earlier ones

    def page(self, index: int) -> bytes:
        """4096 bytes."""
        begin = index * PAGE_SIZE
        out = ZERO_PAGE
        for ipa, data in self._images:
            low, high = max(begin, ipa), min(begin + PAGE_SIZE, ipa + len(data))
            if low < high:
                out = out[: low - begin] + data[low - ipa : high - ipa] + out[high - begin :]
        return out


class Session:
    """A place inside a trace's run. After goto(p) the machine is as before the instruction at p, and before what is decided there."""

    def __init__(self, trace: Trace, options: ReplayOptions | None = None) -> None:
        """Errors: TraceDamaged."""
        self._trace = trace
        self._options = replace(options or ReplayOptions(), capture="thin", to_position=None)
        self._open()
        self._initial: InitialPages | None = None

    def _open(self) -> None:
        self._replay = self._new_replay()
        self._checkpoints = self._replay.checkpoints
        self._dirty = DirtyPages(self._replay.board.memory)
        self._table: dict[int, Place] = {}  # of the checkpoint that was restored last
        self._is_lost = False  # what the machine is says nothing: it diverged

    def _new_replay(self) -> Replay:
        return Replay(self._trace, self._options, compares_checkpoints=False)

    def close(self) -> None:
        """Give the machine's memory back."""
        self._replay.board.close()

    @property
    def board(self) -> Board:
        """The machine. Whoever changes it goes elsewhere before going on."""
        return self._replay.board

    @property
    def position(self) -> int:
        """Instructions retired."""
        return self._replay.board.engine.position

    @property
    def standing(self) -> Standing:
        """What the run knows beside the machine: SGIs on their way, snapshots kept, the loaded vCPU."""
        return self._replay.standing

    @property
    def end_position(self) -> int:
        """Where the recording ends."""
        return self._replay.end_position

    def goto(self, position: int) -> None:
        """Be there. Errors: InputError for a position outside the run; SessionDiverged; TraceDamaged."""
        if not 0 <= position <= self.end_position:
            raise InputError(f"position {position} is not in the run, which ends at {self.end_position}")
        k = self._checkpoints.at_or_before(position - 1)
        here = self.position
        ahead = 0 if k is None else self._checkpoints.entries[k].position - here
        if self._is_lost or position < here or ahead >= JUMP_MIN:
            self._jump(k)
        if position != self.position:
            self._guarded(lambda: self._replay.run_to(position))

    def _guarded(self, act: Callable[[], None]) -> None:
        """Errors: SessionDiverged, where the replay did; after any error the machine says nothing."""
        try:
            act()
        except Diverged as diverged:
            self._is_lost = True
            raise SessionDiverged(self._trace, diverged.divergence) from None
        except BaseException:
            self._is_lost = True
            raise

    def _jump(self, k: int | None) -> None:
        """Become the machine of checkpoint k (None: of the beginning)."""
        self._is_lost = True
        point = self._replay.point(k)
        table = {} if k is None else self._checkpoints.table(k)
        self._replay.go_on_from(point, self._pages_to_write(table))
        self._dirty.scan()
        self._table = table
        self._is_lost = False

    def _pages_to_write(self, table: dict[int, Place]) -> dict[int, Page]:
        """Pages that may differ between the present memory and a checkpoint's: what was changed since, and where the tables differ."""
        known, digest = self._table, self._checkpoints.digest
        wanted = {*self._dirty.scan().indices, *self._changed_before()}
        wanted.update(index for index in known.keys() - table.keys())
        for index, place in table.items():
            before = known.get(index)
            if before != place and (before is None or digest(before) != digest(place)):
                wanted.add(index)
        return self._contents(wanted, table)

    def _changed_before(self) -> Iterable[int]:
        """Pages that changed between the checkpoint that was restored last and the last scan."""
        return ()

    def _contents(self, wanted: Iterable[int], table: dict[int, Place]) -> dict[int, Page]:
        """Pages as they are at the checkpoint whose table that is."""
        digest = self._checkpoints.digest
        pages: dict[int, Page] = {}
        stored = {}
        for index in wanted:
            if index not in table:
                pages[index] = self._first(index)
            elif digest(table[index]) == ZERO_DIGEST:
                pages[index] = ZERO_PAGE
            else:
                stored[index] = table[index]
        pages.update(self._checkpoints.read(stored))
        return pages

    def _first(self, index: int) -> bytes:
        if self._initial is None:
            self._initial = InitialPages(self._replay.machine.images())
        return self._initial.page(index)
