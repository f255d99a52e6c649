"""Every invariant that a trace can decide. Spec: docs/pvtime.md 5.10.

S1 to S5, H3, L2, U1: `values`, S3: `partition`, M1 to M3, M5, M6, L5: `memory`, H1, H2: `calls`, G1, G2: `accounting`; L1: `values` and
`accounting`. P1 (a flag that a vCPU is preempted) and M4 (an update in several steps) have nothing to judge in Arm's structure, L3 and L4
concern the guest's kernel, G3 its scheduler's clock.
"""

from __future__ import annotations

import polars as pl

from tracekit.analyzers import calls, console, memory, partition
from tracekit.analyzers.accounting import Accounting
from tracekit.analyzers.calls import Calls
from tracekit.analyzers.findings import Finding, Tally
from tracekit.analyzers.memory import Memory
from tracekit.analyzers.partition import Partition
from tracekit.analyzers.source import WINDOW_ROWS, Want
from tracekit.analyzers.values import Values
from tracekit.analyzers.walk import Step, Walk
from tracekit.formats.reader import Trace

INVARIANTS = ("S1", "S2", "S3", "S4", "S5", "M1", "M2", "M3", "M5", "M6", "H1", "H2", "H3", "L1", "L2", "L5", "G1", "G2", "U1")
NOT_DECIDED = {
    "M4": "Arm's structure has no update in several steps",
    "P1": "Arm's structure has no flag that a vCPU is preempted",
}
WANTS = (
    calls.WANTS, console.WANTS, memory.WANTS, partition.WANTS,
    {"directives": Want(("kind", "size"), pl.col("kind").is_in(["reset", "kexec", "restore"]))},
)  # fmt: skip


class Invariants:
    """Judges a walk step by step."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        manifest, places = walk.trace.manifest, walk.places
        self._tally = Tally()
        self._partition = Partition(self._tally)
        self._memory = Memory(manifest.get("machine", {}), places, self._tally)
        self._calls = Calls(manifest.get("scenario", {}), places, self._tally)
        self._values = Values(self._tally, places.shared(), self._memory.misplaced)
        self._accounting = Accounting(self._tally)

    def feed(self, step: Step) -> None:
        """One window."""
        self._partition.feed(step.tables["schedule"])
        self._memory.feed(step.tables)
        self._calls.feed(step.tables["hypercalls"])
        for ledger in step.ledgers:
            self._values.feed(ledger)
        self._accounting.feed(step.tables, pl.concat(step.ledgers))

    def close(self) -> list[Finding]:
        """The findings, after the last window."""
        self._values.close(self._walk.ledger.kept)
        return self._tally.findings()


def invariants(trace: Trace, *, policy: str | None = None, rows: int = WINDOW_ROWS) -> list[Finding]:
    """The invariants that a trace breaks, in the order of their first rows. Errors: TraceDamaged."""
    walk = Walk(trace, policy=policy, rows=rows)
    judge = Invariants(walk)
    for step in walk.steps(*WANTS):
        judge.feed(step)
    return judge.close()
