"""Who wrote to an address: out of the columns where they exist for the asked stretch, else by replaying it, backwards, interval by interval.

Nothing here needs the engine until a stretch must be replayed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter
from typing import Any

from tracekit.formats.captures import is_whole, whole_stretch
from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.history import writes_backwards
from tracekit.formats.reader import Trace
from tracekit.formats.units import format_bytes
from tracekit.machine.map import PVTIME_BASE, PVTIME_SIZE
from tracekit.replay.wanted import Tally, Wanted

TABLE = "memory_writes"
STOLEN_OFFSET, STOLEN_SIZE = 8, 8  # of a stolen-time structure's total
STRUCTURE_SIZE = 64
SIZE_MAX = 1 << 20
_AFTER_ALL = 1 << 64
Place = tuple[int, int]  # (position, sequence)


@dataclass(frozen=True, slots=True)
class Write:
    """A write to the range, or a directive that set all memory anew (origin `directive`, cause its kind; ipa, size and value None).

    position in instructions, vtime_ns in virtual ns. The proof: row number `row` of `table` (None: the row is in no table, a replay made it),
    and a command that shows it.
    """

    position: int
    vtime_ns: int
    vcpu: int | None
    pc: int | None
    ipa: int | None
    size: int | None
    value: int | None
    origin: str
    cause: str | None
    table: str
    row: int | None
    command: str

    def as_dict(self) -> dict[str, Any]:
        """Field names to values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """writes: the newest first. before: only positions below it were asked for. is_all: there is no older write to the range.

    initial: where is_all and a byte is left that no write accounts for: what it holds from the beginning, a sentence.
    replayed: stretches [from, to) of positions that had to be replayed.
    """

    ipa: int
    size: int
    before: int
    writes: tuple[Write, ...]
    is_all: bool
    initial: str | None
    replayed: tuple[tuple[int, int], ...]


# Gives the newest wanted rows of `memory_writes` that only a capture of all writes has, of positions [from, to) of a trace, the newest first.
Replayer = Callable[[Trace, int, int, Wanted], list[tuple[Any, ...]]]


def place_of(trace: Trace, text: str) -> tuple[int, int]:
    """(ipa, size) of an address in decimal or hexadecimal; `pvtime:N`: the stolen time of vCPU N. Errors: InputError."""
    kind, _, number = text.partition(":")
    if kind == "pvtime" and number.isascii() and number.isdigit():
        structures = trace.manifest.get("machine", {}).get("pv_structures", [])
        if int(number) >= len(structures):
            raise InputError(f"{text}: the run has {len(structures)} stolen-time structure(s)")
        return int(structures[int(number)]) + STOLEN_OFFSET, STOLEN_SIZE
    try:
        return int(text, 0), 1
    except ValueError:
        raise InputError(f"{text!r} is no address: a number (0x... or decimal) or pvtime:N is") from None


def who_wrote(
    trace: Trace,
    ipa: int,
    *,
    size: int = 1,
    before: int | None = None,
    limit: int | None = None,
    replayer: Replayer | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Answer:
    """The writes to [ipa, ipa + size) (physical addresses) at positions below `before` (default: all), the newest first.

    limit: so many; default: as many as it takes to account for every byte of the range. replayer: who makes rows that no table holds
    (default: a replay in this process). tell: gets a sentence for each stretch that is replayed.
    Errors: InputError for a range that is no memory of the guest, ReplayDiverged, TraceDamaged.
    """
    wanted = Wanted(ipa, ipa + size, limit)
    _check_range(trace, ipa, size)
    if before is not None and before < 0:
        raise InputError(f"before = {before}: a position is 0 or more instructions")
    end = min(_AFTER_ALL if before is None else before, int(trace.manifest["end"]["position"]) + 1)
    replayed: list[tuple[int, int]] = []

    def recorded(begin: int, stop: int) -> Iterator[tuple[Place, Write]]:
        for number, row in writes_backwards(trace, ipa, ipa + size, before=stop, from_position=begin):
            yield (row[0], row[1]), _write(row, number, _dump(trace, TABLE, row[0]))

    def again(begin: int, stop: int) -> Iterator[tuple[Place, Write]]:
        tell(f"{trace.path} holds not all writes from position {begin:,} to {stop:,}: replaying them")
        replayed.append((begin, stop))
        path = shlex.quote(str(trace.path))
        for row in (replayer or _replayed_here)(trace, begin, stop, wanted):
            command = f"tracekit replay {path} --capture writes --from {row[0]} --to {row[0] + 1} -o NEW.tkt"
            yield (row[0], row[1]), _write(row, None, command)

    def newest_first() -> Iterator[tuple[Place, Write]]:
        for begin, stop, has_columns in _stretches(trace, ipa, ipa + size, end):
            if has_columns:
                yield from recorded(begin, stop)
            else:
                yield from merge(again(begin, stop), recorded(begin, stop), key=itemgetter(0), reverse=True)

    tally, writes = Tally(wanted), []
    every = merge(newest_first(), _set_anew(trace, ipa, end), key=itemgetter(0), reverse=True)
    while not tally.is_enough:
        _, write = next(every, (None, None))
        if write is None:
            break
        writes.append(write)
        tally.add(write.ipa, write.size)
    is_all = not tally.is_enough
    initial = _initial(trace, tally.left()) if is_all else None
    return Answer(ipa, size, end, tuple(writes), is_all, initial, tuple(replayed))


def _replayed_here(trace: Trace, begin: int, end: int, wanted: Wanted) -> list[tuple[Any, ...]]:
    from tracekit.replay.windows import replayed_writes

    return replayed_writes(trace, begin, end, wanted)


def _check_range(trace: Trace, ipa: int, size: int) -> None:
    if not 1 <= size <= SIZE_MAX:
        raise InputError(f"a range of {size} bytes: 1 to {SIZE_MAX} can be asked for")
    machine = trace.manifest.get("machine", {})
    ram, ram_size = int(machine.get("ram_base", 0)), int(machine.get("ram_size", 0))
    for base, length in ((ram, ram_size), (PVTIME_BASE, PVTIME_SIZE)):
        if base <= ipa and ipa + size <= base + length:
            return
    raise InputError(
        f"{ipa:#x}: the guest has no memory there (physical addresses: RAM from {ram:#x}, {format_bytes(ram_size)}; stolen-time page "
        f"from {PVTIME_BASE:#x}); what is written to devices is in no table"
    )


def _is_always_told(trace: Trace, begin: int, end: int) -> bool:
    """Whether a thin capture has every write to the range: the stolen-time page, a structure in RAM, a watched range."""
    machine = trace.manifest.get("machine", {})
    ranges = [(PVTIME_BASE, PVTIME_BASE + PVTIME_SIZE)]
    ranges += [(int(one), int(one) + STRUCTURE_SIZE) for one in machine.get("pv_structures", [])]
    try:
        ranges += [(int(low), int(high)) for low, high in machine.get("watches", [])]
    except (TypeError, ValueError) as error:
        raise TraceDamaged(f"{trace.path}: the manifest's watches are no ranges ({error})") from None
    return any(low <= begin and end <= high for low, high in ranges)


def _stretches(trace: Trace, begin: int, end: int, before: int) -> Iterator[tuple[int, int, bool]]:
    """Stretches [from, to) of positions below `before`, the last first, each with whether the table holds all its writes to the range."""
    if is_whole(trace.manifest, TABLE) or _is_always_told(trace, begin, end):
        yield 0, before, True
        return
    window = whole_stretch(trace.manifest, TABLE)
    cuts = {0, before, *(entry["position"] for entry in trace.manifest.get("checkpoints", ()))}
    if window is not None:
        cuts |= set(window)
    places = sorted(cut for cut in cuts if cut <= before)
    for low, high in zip(reversed(places[:-1]), reversed(places[1:]), strict=True):
        yield low, high, window is not None and window[0] <= low and high <= window[1]


def _set_anew(trace: Trace, ipa: int, before: int) -> list[tuple[Place, Write]]:
    """Directives that put all memory (a restore that rolls back) or all RAM (a reset) into an earlier state, the last first."""
    out = []
    for number, row in enumerate(trace.rows("directives")):
        position, sequence, vtime_ns, vcpu, kind, _, size, _, _ = row
        is_restore = kind == "restore" and size == 1
        is_reset = kind == "reset" and not PVTIME_BASE <= ipa < PVTIME_BASE + PVTIME_SIZE
        if vcpu is None and position < before and (is_restore or is_reset):
            command = _dump(trace, "directives", position)
            write = Write(position, vtime_ns, None, None, None, None, None, "directive", kind, "directives", number, command)
            out.append(((position, sequence), write))
    return out[::-1]


def _write(row: tuple[Any, ...], number: int | None, command: str) -> Write:
    position, _, vtime_ns, vcpu, origin, ipa, size, value, pc, cause = row
    return Write(position, vtime_ns, vcpu, pc, ipa, size, value, origin, cause, TABLE, number, command)


def _dump(trace: Trace, table: str, position: int) -> str:
    return f"tracekit dump {shlex.quote(str(trace.path))} {table} --from {position} --to {position + 1}"


def _initial(trace: Trace, ipa: int | None) -> str | None:
    """What an address held before the first instruction."""
    if ipa is None:
        return None
    for segment in trace.manifest.get("machine", {}).get("segments", ()):
        if segment["ipa"] <= ipa < segment["ipa"] + segment["size"]:
            image = next((one for one in trace.manifest["images"] if one["sha256"] == segment["image"]), None)
            name = "an image" if image is None else f"the {image['role']} {image['name']}"
            return f"{ipa:#x} is from the beginning, a byte of {name}"
    return f"{ipa:#x} is zero from the beginning"
