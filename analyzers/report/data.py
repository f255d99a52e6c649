"""What the page's script draws: plain JSON values, columns rather than rows. Its reader is `page/timeline.js` and `page/charts.js`."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import polars as pl

from tracekit.analyzers.events import STATES
from tracekit.analyzers.report.content import LANES_MAX, Content
from tracekit.analyzers.report.histogram import Bin
from tracekit.analyzers.report.wording import duration

EXACT_MAX = 1 << 53  # of a number in JavaScript; greater ones go as text
KINDS = {
    "snapshot": "snapshot", "restore": "restore", "reset": "reset", "kexec": "kexec", "thread_change": "new host thread",
    "clock_skew": "clock of a pCPU set", "vmm": "VMM time", "fault": "fault acts", "slot_add": "slot added", "slot_delete": "slot deleted",
    "slot_readonly": "slot read-only", "attribute_set": "structure registered", "attribute_get": "attribute read",
    "attribute_has": "attribute probed",
}  # fmt: skip


def data_of(content: Content, error_bins: list[Bin], latency_bins: list[Bin]) -> dict[str, Any]:
    """One run."""
    vcpus, pcpus = min(content.vcpus, LANES_MAX), min(content.pcpus, LANES_MAX)
    return {
        "name": content.name,
        "begin": content.window.begin_ns,
        "end": content.window.end_ns,
        "vcpus": vcpus,
        "pcpus": pcpus,
        "threads": [content.thread(number) for number in range(max(len(content.manifest["threads"]), content.vcpus))],
        "states": list(STATES.categories),
        "pieces": _pieces(content),
        "bins": {"ns": content.thinned.bin_ns, "vcpus": content.thinned.vcpus, "pcpus": content.thinned.pcpus},
        "marks": _marks(content),
        "curves": _curves(content, vcpus),
        "bars": {"error": _bars(error_bins), "latency": _bars(latency_bins)},
    }


def _safe(values: pl.Series) -> list[Any]:
    return [one if one is None or abs(one) < EXACT_MAX else str(one) for one in values]


def _pieces(content: Content) -> dict[str, Any]:
    kept = content.thinned.kept
    reasons = sorted(set(kept["reason"].drop_nulls()) | {""})
    places = {one: index for index, one in enumerate(reasons)}
    return {
        "thread": kept["thread"].to_list(),
        "state": kept["state"].to_physical().to_list(),
        "pcpu": kept["pcpu"].to_list(),
        "start": kept["start_ns"].to_list(),
        "length": (kept["end_ns"] - kept["start_ns"]).to_list(),
        "position": _safe(kept["position"]),
        "reason": [places[one or ""] for one in kept["reason"]],
        "reasons": reasons,
        "blame": content.blame,
    }


def _marks(content: Content) -> list[dict[str, Any]]:
    """Findings (those of one place together), then what was done from outside."""
    marks: list[dict[str, Any]] = []
    for (at, vcpu, position), group in groupby(
        content.findings, key=lambda one: (one.finding.vtime_ns, one.finding.vcpu, one.finding.position)
    ):
        found = [one.finding for one in group]
        lines = [f"{one.invariant}: expected {one.expected}; found {one.found}" for one in found]
        title = f"{', '.join(one.invariant for one in found)} {'is' if len(found) == 1 else 'are'} broken"
        marks.append({"kind": "finding", "at": at, "vcpu": vcpu, "title": title, "lines": lines, "position": f"{position:,}"})
    for row in content.directives.iter_rows(named=True):
        lines = [] if not row["result"] else [f"result {row['result']}"]
        if row["kind"] == "vmm" and row["value"] is not None:
            lines.append(f"for {duration(int(row['value']))}")
        marks.append(
            {"kind": "directive", "at": row["vtime_ns"], "vcpu": row["vcpu"], "title": KINDS.get(row["kind"], row["kind"]), "lines": lines,
             "position": f"{row['position']:,}"}
        )  # fmt: skip
    return marks


def _curves(content: Content, vcpus: int) -> list[dict[str, Any]]:
    """Per vCPU, at the end of each step: ns, null where there is none. What was seen and accounted stands until the guest looks again."""
    over = content.analysis.over
    assert over is not None
    signed = {name: _signed(name) for name in ("told_ns", "read_ns")}
    over = over.with_columns(**signed)
    out = []
    for vcpu in range(vcpus):
        rows = over.filter(pl.col("vcpu") == vcpu).sort("end_ns").with_columns(pl.col("read_ns", "accounted_ns").forward_fill())
        names = {"begin": "begin_ns", "at": "end_ns", "true": "true_ns", "told": "told_ns", "read": "read_ns", "accounted": "accounted_ns",
                 "untold": "untold_ns", "error": "error_ns"}  # fmt: skip
        out.append({"vcpu": vcpu, **{short: _safe(rows[name]) for short, name in names.items()}})
    return out


def _signed(name: str) -> pl.Expr:
    """A u64 that has wrapped is a negative number (docs/pvtime.md 5.9)."""
    value = pl.col(name).cast(pl.Int128)
    return pl.when(value >= 1 << 63).then(value - (1 << 64)).otherwise(value).cast(pl.Int64)


def _bars(bins: list[Bin]) -> list[dict[str, Any]]:
    return [{"label": one.label, "text": one.text, "count": one.count} for one in bins]
