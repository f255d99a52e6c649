"""What an analysis has found: each finding carries its proof."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from tracekit.analyzers.source import KEY


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that is broken. table, position, sequence: of the first row that breaks it; vtime in ns.

    count: rows that break it, the first included. expected, found: of the first row.
    """

    invariant: str
    table: str
    position: int
    sequence: int
    vtime_ns: int
    vcpu: int | None
    expected: str
    found: str
    count: int

    @property
    def place(self) -> tuple[int, int]:
        """Its row's place in the trace's order."""
        return self.position, self.sequence

    def command(self, trace: str) -> str:
        """What shows the row."""
        return f"tracekit dump {trace} {self.table} --from {self.position} --to {self.position + 1}"

    def as_json(self, trace: str) -> dict[str, Any]:
        """Plain values, and the command."""
        return {**asdict(self), "command": self.command(trace)}


class Tally:
    """Counts what breaks each invariant and keeps the first row.

    Rows may be added under a `cause`: when it turns out that something else explains all of them, they can be dropped.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Finding] = {}

    def add(self, invariant: str, table: str, rows: pl.DataFrame, expected: str, found: str, cause: str = "") -> None:
        """Rows that break an invariant, in any order, with position, sequence, vtime_ns and vcpu. The texts may name columns: `{told_ns} ns`."""
        if not rows.height:
            return
        row = rows.sort(*KEY).row(0, named=True)
        vcpu = None if row["vcpu"] is None else int(row["vcpu"])
        place = int(row["position"]), int(row["sequence"]), int(row["vtime_ns"])
        self.note(Finding(invariant, table, *place, vcpu, expected.format(**row), found.format(**row), rows.height), cause)

    def note(self, finding: Finding, cause: str = "") -> None:
        """One finding, with its count."""
        before = self._first.get((finding.invariant, cause))
        if before is not None:
            first = min(before, finding, key=lambda one: one.place)
            finding = replace(first, count=before.count + finding.count)
        self._first[finding.invariant, cause] = finding

    def drop(self, cause: str) -> None:
        """Forget what was added under a cause."""
        self._first = {key: finding for key, finding in self._first.items() if key[1] != cause}

    def findings(self) -> list[Finding]:
        """One for each broken invariant, in the order of their first rows."""
        whole = Tally()
        for finding in self._first.values():
            whole.note(finding)
        return sorted(whole._first.values(), key=lambda one: (one.place, one.invariant))


_FRAME = {
    "invariant": pl.String, "table": pl.String, "position": pl.UInt64, "sequence": pl.UInt32, "vtime_ns": pl.UInt64, "vcpu": pl.UInt16,
    "expected": pl.String, "found": pl.String, "count": pl.Int64, "command": pl.String,
}  # fmt: skip


def findings_frame(findings: Iterable[Finding], trace: str) -> pl.DataFrame:
    """One row for each finding.

    columns: those of `Finding` (position u64, sequence u32, vtime_ns u64, vcpu u16?, count i64; else str), command str: what shows its first row.
    """
    return pl.DataFrame([one.as_json(trace) for one in findings], schema=_FRAME)
