"""A scenario recorded, replayed and judged in one go: what the pytest fixture does, without pytest."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tracekit.analyzers.findings import Finding
from tracekit.analyzers.invariants import invariants
from tracekit.analyzers.metric import Value
from tracekit.analyzers.verdict_text import text
from tracekit.formats.reader import Trace
from tracekit.formats.units import format_ns
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.workbench import baseline as baselines
from tracekit.workbench.trace import TraceView
from tracekit.workbench.trace import open as open_trace


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run. path: its trace; complaints: what is wrong with it, each with the command that shows it; findings: all of them, also
    those that were allowed; metrics: by key, `steal.error_ns` or `wait.max_ns[vcpu1]`."""

    path: Path
    complaints: tuple[str, ...]
    findings: tuple[Finding, ...]
    metrics: Mapping[str, Value]

    @property
    def replay_command(self) -> str:
        """Replays the trace."""
        return f"tracekit replay {shlex.quote(str(self.path))}"

    @property
    def console(self) -> str:
        """What the guest printed."""
        trace = Trace.open(self.path)
        try:
            return b"".join(row[4] for row in trace.rows("console")).decode("utf-8", "replace")
        finally:
            trace.close()

    def open(self) -> TraceView:
        """The trace's tables and analyses, as `tracekit.open` gives them."""
        return open_trace(self.path)


def run_checked(
    scenario: Scenario, path: Path, *, replays: bool = True, judges: bool = True, may_break: Collection[str] = (),
    baseline: Path | None = None, thresholds: Path | None = None, is_updating: bool = False,
) -> Run:  # fmt: skip
    """Record into `path`, and say everything that is wrong.

    replays: the replay must be identical. judges: no invariant is broken but those of may_break. baseline: a file NAME.json whose metrics
    the run must have, but for what thresholds (default: thresholds.toml beside it) allow; is_updating: write it instead.
    Errors: those of recording, InputError.
    """
    recorded = record(scenario, path, force=True)
    complaints = []
    if not recorded.end.reason.is_good:
        detail = f" ({recorded.end.detail})" if recorded.end.detail else ""
        complaints.append(f"the run ended badly: {recorded.end.reason.value.replace('_', ' ')}{detail}")
    trace = Trace.open(path)
    try:
        if replays:
            complaints += _replay(trace)
        findings = invariants(trace) if judges else []
        for one in findings:
            if one.invariant not in may_break:
                where = f"{one.table} at position {one.position:,}, {format_ns(one.vtime_ns)}"
                complaints.append(
                    f"{one.invariant} is broken: {where}: expected {one.expected}, found {one.found}\n  {one.command(shlex.quote(str(path)))}"
                )
        new = baselines.of_trace(trace)
    finally:
        trace.close()
    if baseline is not None:
        complaints += _baseline(baseline, new, path, thresholds, is_updating)
    return Run(path, tuple(complaints), tuple(findings), {one.key: one.value for one in new.metrics})


def _replay(trace: Trace) -> list[str]:
    session = Replay(trace, ReplayOptions())
    try:
        result = session.run()
    finally:
        session.board.close()
    if result.divergence is None:
        return []
    found = result.divergence
    return [
        f"the replay diverged at position {found.position:,} ({format_ns(found.vtime_ns)}): {found.what}; {found.cause.value}"
    ]


def _baseline(target: Path, new: baselines.Baseline, path: Path, thresholds: Path | None, is_updating: bool) -> list[str]:
    if is_updating:
        baselines.write(target, new)
        return []
    if not target.exists():
        return [f"there is no baseline {target}; `pytest --tracekit-update` writes it"]
    done = baselines.against(target, new, baselines.rules_of(target.parent, thresholds), path)
    return [text(done)] if done.exit_code else []
