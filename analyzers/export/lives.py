"""Each vCPU's states over time, and from which preemption to which resumption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracekit.analyzers.events import RUNS, STATES, WAITS
from tracekit.analyzers.export.painter import Slice
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.source import KEY

HELD_MAX = 64  # slices between a preemption and a resumption; a flow over more is not told
_FLOW_BITS = 40
_OPEN = {
    "vcpu": pl.UInt16, "state": pl.String, "start_ns": pl.Int64, "event": pl.String, "reason": pl.String, "pcpu": pl.UInt16,
    "position": pl.UInt64, "sequence": pl.UInt64,
}  # fmt: skip


@dataclass(slots=True)
class _Held:
    """The last run; if a wait came after it, everything from there on until the vCPU runs again."""

    slices: list[Slice] = field(default_factory=list)
    flows: int = 0  # flows of this vCPU so far


class Lives:
    """Follows every vCPU over the frames of the ledger. All are off at first."""

    def __init__(self, vcpus: int, window: Window) -> None:
        self._window = window
        self._open = pl.DataFrame(
            {"vcpu": range(vcpus), "state": ["offline"] * vcpus, "start_ns": [0] * vcpus, "position": [0] * vcpus, "sequence": [0] * vcpus},
            schema={name: _OPEN[name] for name in ("vcpu", "state", "start_ns", "position", "sequence")},
        ).with_columns(event=pl.lit(None, pl.String), reason=pl.lit(None, pl.String), pcpu=pl.lit(None, pl.UInt16)).select(list(_OPEN))  # fmt: skip
        self._held = [_Held() for _ in range(vcpus)]
        self.flows = 0

    def feed(self, ledger: pl.DataFrame, schedule: pl.DataFrame) -> list[Slice]:
        """Slices that have ended, those of a vCPU in their order; slices without length are left out."""
        changes = ledger.filter(pl.col("state") != pl.col("state_before")).select(
            "vcpu", pl.col("state").cast(pl.String), pl.col("vtime_ns").alias("start_ns"), *KEY
        )
        rows = schedule.select(pl.col("position"), pl.col("sequence").cast(pl.UInt64), "event", "reason", "pcpu")
        changes = changes.join(rows, on=list(KEY), how="left", maintain_order="left").select(list(_OPEN))
        rows = pl.concat([self._open, changes]).sort("vcpu", maintain_order=True)
        rows = rows.with_columns(
            end_ns=pl.col("start_ns").shift(-1).over("vcpu"),
            end_position=pl.col("position").shift(-1).over("vcpu"),
        )
        self._open = rows.filter(pl.col("end_ns").is_null()).select(list(_OPEN))
        return self._told(rows.filter(pl.col("end_ns").is_not_null()))

    def close(self, end_ns: int, position: int) -> list[Slice]:
        """What lasts to the end."""
        rows = self._open.with_columns(end_ns=pl.lit(end_ns, pl.Int64), end_position=pl.lit(position, pl.UInt64))
        told = self._told(rows)
        for held in self._held:
            told += _released(held, None)
        return told

    def _told(self, rows: pl.DataFrame) -> list[Slice]:
        rows = rows.filter((pl.col("end_ns") > pl.col("start_ns")) & self._window.overlaps)
        is_run, is_wait = (pl.col("state").is_in(list(states)) for states in (RUNS, WAITS))
        columns = ("vcpu", "state", "start_ns", "end_ns", "event", "reason", "pcpu", *KEY)
        return list(self._with_flows(rows.select(is_run.alias("is_run"), is_wait.alias("is_wait"), *columns).iter_rows()))

    def _with_flows(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Slice]:
        """Holds back each run until it is known whether a wait cuts it short and another run follows."""
        for is_run, is_wait, *values in rows:
            held = self._held[values[0]]
            flow = None
            if is_run and len(held.slices) > 1:
                held.flows += 1
                self.flows += 1
                flow = (values[0] << _FLOW_BITS) + held.flows
            one: Slice = (*values, None, flow)
            if is_run:
                yield from _released(held, flow)
                held.slices.append(one)
            elif held.slices and (is_wait or len(held.slices) > 1) and len(held.slices) < HELD_MAX:
                held.slices.append(one)
            else:
                yield from _released(held, None)
                yield one


def _released(held: _Held, flow: int | None) -> list[Slice]:
    slices, held.slices = held.slices, []
    if slices and flow is not None:
        slices[0] = (*slices[0][:-2], flow, slices[0][-1])
    return slices


assert set(RUNS) | set(WAITS) < set(STATES.categories)
