"""What differs between two runs: where they part and why, and which metrics changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracekit.analyzers.compare import Comparison, compare
from tracekit.analyzers.diff import diff
from tracekit.analyzers.diff_text import described
from tracekit.analyzers.difference import Change, Counts, Difference, Event
from tracekit.analyzers.report.markup import Html, command, joined, table, tag
from tracekit.analyzers.report.sections import show
from tracekit.analyzers.report.wording import duration
from tracekit.analyzers.verdict_text import change, side, summary
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

METRICS_MAX = 40
EVENTS_MAX = 5


def differences_of(a: Trace, b: Trace) -> Html:
    """Both views of two traces; what cannot be compared says why. Errors: TraceDamaged."""
    return joined([_tried("events", lambda: events(diff(a, b))), _tried("metrics", lambda: metrics(compare([a], [b])))])


def _tried(what: str, make: Callable[[], Html]) -> Html:
    try:
        return make()
    except InputError as error:
        return tag("p", f"The {what} are not compared: {error}", class_="quiet")


def events(found: Difference) -> Html:
    """Event by event."""
    title = tag("h3", "Where they part")
    notes = joined(tag("p", note, class_="quiet") for note in found.notes)
    if found.first is None:
        return joined([title, tag("p", "Nowhere: event by event, both traces are the same as far as they were compared."), notes])
    cause = found.cause
    told: list[Any] = (
        [tag("p", tag("strong", "Cause: "), cause.sentence)] if cause else [tag("p", found.no_cause, class_="quiet")]
    )
    if cause:
        told += [_event(found, proof.side, proof.event, "proof") for proof in cause.proofs]
    parts = [title, tag("div", _first(found.first), *told, class_="finding"), _around(found), _counts(found)]
    rows = [[one.name, _setting(one.a), _setting(one.b)] for one in found.settings]
    parts += [table("Settings that differ", ("setting", "A", "B"), rows, empty="none"), notes]
    return joined([*parts, command(f"tracekit diff {found.a} {found.b}")])


def _first(one: Change) -> Html:
    words = {
        "moved": "the same event elsewhere",
        "changed": "another content",
        "only_a": "an event that only A has",
        "only_b": "an event that only B has",
    }
    at = one.event.row
    place = f"{one.table} at position {one.place[0]:,}, {duration(int(at['vtime_ns']))}: {words.get(one.kind, one.kind)} "
    run = 0 if one.a is not None else 1
    head = tag(
        "p",
        tag("strong", "First difference: "),
        place,
        show(run, at["vtime_ns"], at["vtime_ns"], "Show the first difference on the timeline"),
    )
    rows = [[field.name, _setting(field.a), _setting(field.b)] for field in one.fields]
    if rows:
        return joined([head, table("Fields that differ", ("field", "A", "B"), rows)])
    return joined([head, tag("p", tag("code", described(one.event)))])


def _event(found: Difference, name: str, event: Event, word: str) -> Html:
    trace = found.a if name == "a" else found.b
    return tag(
        "p",
        tag("span", name.upper(), class_="letter"),
        f"{word}: ",
        tag("code", described(event)),
        " ",
        command(event.command(trace)),
    )


def _around(found: Difference) -> Html:
    """The last shared events, then what follows on each side."""
    shared = tag("pre", "\n".join(described(one) for one in found.before[-EVENTS_MAX:]) or "nothing", tabindex="0")
    sides = (
        tag(
            "div",
            tag("h4", f"then {name}"),
            tag("pre", "\n".join(described(one) for one in rows[:EVENTS_MAX]) or "nothing", tabindex="0"),
        )
        for name, rows in (("A", found.after_a), ("B", found.after_b))
    )
    return tag(
        "details", tag("summary", "The events around it"), tag("h4", "in both"), shared, tag("div", joined(sides), class_="pair")
    )


def _counts(found: Difference) -> Html:
    rows = [
        [name, one.same, one.moved, one.changed, one.only_a, one.only_b]
        for name, one in (*found.counts.items(), ("all", found.total))
        if one != Counts()
    ]
    coarse = " (too much differs for an exact alignment: some counts are those of equal rows)" if found.is_coarse else ""
    headers = ("table", "same", "of these moved", "changed", "only in A", "only in B")
    return table(f"Events, table by table{coarse}", headers, rows, numeric=range(1, 6))


def _setting(value: Any) -> Any:
    if value is None or isinstance(value, (int, str)):
        return value
    return str(value)


def metrics(found: Comparison) -> Html:
    """Metric by metric: what is not the same, the worst first."""
    rows = [
        one for verdict in ("worse", "different", "inconclusive", "better") for one in found.judgements if one.verdict == verdict
    ]
    cells = [
        [
            one.key,
            *(shown.replace(" us", " µs") for shown in (side(one.a, one.unit), side(one.b, one.unit), change(one))),
            one.verdict,
            tag("span", one.why, class_="prose"),
        ]
        for one in rows[:METRICS_MAX]
    ]
    more = f", the first {METRICS_MAX} of {len(rows)}" if len(rows) > METRICS_MAX else ""
    shown = table(f"Metrics that differ{more}", ("metric", "A", "B", "change", "verdict", "why"), cells, numeric=(1, 2, 3))
    notes = joined(tag("p", note, class_="quiet") for note in found.notes)
    return joined([tag("h3", "What changed"), tag("p", summary(found)), tag("p", found.rule, class_="quiet"), shown, notes])
