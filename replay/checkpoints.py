"""Checkpoints as a replay meets them: each is compared with what the machine is, and any can be gone on from.

Spec: formats/SPEC.md "Checkpoints".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracekit.formats.checkpoint_file import SPACES_MAX, ZERO_DIGEST
from tracekit.formats.checkpoints import Checkpoints, Entry
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.machine.board import Board
from tracekit.machine.dirty import DirtyPages
from tracekit.machine.portable import StateError, decode, encode
from tracekit.machine.state import MachineState
from tracekit.replay.difference import Difference
from tracekit.replay.divergence import Cause, Field
from tracekit.replay.events import last_board_check
from tracekit.replay.standing import SNAPSHOTS_MAX, Sgi, Snapshot, Standing

FIELDS_MAX = 16  # of a checkpoint that does not agree, so many differences are told
TEXT_MAX = 512  # characters of a difference: a page's digest and a console line are shorter
_TIME_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Point:
    """A place to go on from: the machine without its pages, and what a replay knows beside it.

    index: number of the checkpoint; -1 for the beginning, which has no entry.
    """

    index: int
    entry: Entry | None
    machine: MachineState
    standing: Standing

    @property
    def place(self) -> tuple[int, int]:
        """(position, sequence) of the first event behind it."""
        return (0, 0) if self.entry is None else (self.entry.position, self.entry.sequence)


def read_point(trace: Trace, checkpoints: Checkpoints, k: int, vcpu_count: int) -> Point:
    """Checkpoint k as a value. Errors: TraceDamaged where it describes no state of a machine with so many vCPUs."""
    entry, state = checkpoints.entries[k], checkpoints.state(k)
    where = f"{trace.path}/{entry.file}: checkpoint {k} (position {entry.position})"
    try:
        machine = decode(state["machine"], vcpu_count)
        if (machine.position, machine.sequence) != (entry.position, (entry.position, entry.sequence)):
            raise ValueError("the machine in it stands elsewhere")
        snapshots: dict[int, Snapshot] = {}
        if len(state["snapshots"]) > SNAPSHOTS_MAX:
            raise ValueError(f"more than {SNAPSHOTS_MAX} snapshots")
        for n, one in enumerate(state["snapshots"]):
            pages = dict(checkpoints.read(checkpoints.table(k, n + 1)))
            kept = replace(decode(one["machine"], vcpu_count), pages=pages)
            snapshots[_number(one["number"], 1 << 64)] = Snapshot(kept, tuple(_sgis(one["sgis"], vcpu_count)))
        if len(snapshots) != len(state["snapshots"]):
            raise ValueError("two snapshots of one number")
        standing = Standing(
            sgis=_sgis(state["sgis"], vcpu_count),
            snapshots=snapshots,
            loaded=machine.loaded_vcpu,
            last_check=last_board_check(trace, (entry.position, entry.sequence)),
            vtime_ns=_number(state["vtime_max_ns"], _TIME_END),
        )
    except (StateError, KeyError, TypeError, ValueError) as error:
        raise TraceDamaged(f"{where}: its state cannot be used ({error})") from None
    return Point(k, entry, machine, standing)


def _sgis(value: Any, vcpu_count: int) -> list[Sgi]:
    out: list[Sgi] = []
    for at_ns, source, target, intid in value:
        vcpus = _number(source, vcpu_count), _number(target, vcpu_count)
        out.append((_number(at_ns, _TIME_END), *vcpus, _number(intid, 16)))
    return out


def _number(value: Any, end: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise ValueError(f"{value!r} is not a number below {end}")
    return value


class CheckpointComparison:
    """Walks along the checkpoints of a trace beside a replay. Errors of its methods: Diverged; TraceDamaged for a file that is."""

    def __init__(self, checkpoints: Checkpoints, standing: Standing, difference: Difference, end_vtime_ns: int) -> None:
        self._checkpoints = checkpoints
        self._standing = standing
        self._difference = difference
        self._end_vtime_ns = end_vtime_ns
        self._dirty: DirtyPages | None = None
        self._snapshots = 0  # of those kept, so many have been compared with their pages
        self.index = 0  # of the next one
        self.next: Entry | None = None

    def begin(self, board: Board, index: int) -> None:
        """The next checkpoint is number `index`; changes of memory are counted from now on."""
        self.index = index
        self.next = self._checkpoints.entries[index] if index < len(self._checkpoints.entries) else None
        self._dirty = DirtyPages(board.memory) if self.next is not None else None
        self._snapshots = len(self._standing.snapshots)

    def is_here(self, board: Board) -> bool:
        """Whether the machine stands at the next checkpoint."""
        state = board.engine.state
        return self.next is not None and (state.position, state.sequence_position, state.sequence_next) == (
            self.next.position,
            self.next.position,
            self.next.sequence,
        )

    def check_not_passed(self, position: int) -> None:
        """Every checkpoint before a position has been met."""
        if self.next is not None and self.next.position < position:
            what = f"checkpoint {self.index} (position {self.next.position}) is not where the recorded run has a mark"
            self._difference.tell(what, Cause.DAMAGE, (), None, None)

    def compare(self, board: Board) -> None:
        """The machine is what the next checkpoint says; the one after it is next then."""
        entry, state = self.next, self._checkpoints.state(self.index)
        assert entry is not None and self._dirty is not None
        self._told(tuple(self._state_fields(board, entry, state)), Cause.DAMAGE)
        self._told(tuple(_differences(state.get("sgis"), [list(one) for one in self._standing.sgis], "sgis")), Cause.DRIFT)
        self._told(tuple(self._snapshot_fields(state.get("snapshots"))), Cause.DRIFT)
        self._told(tuple(self._page_fields()), Cause.DRIFT)
        self._standing.vtime_ns = state["vtime_max_ns"]
        self._snapshots = len(self._standing.snapshots)
        self.index += 1
        self.next = self._checkpoints.entries[self.index] if self.index < len(self._checkpoints.entries) else None

    def _told(self, fields: tuple[Field, ...], cause: Cause) -> None:
        if fields:
            more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
            names = ", ".join(one.name for one in fields[:3])
            what = f"checkpoint {self.index} does not agree: {names}{more}"
            self._difference.tell(what, cause, fields[:FIELDS_MAX], None, None)

    def _state_fields(self, board: Board, entry: Entry, state: Mapping[str, Any]) -> Iterator[Field]:
        """Registers, devices and clocks; `states` rows at this place have agreed, so the checkpoint is to blame for its own."""
        machine = encode(board.save_portable())
        for n, vcpu in enumerate(machine["vcpus"]):
            if n != machine["loaded_vcpu"]:  # set anew when it runs; whoever was put aside before executing has none of that run
                del vcpu["local_ns"]
        yield from _differences(state.get("machine"), machine, "machine")
        yield from _differences(entry.vtime_ns, board.engine.now_ns(), "vtime_ns")
        latest = state.get("vtime_max_ns")
        seen = self._standing.vtime_ns
        if not isinstance(latest, int) or isinstance(latest, bool) or not seen <= latest <= max(seen, self._end_vtime_ns):
            yield Field("vtime_max_ns", _told(latest), seen)

    def _snapshot_fields(self, recorded: Any) -> Iterator[Field]:
        kept = self._standing.snapshots
        mine = [
            {"number": number, "machine": _rolled_back(one.state), "sgis": [list(sgi) for sgi in one.sgis]}
            for number, one in kept.items()
        ]
        yield from _differences(recorded, mine, "snapshots")
        for n, (number, snapshot) in enumerate(kept.items()):
            told = dict(self._checkpoints.changes(self.index, n + 1))
            pages = snapshot.state.pages
            for index in sorted({*told, *(pages if n >= self._snapshots else ())}):
                digest = hashlib.sha256(pages[index]).digest() if index in pages else ZERO_DIGEST
                if told.get(index, ZERO_DIGEST) != digest:
                    yield _page(f"snapshot {number}, page", index, told.get(index), digest)
        for space in range(len(kept) + 1, SPACES_MAX):
            if self._checkpoints.changes(self.index, space):
                yield Field(f"pages of snapshot {space - 1}", "some", None)

    def _page_fields(self) -> Iterator[Field]:
        """Memory: the pages that the checkpoint lists are as it says, and no other page has changed."""
        assert self._dirty is not None
        changes = self._dirty.scan()
        told = dict(self._checkpoints.changes(self.index))
        for index in sorted({*told, *changes.indices}):
            digest = hashlib.sha256(changes.page(index)).digest()
            if told.get(index) != digest:
                yield _page("page", index, told.get(index), digest)


def _rolled_back(state: MachineState) -> dict[str, Any]:
    """What a roll-back takes of a snapshot: not place, times, console, or which vCPU had the engine."""
    machine = encode(state)
    for key in ("position", "sequence", "loaded_vcpu", "clock_ns", "counter_high_ns", "console"):
        del machine[key]
    for vcpu in machine["vcpus"]:
        del vcpu["local_ns"], vcpu["remainder"]
    return machine


def _page(name: str, index: int, recorded: bytes | None, replayed: bytes) -> Field:
    return Field(f"{name} {index << 12:#x}", "unchanged" if recorded is None else recorded.hex(), replayed.hex())


def _differences(recorded: Any, replayed: Any, where: str) -> Iterator[Field]:
    """Where two JSON values differ, leaf by leaf; keys that only the recorded one has are another version's."""
    if isinstance(replayed, dict) and isinstance(recorded, dict):
        for key, value in replayed.items():
            yield from _differences(recorded.get(key), value, f"{where}.{key}")
    elif isinstance(replayed, list) and isinstance(recorded, list) and len(recorded) == len(replayed):
        for n, (mine, theirs) in enumerate(zip(recorded, replayed, strict=True)):
            yield from _differences(mine, theirs, f"{where}[{n}]")
    elif type(recorded) is not type(replayed) or recorded != replayed:
        yield Field(where, _told(recorded), _told(replayed))


def _told(value: Any) -> Any:
    if isinstance(value, list | dict) or (isinstance(value, str) and len(value) > TEXT_MAX):
        return f"{type(value).__name__} of {len(value)}"
    return value
