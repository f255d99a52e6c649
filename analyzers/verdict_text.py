"""A comparison for people: plain text and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracekit.analyzers.compare import Comparison
from tracekit.analyzers.verdict import ORDER, Judgement, Side
from tracekit.formats.units import format_bytes, format_ns

SHOWN_MAX = 40


def text(comparison: Comparison, *, every: bool = False) -> str:
    """The rule, the metrics that are not the same (every: all of them), the verdict, and the command that shows why."""
    return "\n".join(_lines(comparison, every)) + "\n"


def _lines(one: Comparison, every: bool) -> Iterator[str]:
    yield f"A: {_sides(one.a)}"
    yield f"B: {_sides(one.b)}"
    yield one.rule
    for note in one.notes:
        yield f"note: {note}"
    yield ""
    shown = [row for row in _by_weight(one) if every or row.verdict != "same"]
    if one.mode == "single" and not every:
        shown = []
    rows = [_cells(row) for row in shown]
    if rows:
        yield from _table([["metric", "A", "B", "change", "", "verdict"], *rows])
        yield ""
    for row in shown:
        if row.reason is not None:
            yield f"threshold of {row.key}: {row.reason}"
    yield summary(one)
    if one.diff is not None:
        yield f"see where they part: {one.diff}"


def summary(one: Comparison) -> str:
    """The verdict with its counts: `worse: 3 of 120 metrics worse, 1 better, 116 same`."""
    counts = [(verdict, len(one.of(verdict))) for verdict in ORDER]
    parts = [f"{count} {verdict}" for verdict, count in counts if count]
    worse = ", ".join(dict.fromkeys(row.name for row in one.of("worse")))
    return f"verdict: {one.verdict} ({', '.join(parts)} of {len(one.judgements)} metrics{'; worse: ' + worse if worse else ''})"


def markdown(comparison: Comparison, *, every: bool = False) -> str:
    """For a comment of a CI job: verdict first, then one table of what is not the same."""
    one = comparison
    lines = [f"### {_md(one.title)}: {one.verdict}", "", f"{_md(summary(one))}", "", f"{_md(one.rule)}", ""]
    lines += [f"- A: {_md(_sides(one.a))}", f"- B: {_md(_sides(one.b))}", *(f"- {_md(note)}" for note in one.notes), ""]
    shown = [row for row in _by_weight(one) if every or (row.verdict != "same" and one.mode != "single")]
    if shown:
        lines += ["| metric | A | B | change | | verdict |", "|---|--:|--:|--:|---|---|"]
        lines += ["| " + " | ".join(_md(cell) for cell in _cells(row)) + " |" for row in shown[: None if every else SHOWN_MAX]]
        if not every and len(shown) > SHOWN_MAX:
            lines += ["", f"{len(shown) - SHOWN_MAX} more are not shown."]
        lines += [""]
    if one.diff is not None:
        lines += [f"See where they part: `{one.diff}`", ""]
    return "\n".join(lines)


def _by_weight(one: Comparison) -> list[Judgement]:
    return sorted(one.judgements, key=lambda row: ORDER.index(row.verdict))


def _sides(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{len(paths)} runs, {paths[0]} to {paths[-1]}"


def _cells(row: Judgement) -> list[str]:
    why = row.why
    if row.p_adjusted is not None and row.effect is not None:
        why = f"p {row.p_adjusted:.3g}, effect {row.effect:+.2f}; {row.why}"
    return [row.key, side(row.a, row.unit), side(row.b, row.unit), change(row), why, row.verdict]


def side(one: Side, unit: str) -> str:
    """A side's value, with its interval where there is one."""
    shown = value(one.value, unit)
    if one.low is not None and one.high is not None and one.low != one.high:
        shown += f" [{value(one.low, unit)}, {value(one.high, unit)}]"
    return shown


def value(one: float | str | None, unit: str) -> str:
    """In the unit that suits its size."""
    if one is None:
        return "-"
    if isinstance(one, str):
        return one[:12] if unit == "sha256" else one
    if unit == "ns":
        return format_ns(int(one))
    if unit == "bytes":
        return format_bytes(int(one))
    return f"{one:,.1f}".removesuffix(".0")


def change(row: Judgement) -> str:
    """The difference with its sign, and as a share."""
    if row.change is None:
        return ""
    sign = "+" if row.change > 0 else "-" if row.change < 0 else ""
    share = "" if row.relative is None or not row.change else f" ({row.relative:+.1%})"
    return f"{sign}{value(abs(row.change), row.unit)}{share}"


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:4], strict=True))]
        yield "  ".join([*cells, row[5].ljust(widths[5]), row[4]]).rstrip()


def _md(cell: str) -> str:
    for special in "\\`*_[]<>|":
        cell = cell.replace(special, "\\" + special)
    return cell.replace("\n", " ")
