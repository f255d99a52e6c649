"""When a recording takes checkpoints, and of what. Spec: formats/SPEC.md "Checkpoints"; docs/machine.md tells the measured costs.

Whether one is due depends on positions and counts of pages alone: never on a real clock, and never on which pages happen to be resident.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tracekit.formats.checkpoint_file import PAGE_BYTES, SPACE_SHIFT
from tracekit.formats.checkpoints import Page
from tracekit.formats.manifest import CHECKPOINTS_MAX
from tracekit.formats.writer import TraceWriter
from tracekit.machine.board import Board
from tracekit.machine.dirty import Changes, DirtyPages
from tracekit.machine.portable import enabled_breakpoint, encode
from tracekit.recorder.vmm import Sgi, Snapshot

SPACING_MIN = 64_000_000  # instructions; half of it and a restore are less than 100 M of a Linux guest
SPACING_QUIET = 96_000_000  # behind a checkpoint that found little to keep: such stretches are quick to execute, too
KNOWN_PAGE_COST = 200  # instructions in whose time a scan looks at a page that has ever been non-zero
CHANGED_PAGE_COST = 5_000  # instructions in whose time a changed page is copied, hashed and compressed
COST_RATIO = 2  # the stretch behind a checkpoint is at least so many times as long as the checkpoint cost
WAITING_BYTES_MAX = 4 << 20  # of input that no UART has read yet; each checkpoint would hold all of it


@dataclass(slots=True)
class Spacing:
    """When the next checkpoint is due. every: instructions between two, None: as many as the last one's cost asks for."""

    every: int | None = None
    known_pages: int = 0
    due: int = 0
    _count: int = 0
    _doublings: int = 0

    def __post_init__(self) -> None:
        self.due = self._stretch(SPACING_MIN)

    def taken(self, position: int, changed_pages: int, known_pages: int) -> None:
        """A checkpoint was taken. known_pages: those that have ever been seen non-zero, or changed."""
        if self._count == CHECKPOINTS_MAX:  # as the writer thins them
            self._count //= 2
            self._doublings += 1
        self._count += 1
        keeping, looking = CHANGED_PAGE_COST * changed_pages, KNOWN_PAGE_COST * known_pages
        least = SPACING_MIN if keeping > looking else SPACING_QUIET
        self.due = position + self._stretch(max(least, COST_RATIO * (keeping + looking)))

    def _stretch(self, wanted: int) -> int:
        return (self.every if self.every is not None else wanted) << self._doublings


class Session(Protocol):
    """What is asked of the running recording."""

    board: Board

    def pending_sgis(self) -> tuple[Sgi, ...]: ...
    def kept_snapshots(self) -> Sequence[Snapshot]: ...


class Checkpointer:
    """Takes the checkpoints of one recording."""

    def __init__(self, session: Session, writer: TraceWriter, every: int | None, loaded_bytes: int) -> None:
        """The board's memory is that before the first instruction, of which loaded_bytes are images."""
        self._session = session
        self._writer = writer
        self._dirty = DirtyPages(session.board.memory)
        self._loaded_pages = loaded_bytes // PAGE_BYTES
        self._changed: set[int] = set()  # pages that ever were
        self._spacing = Spacing(every)
        self._stored_snapshots = 0
        self._has_left_out = False

    def at_mark(self, vtime_max_ns: int) -> None:
        """The `states` rows of a mark have just been told. Errors: DiskError."""
        board, session = self._session.board, self._session
        position = board.engine.position
        if position < self._spacing.due:
            return
        snapshots = session.kept_snapshots()
        machine = board.save_portable()
        gap = board.portable_gap() or next(filter(None, (enabled_breakpoint(one.state) for one in snapshots)), None)
        if gap is not None:  # nobody could go on from it
            self._leave_out(position, gap)
            return
        if sum(len(one.uart.waiting) for one in (machine, *(kept.state for kept in snapshots))) > WAITING_BYTES_MAX:
            return
        state: dict[str, Any] = {
            "machine": encode(machine),
            "sgis": [list(sgi) for sgi in session.pending_sgis()],
            "snapshots": [
                {"number": one.number, "machine": encode(one.state), "sgis": [list(sgi) for sgi in one.sgis]} for one in snapshots
            ],
            "vtime_max_ns": vtime_max_ns,
        }
        self._writer.wait_for_checkpoints()  # the last one's pages are the shadow that a scan brings up to date
        changes = self._dirty.scan()
        _, sequence = machine.sequence
        pages = self._pages(changes, snapshots[self._stored_snapshots :])
        self._writer.add_checkpoint(position, sequence, board.here()[1], state, pages)
        self._changed.update(changes.indices)
        self._spacing.taken(position, len(changes), len(self._changed) + self._loaded_pages)
        self._stored_snapshots = len(snapshots)

    def _leave_out(self, position: int, reason: str) -> None:
        """The manifest names the first that is missing and why. Errors: DiskError."""
        if not self._has_left_out:
            self._has_left_out = True
            self._writer.set(checkpoints_left_out={"position": position, "reason": reason})

    def _pages(self, changes: Changes, new_snapshots: Sequence[Snapshot]) -> Iterator[tuple[int, Page]]:
        yield from changes
        for space, snapshot in enumerate(new_snapshots, start=self._stored_snapshots + 1):
            for index, page in snapshot.state.pages.items():
                yield space << SPACE_SHIFT | index, page
