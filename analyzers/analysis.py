"""What `tracekit analyze` says of a trace: one pass for all that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.analyzers import hypercalls as calling
from tracekit.analyzers import invariants as rules
from tracekit.analyzers import runtime as running
from tracekit.analyzers import steal as report
from tracekit.analyzers.findings import Finding
from tracekit.analyzers.invariants import INVARIANTS, Invariants
from tracekit.analyzers.runtime import Runtime
from tracekit.analyzers.source import WINDOW_ROWS
from tracekit.analyzers.steal import Report, Steal
from tracekit.analyzers.timeline import Timeline
from tracekit.analyzers.walk import Walk
from tracekit.formats.reader import Trace
from tracekit.formats.units import format_ns

WHOLE = ("power_off", "reset")  # ends that a guest chose


@dataclass(frozen=True, slots=True)
class Scope:
    """Up to where a trace was analysed, and why not further: None where the guest ended its run itself."""

    position: int
    vtime_ns: int
    early: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found. None: not asked for."""

    scope: Scope
    steal: Report | None
    findings: list[Finding] | None
    over: pl.DataFrame | None = None
    runtime: Runtime | None = None
    hypercalls: pl.DataFrame | None = None

    def is_good(self, tolerance_ns: int) -> bool:
        """No finding, and no error beyond the tolerance."""
        return not self.findings and (self.steal is None or self.steal.error_ns <= tolerance_ns)

    def as_json(self, trace: str, tolerance_ns: int) -> dict[str, Any]:
        """Plain values."""
        scope = self.scope
        out: dict[str, Any] = {
            "trace": trace,
            "end": {"position": scope.position, "vtime_ns": scope.vtime_ns, "early": scope.early, "missing": list(scope.missing)},
            "is_good": self.is_good(tolerance_ns),
        }
        if self.steal is not None:
            is_within = self.steal.error_ns <= tolerance_ns
            out["steal"] = {"tolerance_ns": tolerance_ns, "is_within": is_within, **self.steal.as_json(trace)}
        if self.over is not None:
            out["over"] = self.over.to_dicts()
        if self.runtime is not None:
            out["runtime"] = self.runtime.as_json()
        if self.hypercalls is not None:
            out["hypercalls"] = self.hypercalls.to_dicts()
        if self.findings is not None:
            out["invariants"] = {"checked": list(INVARIANTS), "findings": [one.as_json(trace) for one in self.findings]}
        return out

    def lines(self, trace: str, tolerance_ns: int) -> Iterator[str]:
        """The same for people."""
        if self.scope.early is not None:
            yield f"analysed up to position {self.scope.position:,}, {format_ns(self.scope.vtime_ns)}: {self.scope.early}"
            for text in self.scope.missing:
                yield f"  missing: {text}"
            yield ""
        if self.steal is not None:
            yield from _steal_lines(self.steal, trace, tolerance_ns)
        if self.over is not None:
            yield ""
            yield "over time, in ns"
            shown = [one.name for one in self.over if one.null_count() < len(one)]
            yield from _table(self.over.select(shown).rename(lambda name: name.removesuffix("_ns").replace("vcpu", "vCPU")))
        told = self.steal is not None
        for parts in (
            running.lines(self.runtime) if self.runtime is not None else (),
            calling.lines(self.hypercalls) if self.hypercalls is not None else (),
        ):
            for part in parts:
                if isinstance(part, str):
                    yield from ("", part) if told else (part,)
                else:
                    yield from _table(part)
                told = True
        if self.findings is not None:
            if told:
                yield ""
            yield from _finding_lines(self.findings, trace)


def analyse(
    trace: Trace,
    names: Iterable[str],
    *,
    policy: str | None = None,
    over_ns: int | None = None,
    by: str | None = None,
    symbols: Callable[[int], str | None] | None = None,
    rows: int = WINDOW_ROWS,
    tell: Callable[[int, int], None] | None = None,
) -> Analysis:
    """names: of steal, invariants, runtime, hypercalls. over_ns: steps of steal's and runtime's tables over time. by: vcpu or pc, which
    hypercalls are told apart by. symbols: gives the name of a pc. rows: in memory at a time, about. tell: (position, ns) reached.

    Errors: InputError for an unknown policy or too many steps, TraceDamaged.
    """
    walk = Walk(trace, policy=policy, rows=rows)
    stolen = Steal(walk) if "steal" in names else None
    judge = Invariants(walk) if "invariants" in names else None
    steps = Timeline(walk, over_ns) if over_ns is not None and stolen is not None else None
    wants = (*(report.WANTS if stolen else ()), *(rules.WANTS if judge else ()))
    for step in walk.steps(*wants) if stolen is not None or judge is not None else ():
        if stolen is not None:
            stolen.feed(step)
        if steps is not None:
            steps.feed(step)
        if judge is not None:
            judge.feed(step)
        if tell is not None and step.tables["schedule"].height:
            tell(*(int(value) for value in step.tables["schedule"].select("position", "vtime_ns").row(-1)))
    return Analysis(
        scope_of(trace),
        stolen.close() if stolen is not None else None,
        judge.close() if judge is not None else None,
        steps.close() if steps is not None else None,
        running.runtime(trace, over_ns=over_ns, rows=rows) if "runtime" in names else None,
        calling.hypercalls(trace, by=by, symbols=symbols, rows=rows) if "hypercalls" in names else None,
    )


def scope_of(trace: Trace) -> Scope:
    """What the manifest says of the trace's end."""
    end, recovered = trace.manifest["end"], trace.manifest.get("recovered")
    reason = str(end.get("reason"))
    early = None if reason in WHOLE else f"the run ended early ({reason.replace('_', ' ')})"
    if recovered is not None:
        early = "the trace was recovered, and ends there"
    missing = tuple(str(text) for text in recovered.get("missing", ())) if isinstance(recovered, dict) else ()
    return Scope(int(end["position"]), int(end["vtime_ns"]), early, missing)


def _table(frame: pl.DataFrame) -> Iterator[str]:
    """Columns aligned to the right; nulls as a dash."""
    texts = [list(frame.columns), *([_cell(one) for one in row] for row in frame.iter_rows())]
    widths = [max(len(row[index]) for row in texts) for index in range(frame.width)]
    for row in texts:
        yield "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _steal_lines(steal: Report, trace: str, tolerance_ns: int) -> Iterator[str]:
    yield f"stolen time in ns, by policy {steal.policy}: true and in memory at the end, and as the guest last read it"
    columns = {
        "vcpu": "vCPU", "stolen_ns": "stolen", "epochs": "enabled", "true_ns": "true", "told_ns": "told", "untold_ns": "untold",
        "read_ns": "read", "accounted_ns": "accounted", "accounted_read_ns": "of read", "entries": "entries", "missing": "missing", "error_ns": "error", "reads": "reads",
        "read_error_ns": "read error",
    }  # fmt: skip
    vcpus = steal.vcpus
    if vcpus["accounted_ns"].null_count() == vcpus.height:
        columns = {name: shown for name, shown in columns.items() if not name.startswith("accounted")}
    yield from _table(vcpus.select(pl.col(name).alias(shown) for name, shown in columns.items()))
    yield ""
    yield "life in ns"
    yield from _table(
        vcpus.select(
            pl.col("vcpu").alias("vCPU"), pl.col("run_ns").alias("RUN"), pl.col("wait_ns").alias("WAIT"),
            pl.col("block_ns").alias("BLOCK"), pl.col("wall_ns").alias("wall"), pl.col("conservation_ns").alias("difference"),
        )
    )  # fmt: skip
    yield ""
    for what, one in (
        ("error at guest entries", steal.entry_errors),
        ("error of reads", steal.read_errors),
        ("age of what was read", steal.ages),
        ("not yet told, as others read it", steal.untold),
    ):
        spread = ", ".join(f"{name} {value:,}" for name, value in one.percentiles().items())
        if spread:
            yield f"{what:<32} {spread} ns{'' if one.is_exact else ' (to three digits)'}"
    if steal.worst is not None:
        worst = steal.worst
        yield f"worst: vCPU {worst.vcpu} at position {worst.position:,}: {worst.told_ns:,} ns instead of {worst.true_ns:,} ({worst.error_ns:+,})"
        yield f"  {worst.command(trace)}"
    if not vcpus["epochs"].sum():
        yield "nothing to judge: no vCPU asked for its stolen time"
        return
    is_within = steal.error_ns <= tolerance_ns
    yield f"verdict: {'within' if is_within else 'BEYOND'} the tolerance of {tolerance_ns:,} ns at guest entry"


def _finding_lines(findings: list[Finding], trace: str) -> Iterator[str]:
    for one in findings:
        who = f", vCPU {one.vcpu}" if one.vcpu is not None else ""
        more = f" (and {one.count - 1:,} more)" if one.count > 1 else ""
        yield f"{one.invariant}: {one.table} at position {one.position:,}, {format_ns(one.vtime_ns)}{who}{more}"
        yield f"  expected {one.expected}"
        yield f"  found    {one.found}"
        yield f"  {one.command(trace)}"
    yield f"invariants: {len(findings) or 'none'} broken of the {len(INVARIANTS)} that a trace can decide"
