"""S3: RUN, WAIT and BLOCK partition each thread's life, and a physical CPU runs one thread at a time. Spec: formats/SPEC.md 5."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.findings import Tally, broken
from tracekit.analyzers.ledger import STATE_AFTER

# The states that an event may follow; none: the thread's first row.
_LEGAL: dict[str, tuple[str, ...]] = {
    "online": ("none", "offline"),
    "offline": ("none", "run", "wait"),
    "run": ("wait", "yield"),
    "preempt": ("run",),
    "yield": ("run",),
    "block": ("run", "wait"),
    "wake": ("sleep",),
    "migrate": ("wait", "yield", "sleep", "offline", "pause", "suspend"),
    "throttle": ("run", "wait", "yield"),
    "unthrottle": ("wait",),
    "pause": ("none", "run", "wait", "yield", "sleep", "offline"),
    "resume": ("pause",),
    "suspend": ("none", "run", "wait", "yield", "sleep", "offline", "pause"),
    "unsuspend": ("suspend",),
}


class Partition:
    """Follows the schedule over windows."""

    def __init__(self) -> None:
        self._threads = pl.DataFrame(schema={"thread": pl.UInt32, "state": pl.String, "vtime_ns": pl.UInt64})
        self._pcpus = pl.DataFrame(schema={"pcpu": pl.UInt16, "running": pl.Int64, "vtime_ns": pl.UInt64})

    def feed(self, schedule: pl.DataFrame, tally: Tally) -> None:
        """One window of `schedule`; columns: the common ones, thread, event, pcpu, reason."""
        rows = schedule.filter(pl.col("reason").fill_null("") != "turn").with_columns(
            state=pl.col("event").replace_strict(STATE_AFTER, default=None, return_dtype=pl.String)
        )
        rows = pl.concat([self._threads, rows], how="diagonal").with_columns(pl.col("state").forward_fill().over("thread"))
        rows = rows.with_columns(
            before=pl.col("state").shift(1).over("thread").fill_null("none"),
            earlier=pl.col("vtime_ns").shift(1).over("thread"),
        )
        self._threads = rows.group_by("thread", maintain_order=True).last().select("thread", "state", "vtime_ns")
        rows = rows.filter(pl.col("event").is_not_null())
        legal = pl.concat_str("event", pl.lit(" "), "before").is_in([f"{a} {b}" for a, states in _LEGAL.items() for b in states])
        tally.add(
            "S3", "schedule",
            broken(
                rows, ~legal, pl.format("no {} of a thread whose state is {}", "event", "before"),
                pl.format("thread {}: {}", "thread", "event"),
            ),
        )  # fmt: skip
        self._back(rows, pl.format("thread {}", "thread"), tally)
        self._one_each(rows, tally)

    @staticmethod
    def _back(rows: pl.DataFrame, who: pl.Expr, tally: Tally) -> None:
        where = (pl.col("vtime_ns") < pl.col("earlier")).fill_null(False)
        found = pl.format("{}: {} ns", who, "vtime_ns")
        tally.add("S3", "schedule", broken(rows, where, pl.format("no time before {} ns", "earlier"), found))

    def _one_each(self, rows: pl.DataFrame, tally: Tally) -> None:
        enters = (pl.col("event") == "run").cast(pl.Int64)
        leaves = ((pl.col("before") == "run") & (pl.col("state") != "run")).cast(pl.Int64)
        rows = rows.filter(pl.col("pcpu").is_not_null()).with_columns(running=enters - leaves).drop("earlier")
        rows = pl.concat([self._pcpus, rows], how="diagonal")
        rows = rows.with_columns(pl.col("running").cum_sum().over("pcpu"), earlier=pl.col("vtime_ns").shift(1).over("pcpu"))
        self._pcpus = rows.group_by("pcpu", maintain_order=True).last().select("pcpu", "running", "vtime_ns")
        rows = rows.filter(pl.col("event").is_not_null())
        where = ~pl.col("running").is_in([0, 1]) & pl.col("event").is_in(["run", "preempt", "block", "offline", "yield", "pause"])
        found = pl.format("{} threads run on pCPU {}", "running", "pcpu")
        tally.add("S3", "schedule", broken(rows, where, "one thread at a time on a pCPU", found))
        self._back(rows, pl.format("pCPU {}", "pcpu"), tally)
