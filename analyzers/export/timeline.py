"""One pass over a trace that shows a painter everything. At most a window of rows is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from tracekit.analyzers import invariants as rules
from tracekit.analyzers.export.lanes import Lanes
from tracekit.analyzers.export.lives import Lives
from tracekit.analyzers.export.marks import FINDINGS, KINDS, Counters, Names, finding_row, instants_of, kind_of, wants
from tracekit.analyzers.export.painter import Painter, scene_of
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.invariants import Invariants
from tracekit.analyzers.source import Want
from tracekit.analyzers.walk import Walk
from tracekit.formats.reader import Trace
from tracekit.formats.units import plain

ROWS = 1 << 16  # about how many are in memory at a time: drawn, a row takes more of it than analysed
_SCHEDULE = {"schedule": Want(("thread", "pcpu", "event", "reason"))}


def paint(
    trace: Trace,
    painter: Painter,
    run: str,
    tables: Sequence[str],
    window: Window,
    tell: Callable[[int, int], None] = lambda position, vtime_ns: None,
    rows: int = ROWS,
    names: Names | None = None,
) -> dict[str, int]:
    """Show the tables of a trace to a painter; gives how many slices, switches, samples, flows and instants there were.

    A window begins with what is so then, whole from its own begin on. Findings are those of the rows up to the window's end, and are
    shown where they lie in it. names: gives the symbol of a pc. Errors: TraceDamaged.
    """
    walk = Walk(trace, rows=rows)
    lanes, lives = Lanes(window), Lives(walk.places.vcpu_count, window)
    counters, judge = Counters(window), Invariants(walk)
    has_schedule, has_counters = "schedule" in tables, "pvtime" in tables
    counts = dict.fromkeys(("slices", "switches", "samples", "flows", "instants"), 0)
    painter.begin(scene_of(trace, run, walk.policy))
    reached = (0, 0)
    for step in walk.steps(_SCHEDULE, wants(tables), *rules.WANTS):
        judge.feed(step)
        schedule = step.tables["schedule"]
        if has_schedule:
            occupancies, wakings = lanes.feed(schedule)
            painter.occupancies(occupancies, wakings)
            counts["switches"] += len(occupancies)
        for ledger in step.ledgers:
            if has_schedule:
                slices = lives.feed(ledger, schedule.filter(pl.col("vcpu").is_not_null()))
                painter.slices(slices)
                counts["slices"] += len(slices)
            if has_counters:
                samples = counters.feed(ledger)
                painter.samples(samples)
                counts["samples"] += len(samples)
        for table in KINDS:
            if table in tables:
                for name, found in instants_of(table, step.tables[table], window, names):
                    painter.instants(kind_of(table, names), name, found)
                    counts["instants"] += len(found)
        reached = max([reached, *(_last(frame) for frame in step.tables.values() if frame.height)])
        tell(*reached)
        if window.is_past(reached[0]):
            break
    end = trace.manifest["end"]
    end_ns, position = int(end["vtime_ns"]), int(end["position"])
    if window.is_past(position):
        end_ns, position = reached[1], reached[0]
    if has_schedule:
        occupancies, slices = lanes.close(end_ns, position), lives.close(end_ns, position)
        painter.occupancies(occupancies, [])
        painter.slices(slices)
        counts["switches"] += len(occupancies)
        counts["slices"] += len(slices)
        counts["flows"] = lives.flows
    if has_counters:
        samples = counters.close()
        painter.samples(samples)
        counts["samples"] += len(samples)
    for finding in judge.close():
        row = pl.DataFrame({"position": [finding.position], "vtime_ns": [finding.vtime_ns]})
        if row.filter(window.holds).height:
            painter.instants(FINDINGS, f"{finding.invariant} broken", [finding_row(finding, plain(trace.path.name))])
            counts["instants"] += 1
    painter.close()
    return counts


def _last(frame: pl.DataFrame) -> tuple[int, int]:
    position, vtime_ns = frame.select("position", "vtime_ns").row(-1)
    return int(position), int(vtime_ns)
