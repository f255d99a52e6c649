"""The metrics of a trace, in one pass and bounded memory. What each means: `metric.CATALOGUE`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import polars as pl

from tracekit.analyzers import invariants as rules
from tracekit.analyzers import steal as report
from tracekit.analyzers.analysis import WHOLE
from tracekit.analyzers.findings import Finding
from tracekit.analyzers.invariants import INVARIANTS, Invariants
from tracekit.analyzers.metric import PERCENTILES, Metric, Value, metric
from tracekit.analyzers.slices import Slices
from tracekit.analyzers.source import WINDOW_ROWS, Want
from tracekit.analyzers.steal import Report, Steal
from tracekit.analyzers.walk import Walk
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

NOT_SUPPORTED = (1 << 64) - 1
WANTS = {"hypercalls": Want(("function", "function_id", "ret0"))}
# Metrics of steal.Report.vcpus, and how the whole run's value is had from the vCPUs'.
_OF_REPORT = {
    "steal.total_ns": ("stolen_ns", "sum"), "steal.true_ns": ("true_ns", "sum"), "steal.told_ns": ("told_ns", "sum"),
    "steal.read_ns": ("read_ns", "sum"),
    "steal.accounted_ns": ("accounted_ns", "sum"), "steal.error_ns": ("error_ns", "max"), "steal.read_error_ns": ("read_error_ns", "max"),
    "steal.read_age_ns": ("age_ns", "max"), "steal.entries": ("entries", "sum"), "steal.missing": ("missing", "sum"),
    "steal.reads": ("reads", "sum"), "life.run_ns": ("run_ns", "sum"), "life.wait_ns": ("wait_ns", "sum"),
    "life.block_ns": ("block_ns", "sum"),
}  # fmt: skip
_OF_COUNTS = {"sched.preemptions": "preempt", "sched.migrations": "migrate", "sched.wakeups": "wake"}


class _Calls:
    """Counts hypercalls by function."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    def feed(self, calls: pl.DataFrame) -> None:
        """One window of `hypercalls`."""
        names = calls.group_by("function", "function_id").agg(pl.len(), (pl.col("ret0") == NOT_SUPPORTED).sum().alias("refused"))
        for function, number, count, refused in names.iter_rows():
            both = self.counts.setdefault(function or f"{number:#010x}", [0, 0])
            both[0] += count
            both[1] += refused


def metrics(trace: Trace, *, policy: str | None = None, rows: int = WINDOW_ROWS) -> list[Metric]:
    """Every metric that a trace has, of the whole run before that of its parts.

    policy: whose formula is the true stolen time (default: the recorded one). rows: about how many rows are in memory at a time.
    Errors: TraceDamaged.
    """
    walk = Walk(trace, policy=policy, rows=rows)
    stolen, judge, slices, calls = Steal(walk), Invariants(walk), Slices(), _Calls()
    console = hashlib.sha256()
    for step in walk.steps(*report.WANTS, *rules.WANTS, WANTS):
        stolen.feed(step)
        judge.feed(step)
        calls.feed(step.tables["hypercalls"])
        for ledger in step.ledgers:
            slices.feed(ledger)
        for data in step.tables["console"]["data"]:
            console.update(data)
    slices.close(int(trace.manifest["end"]["vtime_ns"]))
    vcpus = range(walk.places.vcpu_count)
    return [
        *_run(trace, console.hexdigest()),
        *_steal(stolen.close()),
        *_slices(slices, vcpus),
        *_hypercalls(calls, int(trace.manifest.get("machine", {}).get("exit_cost_ns", 0))),
        *_findings(judge.close()),
        *_size(trace),
    ]


def _run(trace: Trace, console: str) -> Iterator[Metric]:
    end = trace.manifest["end"]
    reason = str(end.get("reason"))
    is_whole = reason in WHOLE and trace.manifest.get("recovered") is None
    yield metric("run.end", reason)
    yield metric("run.powered_off", int(is_whole))
    yield metric("run.instructions", int(end["position"]) if is_whole else None)
    yield metric("run.vtime_ns", int(end["vtime_ns"]) if is_whole else None)
    yield metric("console.sha256", console)


def _steal(steal: Report) -> Iterator[Metric]:
    columns = steal.vcpus.to_dict(as_series=False)
    for name, (column, whole) in _OF_REPORT.items():
        values: list[Any] = columns[column]
        known = [value for value in values if value is not None]
        total: Value = None if not known else sum(known) if whole == "sum" else max(known)
        yield metric(name, total)
        for vcpu, value in zip(columns["vcpu"], values, strict=True):
            yield metric(name, value, f"vcpu{vcpu}")


def _slices(slices: Slices, vcpus: range) -> Iterator[Metric]:
    for name in ("run", "wait", "wakeup"):
        for vcpu in (None, *vcpus):
            found = slices.spread(name, vcpu).percentiles()
            for percent in PERCENTILES:
                yield metric(f"{name}.{percent}_ns", found.get(percent), None if vcpu is None else f"vcpu{vcpu}")
    for name, event in _OF_COUNTS.items():
        counts = [slices.count(event, vcpu) for vcpu in vcpus]
        yield metric(name, sum(counts))
        for vcpu, count in zip(vcpus, counts, strict=True):
            yield metric(name, count, f"vcpu{vcpu}")


def _hypercalls(calls: _Calls, exit_cost_ns: int) -> Iterator[Metric]:
    functions = sorted(calls.counts)
    for name, value in (
        ("hypercalls.count", {function: calls.counts[function][0] for function in functions}),
        ("hypercalls.refused", {function: calls.counts[function][1] for function in functions}),
        ("hypercalls.cost_ns", {function: calls.counts[function][0] * exit_cost_ns for function in functions}),
    ):
        yield metric(name, sum(value.values()))
        for function, count in value.items():
            yield metric(name, count, function)


def _findings(findings: list[Finding]) -> Iterator[Metric]:
    counts = {finding.invariant: finding.count for finding in findings}
    yield metric("findings", sum(counts.values()))
    for invariant in INVARIANTS:
        yield metric("findings", counts.get(invariant, 0), invariant)


def _size(trace: Trace) -> Iterator[Metric]:
    for name, field in (("trace.rows", "rows"), ("trace.bytes", "bytes")):
        sizes = {table: int(trace.manifest["tables"][table][field]) for table in TABLES}
        yield metric(name, sum(sizes.values()))
        for table, size in sizes.items():
            yield metric(name, size, table)
