"""Who runs on which physical CPU, from `schedule` alone. Spec: formats/SPEC.md 5."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.export.painter import Occupancy, Waking
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.source import KEY

LEAVES = ("preempt", "block", "yield", "throttle", "offline", "pause", "suspend")  # a running thread stops running
WAKES = ("online", "wake", "resume", "unsuspend")  # a thread wants to run
_OPEN = {
    "thread": pl.UInt32, "pcpu": pl.UInt16, "event": pl.String, "reason": pl.String, "start_ns": pl.UInt64, "position": pl.UInt64,
    "sequence": pl.UInt32,
}  # fmt: skip
_event = pl.col("event")
_enters = (_event == "run") & (pl.col("reason").fill_null("") != "turn")


class Lanes:
    """Follows every thread over windows of `schedule`."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._open = pl.DataFrame(schema=_OPEN)

    def feed(self, schedule: pl.DataFrame) -> tuple[list[Occupancy], list[Waking]]:
        """What has ended, sorted by (pcpu, start), and who has woken, in the order of the rows. Intervals without length are left out."""
        rows = schedule.filter(_enters | _event.is_in(LEAVES)).rename({"vtime_ns": "start_ns"}).select(list(_OPEN))
        rows = pl.concat([self._open, rows]).sort("thread", maintain_order=True)
        rows = rows.with_columns(
            pl.col(name).shift(-1).over("thread").alias(f"end_{name.removeprefix('start_')}")
            for name in ("start_ns", "event", "reason", "position")
        )
        is_run = _event == "run"
        self._open = rows.filter(is_run & pl.col("end_ns").is_null()).select(list(_OPEN))
        wakes = schedule.filter(_event.is_in(WAKES) & pl.col("pcpu").is_not_null() & self._window.holds)
        wakings: list[Waking] = wakes.select("pcpu", "thread", "vtime_ns").rows()
        return self._ended(rows.filter(is_run & pl.col("end_ns").is_not_null())), wakings

    def close(self, end_ns: int, position: int) -> list[Occupancy]:
        """What still runs at the end, and since when."""
        return self._ended(
            self._open.with_columns(
                end_ns=pl.lit(end_ns, pl.UInt64), end_event=pl.lit(None, pl.String), end_reason=pl.lit(None, pl.String),
                end_position=pl.lit(position, pl.UInt64),
            )
        )  # fmt: skip

    def _ended(self, rows: pl.DataFrame) -> list[Occupancy]:
        has_length = pl.col("end_ns") > pl.col("start_ns")
        rows = rows.filter(has_length & pl.col("pcpu").is_not_null() & self._window.overlaps).sort("pcpu", *KEY)
        return rows.select("pcpu", "thread", "start_ns", "end_ns", "end_event", "end_reason", *KEY).rows()
