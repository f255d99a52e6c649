"""A difference of two traces in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from tracekit.analyzers.cause import shown, who
from tracekit.analyzers.difference import Change, Counts, Difference, Event
from tracekit.formats.units import format_ns

_COMMON = ("position", "sequence", "vtime_ns", "vcpu")
_DIGESTS = ("registers", "devices", "memory")
_QUIET = (*(f"x{n}" for n in range(8)), *(f"ret{n}" for n in range(1, 4)), "changed", "immediate", "revision", "attributes")
_WHAT = {
    "moved": "the same event stands at another place",
    "changed": "an event differs",
    "only_a": "an event that only A has",
    "only_b": "an event that only B has",
}
SETTINGS_MAX = 12


def lines(difference: Difference, limit: int) -> Iterator[str]:
    """The whole outcome. limit: changes that are listed of each table."""
    yield f"A: {difference.a}"
    yield f"B: {difference.b}"
    for note in difference.notes:
        yield f"note: {note}"
    for one in difference.settings[:SETTINGS_MAX]:
        yield f"manifest: {one.name} {_value(one.a)} in A, {_value(one.b)} in B"
    if len(difference.settings) > SETTINGS_MAX:
        yield f"and {len(difference.settings) - SETTINGS_MAX} more values of the manifests (--json lists them)"
    if difference.first is None:
        yield f"verdict: same ({difference.total.same:,} events)"
        return
    yield ""
    yield from _first(difference, difference.first)
    yield ""
    yield from _counts(difference)
    yield from _changes(difference, limit)
    yield "verdict: different"


def _value(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first(difference: Difference, first: Change) -> Iterator[str]:
    event = first.event
    yield f"first difference: {first.table} at position {first.place[0]:,}, {format_ns(event.row['vtime_ns'])}, {who(event)}: {_WHAT[first.kind]}"
    for field in first.fields:
        yield f"  {field.name}: {cell(field.name, field.a)} in A, {cell(field.name, field.b)} in B"
    for name, trace, one in (("A", difference.a, first.a), ("B", difference.b, first.b)):
        if one is not None:
            yield f"  {name}: {described(one)}"
            yield f"     {one.command(trace)}"
        else:
            yield f"  {name}: nothing"
    if difference.cause is None:
        yield f"cause: {difference.no_cause}"
    else:
        yield f"cause: {difference.cause.sentence}"
        for proof in difference.cause.proofs:
            if proof.event not in (first.a, first.b):
                yield f"  {proof.side.upper()}: {described(proof.event)}"
    yield ""
    if difference.before:
        yield "before it, on both sides"
        yield from (f"  {described(one)}" for one in difference.before)
    for name, events in (("A", difference.after_a), ("B", difference.after_b)):
        if events:
            yield f"from there on, in {name}"
            yield from (f"  {described(one)}" for one in events)


def described(event: Event) -> str:
    """A row in one line, without what is null, and without registers that are 0."""
    row = event.row
    told = {name: value for name, value in row.items() if name not in _COMMON and value is not None}
    more = " ".join(f"{name}={cell(name, value)}" for name, value in told.items() if value or name not in _QUIET)
    vcpu = "" if row["vcpu"] is None else f" vcpu={row['vcpu']}"
    return f"{row['position']}.{row['sequence']} {row['vtime_ns']} ns{vcpu} {event.table}: {more}"


def cell(name: str, value: object) -> str:
    """A value without spaces: bytes as text, digests by their beginning."""
    if name == "data" and isinstance(value, str):
        text = repr(bytes.fromhex(value))[1:]
        return text if len(text) <= 100 else f"{text[:97]}..."
    if name in _DIGESTS and isinstance(value, str):
        return value[:16]
    return shown(name, value).replace(",", "").replace(" ns", "")


def _counts(difference: Difference) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("table", "same", "of these moved", "changed", "only in A", "only in B")]
    for name, counts in (*difference.counts.items(), ("all", difference.total)):
        if counts != Counts():
            numbers = (counts.same, counts.moved, counts.changed, counts.only_a, counts.only_b)
            rows.append((name, *(f"{number:,}" for number in numbers)))
    widths = [max(len(row[index]) for row in rows) for index in range(6)]
    for row in rows:
        yield row[0].ljust(widths[0]) + "".join(text.rjust(width + 2) for text, width in zip(row[1:], widths[1:], strict=True))
    if difference.is_coarse:
        yield "too many places differ for an exact alignment: from some row on, equal rows are counted without regard to their order"


def _changes(difference: Difference, limit: int) -> Iterator[str]:
    for name, changes in difference.changes.items():
        listed = changes[:limit]
        counts = difference.counts[name]
        whole = counts.changed + counts.only_a + counts.only_b
        if not listed:
            continue
        yield ""
        yield f"{name}: {'the first ' if whole > len(listed) else ''}{len(listed):,} of {whole:,} that differ, moved ones aside"
        for one in listed:
            if one.a is not None and one.b is not None:
                yield f"  changed    {described(one.a)}"
                told = (f"{field.name} {cell(field.name, field.a)} -> {cell(field.name, field.b)}" for field in one.fields)
                yield f"             {', '.join(told)}"
            else:
                yield f"  {'only in A' if one.a else 'only in B'}  {described(one.event)}"
    yield ""
