"""S3: RUN, WAIT and BLOCK partition each thread's life, and a physical CPU runs one thread at a time. Spec: formats/SPEC.md 5."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.events import STATE_AFTER
from tracekit.analyzers.findings import Tally
from tracekit.analyzers.source import Want

WANTS = {"schedule": Want(("thread", "event", "pcpu", "reason"))}

# The states that an event may follow; none: the thread's first row.
_LEGAL: dict[str, tuple[str, ...]] = {
    "online": ("none", "offline"),
    "offline": ("none", "run", "wait", "yield", "sleep", "pause"),
    "run": ("wait", "yield"),
    "poll": ("run",),
    "preempt": ("run",),
    "yield": ("run",),
    "block": ("run", "wait"),
    "wake": ("sleep",),
    "migrate": ("wait", "yield", "sleep", "offline", "pause", "suspend"),
    "throttle": ("run", "wait", "yield"),
    "unthrottle": ("wait",),
    "pause": ("none", "run", "wait", "yield", "sleep", "offline", "suspend"),
    "resume": ("pause",),
    "suspend": ("none", "run", "wait", "yield", "sleep", "offline", "pause"),
    "unsuspend": ("suspend",),
}
_AFTER = {**STATE_AFTER, "poll": "run", "wake": "wait"}
_EVENTS = pl.Enum(list(_LEGAL))
_STATES = pl.Enum(["none", "run", "wait", "yield", "sleep", "offline", "pause", "suspend"])
_PAIRS = pl.Series(
    [
        list(_LEGAL).index(event) * 16 + list(_STATES.categories).index(state)
        for event, states in _LEGAL.items()
        for state in states
    ],
    dtype=pl.UInt8,
)


class Partition:
    """Follows the schedule over windows."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._threads = pl.DataFrame(schema={"thread": pl.UInt32, "state": _STATES, "vtime_ns": pl.UInt64})
        self._pcpus = pl.DataFrame(schema={"pcpu": pl.UInt16, "running": pl.Int64, "vtime_ns": pl.UInt64})

    def feed(self, schedule: pl.DataFrame) -> None:
        """One window of `schedule`; columns: the common ones, thread, event, pcpu, reason."""
        rows = schedule.filter(pl.col("reason").fill_null("") != "turn").with_columns(
            pl.col("event").cast(_EVENTS),
            state=pl.col("event").replace_strict(_AFTER, default=None, return_dtype=pl.String).cast(_STATES),
        )
        rows = pl.concat([self._threads, rows], how="diagonal").with_columns(pl.col("state").forward_fill().over("thread"))
        rows = rows.with_columns(
            before=pl.col("state").shift(1).over("thread").fill_null("none"),
            earlier=pl.col("vtime_ns").shift(1).over("thread"),
        )
        self._threads = rows.group_by("thread", maintain_order=True).last().select("thread", "state", "vtime_ns")
        rows = rows.filter(pl.col("event").is_not_null())
        pair = pl.col("event").to_physical().cast(pl.UInt8) * 16 + pl.col("before").to_physical().cast(pl.UInt8)
        illegal = rows.filter(~pair.is_in(_PAIRS.implode()))
        self._tally.add("S3", "schedule", illegal, "no {event} of a thread whose state is {before}", "thread {thread}: {event}")
        late = rows.filter((pl.col("before") == "none") & (pl.col("vtime_ns") > 0) & pl.col("earlier").is_null())
        self._tally.add("S3", "schedule", late, "a thread's first row at 0 ns", "thread {thread}: {vtime_ns} ns")
        self._back(rows, "thread {thread}")
        self._one_each(rows)

    def _back(self, rows: pl.DataFrame, who: str) -> None:
        rows = rows.filter((pl.col("vtime_ns") < pl.col("earlier")).fill_null(False))
        self._tally.add("S3", "schedule", rows, "no time before {earlier} ns", who + ": {vtime_ns} ns")

    def _one_each(self, rows: pl.DataFrame) -> None:
        enters = (pl.col("event") == "run").cast(pl.Int64)
        leaves = ((pl.col("before") == "run") & (pl.col("state") != "run")).cast(pl.Int64)
        rows = rows.filter(pl.col("pcpu").is_not_null()).with_columns(running=enters - leaves).drop("earlier")
        rows = pl.concat([self._pcpus, rows], how="diagonal")
        rows = rows.with_columns(pl.col("running").cum_sum().over("pcpu"), earlier=pl.col("vtime_ns").shift(1).over("pcpu"))
        self._pcpus = rows.group_by("pcpu", maintain_order=True).last().select("pcpu", "running", "vtime_ns")
        rows = rows.filter(pl.col("event").is_not_null())
        where = ~pl.col("running").is_in([0, 1]) & (pl.col("event") == "run")
        self._tally.add(
            "S3", "schedule", rows.filter(where), "one thread at a time on a pCPU", "{running} threads run on pCPU {pcpu}"
        )  # fmt: skip
        self._back(rows, "pCPU {pcpu}")
