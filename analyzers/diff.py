"""Two traces compared event by event: the first difference, why, and what is the same after it."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.analyzers.align import Budget, Item
from tracekit.analyzers.cause import NO_CAUSE, NO_CAUSE_IN_PART, cause_of
from tracekit.analyzers.difference import Change, Difference, Event, differing
from tracekit.analyzers.extent import Extent, extent_of
from tracekit.analyzers.fingerprint import Shape, shape_of
from tracekit.analyzers.pairing import Paired, pair
from tracekit.analyzers.settings import guests_of, settings_of
from tracekit.analyzers.surroundings import Surroundings, reach_of
from tracekit.formats.captures import is_whole, told
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

COLUMNS = frozenset(column.name for table in TABLES.values() for column in table.columns)

_RANKS = {"only_a": 0, "only_b": 0, "changed": 1, "moved": 2}


def diff(
    a: Trace, b: Trace, *, ignore: Iterable[str] = (), tables: Iterable[str] | None = None, context: int = 5, limit: int = 10
) -> Difference:
    """Compare two traces.

    Rows are aligned by their place up to the first difference; after it by their content, for each table and vCPU (for `schedule`: thread), so
    that only what differs itself counts. Equal batches of rows are known by their hashes and not read.
    ignore: columns that are not compared. tables: those to compare (default: all). context: events before and after the first difference.
    limit: how many changes of each table are kept. Memory: what `align` bounds, 32 bytes for each row that waits.
    Errors: InputError for a name that is not there, or where nothing can be compared; TraceDamaged, also for parts that are equal in name only.
    """
    ignored = frozenset(ignore)
    chosen = _chosen(tables)
    if unknown := sorted(ignored - COLUMNS):
        raise InputError(f"no column {unknown[0]!r} to ignore; there are {', '.join(sorted(COLUMNS))}")
    settings = settings_of(a, b)
    guests = guests_of(settings)
    extent = extent_of(a, b)
    _check_comparable(a, b, chosen, extent)
    limits = {name: extent.limits(name) for name in chosen}
    budget = Budget()
    is_alike = _vcpus(a) == _vcpus(b)
    shapes = {name: shape_of(name, ignored, has_same_guest=not guests, has_same_threads=is_alike) for name in chosen}
    paired = {name: pair(a, b, shapes[name], limits[name], limit, budget) for name in chosen}
    sides = Surroundings(a, chosen, limits), Surroundings(b, chosen, limits)

    def change_of(table: str, item: Item) -> Change:
        kind, at, other = item
        mine = None if at is None else sides[0].event(table, at)
        theirs = None if other is None else sides[1].event(table, other)
        fields = differing(mine, theirs, shapes[table].whole) if mine and theirs else ()
        return Change(kind, table, mine, theirs, fields)

    def order_of(change: Change) -> tuple[int, bool, int, int]:
        """By the position where it shows; there, what an inserted row only renumbered comes last, and at one place a row that one side lacks
        before the row of the other side that it displaced."""
        position, sequence = reach_of(change, sides)
        return position, change.is_renumbered, sequence, _RANKS[change.kind]

    found = {}
    for name, one in paired.items():
        found[name] = sorted((change_of(name, item) for item in sorted(one.items, key=_row)), key=order_of)
    firsts = sorted((change for changes in found.values() for change in changes), key=order_of)
    first = _joined(firsts, shapes) if firsts else None
    before, after_a, after_b = _context(first, firsts, sides, context, "position" in ignored)
    return Difference(
        a=str(a.path),
        b=str(b.path),
        first=first,
        cause=cause_of(first, firsts, sides, settings, guests) if first else None,
        no_cause=NO_CAUSE if len(chosen) == len(TABLES) else NO_CAUSE_IN_PART,
        before=before,
        after_a=after_a,
        after_b=after_b,
        counts={name: one.counts for name, one in paired.items()},
        changes={name: tuple(one for one in changes if one.kind != "moved")[:limit] for name, changes in found.items()},
        settings=settings,
        notes=(*_notes(a, b, chosen, bool(guests)), *extent.notes),
        is_coarse=any(one.is_coarse for one in paired.values()),
        batches_read=_batches_read(paired),
    )


def _row(item: Item) -> int:
    _, at, other = item
    return at if at is not None else other or 0


def _context(
    first: Change | None, firsts: list[Change], sides: tuple[Surroundings, Surroundings], count: int, has_own_places: bool
) -> tuple[tuple[Event, ...], tuple[Event, ...], tuple[Event, ...]]:
    """The last events that both sides share, and what follows on each: from one place on, or where positions are not compared from each
    side's own row on."""
    if first is None or not count:
        return (), (), ()
    places = [first.place, first.place]
    if has_own_places and first.a is not None and first.b is not None:
        places = [first.a.place, first.b.place]
    is_other = {(change.table, change.a.index) for change in firsts if change.a is not None}
    before = [event for event in sides[0].before(places[0], 2 * count) if (event.table, event.index) not in is_other]
    after_a, after_b = (side.after(place, count) for side, place in zip(sides, places, strict=True))
    return tuple(before[-count:]), tuple(after_a), tuple(after_b)


def _joined(firsts: list[Change], shapes: dict[str, Shape]) -> Change:
    """The first difference; where both sides have a row of the same table at its place, of unlike kinds, both of them."""
    first = firsts[0]
    for other in firsts[1:]:
        if other.table == first.table and other.place == first.place and {first.kind, other.kind} == {"only_a", "only_b"}:
            mine, theirs = first.a or other.a, first.b or other.b
            assert mine is not None and theirs is not None
            return Change("changed", first.table, mine, theirs, differing(mine, theirs, shapes[first.table].whole))
    return first


def _vcpus(trace: Trace) -> int:
    return int(trace.manifest["machine"]["vcpus"])


def _batches_read(paired: dict[str, Paired]) -> int:
    return sum(one.batches_read for one in paired.values())


def _chosen(tables: Iterable[str] | None) -> tuple[str, ...]:
    if tables is None:
        return tuple(TABLES)
    wanted = set(tables)
    if unknown := sorted(wanted - set(TABLES)):
        raise InputError(f"no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    if not wanted:
        raise InputError(f"no table to compare; there are {', '.join(TABLES)}")
    return tuple(name for name in TABLES if name in wanted)


def _check_comparable(a: Trace, b: Trace, chosen: tuple[str, ...], extent: Extent) -> None:
    """Errors: InputError where one capture has nothing of what was asked for."""
    if not extent.is_thin:
        return
    for name, trace in (("A", a), ("B", b)):
        level = told(trace.manifest)
        if set(chosen) == {"blocks"} and not is_whole(trace.manifest, "blocks"):
            raise InputError(
                f"{name} ({trace.path}) holds no blocks: it was captured {level}; `tracekit replay --capture full -o` adds them"
            )


def _notes(a: Trace, b: Trace, chosen: tuple[str, ...], has_other_guest: bool) -> list[str]:
    notes = []
    counts = _vcpus(a), _vcpus(b)
    if has_other_guest:
        notes.append(
            "the guests differ: positions and addresses of code need not mean the same; events are paired without their pc"
        )
    if counts[0] != counts[1]:
        notes.append(
            f"A has {counts[0]} vCPUs, B {counts[1]}: rows of those that one side lacks are on the other side only; numbers of threads are not compared"
        )
    if len(chosen) < len(TABLES):
        notes.append(f"only {', '.join(chosen)} compared: what the other tables tell is not looked at")
    return notes
