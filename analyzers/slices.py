"""How long each vCPU's stays in RUN and WAIT are, and how late it runs after a wake-up; in bounded memory. Spec: formats/SPEC.md 5."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.events import EVENTS, STATES
from tracekit.analyzers.source import KEY
from tracekit.analyzers.timeline import KINDS

COUNTED = ("preempt", "migrate", "wake")
_OPEN: dict[str, pl.DataType | type[pl.DataType]] = {
    "vcpu": pl.UInt16,
    **dict.fromkeys(KEY, pl.UInt64),
    "kind": pl.String,
    "event": EVENTS,
    "start_ns": pl.Int64,
}
assert set(KINDS) == set(STATES.categories)


class Slices:
    """Follows the ledger over windows. A stay that lasts until the trace's end counts with what it has reached.

    A stay is a piece of RUN (polling included) or WAIT (whatever began it) without a break; `wakeup` are the waits that a wake-up began.
    """

    def __init__(self) -> None:
        self._open = pl.DataFrame(schema=_OPEN)
        self._spread: dict[tuple[str, int | None], Distribution] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def feed(self, ledger: pl.DataFrame) -> None:
        """A frame of the ledger."""
        kind, before = (pl.col(name).cast(pl.String).replace_strict(KINDS) for name in ("state", "state_before"))
        changes = ledger.filter((kind != before) | (pl.col("vtime_ns") == 0)).select(
            "vcpu", *KEY, kind.alias("kind"), "event", pl.col("vtime_ns").alias("start_ns")
        )
        pieces = pl.concat([self._open, changes], how="vertical").sort("vcpu", *KEY, maintain_order=True)
        pieces = pieces.with_columns(end_ns=pl.col("start_ns").shift(-1).over("vcpu"))
        self._open = pieces.filter(pl.col("end_ns").is_null()).select(list(_OPEN))
        self._add(pieces.filter(pl.col("end_ns").is_not_null()))
        counted = ledger.filter(pl.col("event").is_in(list(COUNTED))).group_by("vcpu", pl.col("event").cast(pl.String)).len()
        for vcpu, event, count in counted.iter_rows():
            self._counts[event, vcpu] = self._counts.get((event, vcpu), 0) + count

    def close(self, end_ns: int) -> None:
        """After the last window: stays that last until the end."""
        self._add(self._open.with_columns(end_ns=pl.lit(end_ns, pl.Int64)))
        self._open = self._open.clear()

    def _add(self, pieces: pl.DataFrame) -> None:
        pieces = pieces.with_columns(length_ns=pl.col("end_ns") - pl.col("start_ns")).filter(pl.col("length_ns") > 0)
        is_wakeup = (pl.col("kind") == "wait") & (pl.col("event") == "wake")
        for name, where in (("run", pl.col("kind") == "run"), ("wait", pl.col("kind") == "wait"), ("wakeup", is_wakeup)):
            rows = pieces.filter(where)
            for (vcpu,), part in rows.group_by("vcpu"):
                assert isinstance(vcpu, int)
                self.spread(name, vcpu).add(part["length_ns"])
            self.spread(name, None).add(rows["length_ns"])

    def spread(self, name: str, vcpu: int | None) -> Distribution:
        """Lengths in ns of `run`, `wait` or `wakeup`; of one vCPU or, with None, of all."""
        return self._spread.setdefault((name, vcpu), Distribution())

    def count(self, event: str, vcpu: int) -> int:
        """How often one of COUNTED happened to a vCPU."""
        return self._counts.get((event, vcpu), 0)
