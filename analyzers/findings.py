"""What an analysis has found: each finding carries its proof."""

from __future__ import annotations

from dataclasses import dataclass
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

    def command(self, trace: str) -> str:
        """What shows the row."""
        return f"tracekit dump {trace} {self.table} --from {self.position} --to {self.position + 1}"

    def as_json(self, trace: str) -> dict[str, Any]:
        """Plain values."""
        return {
            "invariant": self.invariant, "table": self.table, "position": self.position, "sequence": self.sequence,
            "vtime_ns": self.vtime_ns, "vcpu": self.vcpu, "expected": self.expected, "found": self.found, "count": self.count,
            "command": self.command(trace),
        }  # fmt: skip


class Tally:
    """Counts what breaks each invariant and keeps the first row."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[tuple[int, int], Finding]] = {}
        self._counts: dict[str, int] = {}

    def add(self, invariant: str, table: str, rows: pl.DataFrame) -> None:
        """Rows that break an invariant; columns: position, sequence, vtime_ns, vcpu, expected str, found str; in any order."""
        if not rows.height:
            return
        self._counts[invariant] = self._counts.get(invariant, 0) + rows.height
        row = rows.sort(*KEY).row(0, named=True)
        key = (int(row["position"]), int(row["sequence"]))
        if invariant in self._first and self._first[invariant][0] <= key:
            return
        vcpu = None if row["vcpu"] is None else int(row["vcpu"])
        first = Finding(invariant, table, *key, int(row["vtime_ns"]), vcpu, row["expected"], row["found"], 1)
        self._first[invariant] = key, first

    def findings(self) -> list[Finding]:
        """One for each broken invariant, in the order of their first rows."""
        out = []
        for _, first in sorted(self._first.values(), key=lambda one: one[0]):
            out.append(
                Finding(
                    first.invariant, first.table, first.position, first.sequence, first.vtime_ns, first.vcpu, first.expected,
                    first.found, self._counts[first.invariant],
                )
            )  # fmt: skip
        return out


def broken(frame: pl.DataFrame, where: pl.Expr, expected: pl.Expr | str, found: pl.Expr | str) -> pl.DataFrame:
    """The rows of a frame that break something, as Tally.add wants them."""
    texts = (pl.lit(expected) if isinstance(expected, str) else expected, pl.lit(found) if isinstance(found, str) else found)
    return frame.filter(where).select(
        *KEY, "vtime_ns", "vcpu", texts[0].cast(pl.String).alias("expected"), texts[1].cast(pl.String).alias("found")
    )
