"""What the guest was told of its stolen time against what the schedule says. Spec: formats/SPEC.md "Stolen time".

The oracle reads `schedule`, the PV_TIME_ST calls of `hypercalls` and the guest's reads; never what the hypervisor published.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

RUN, WAIT, BLOCK = "run", "wait", "block"
_STATE_AFTER = {
    "online": WAIT, "offline": BLOCK, "run": RUN, "preempt": WAIT, "block": BLOCK, "wake": WAIT, "yield": WAIT,
    "throttle": WAIT, "unthrottle": WAIT, "pause": BLOCK, "resume": WAIT,
}  # fmt: skip
STOLEN_OFFSET = 8


def scan(trace: Path, table: str) -> pl.LazyFrame:
    """A table of an unpacked trace as a LazyFrame, text columns as strings. Hashes are not checked: verify the trace first."""
    frame = pl.scan_ipc(trace / f"{table}.arrow")
    schema = frame.collect_schema()
    text = [name for name, kind in schema.items() if kind == pl.Categorical or isinstance(kind, pl.Enum)]
    return frame.with_columns(pl.col(name).cast(pl.String) for name in text)


def intervals(schedule: pl.LazyFrame, end_ns: int) -> pl.LazyFrame:
    """Each vCPU's life in pieces.

    columns: vcpu u16, state str (run, wait, block), start_ns u64, end_ns u64, position u64, sequence u32 (of the row that
    begins the piece); sorted by (vcpu, start). The pieces of a vCPU partition [0, end_ns).
    """
    changes = schedule.filter(
        pl.col("vcpu").is_not_null() & pl.col("event").is_in(list(_STATE_AFTER)) & (pl.col("reason").fill_null("") != "turn")
    ).with_columns(state=pl.col("event").replace_strict(_STATE_AFTER, return_dtype=pl.String))
    return (
        changes.select("vcpu", "state", pl.col("vtime_ns").alias("start_ns"), "position", "sequence")
        .sort("vcpu", "position", "sequence")
        .with_columns(end_ns=pl.col("start_ns").shift(-1).over("vcpu").fill_null(end_ns))
        .with_columns(end_ns=pl.max_horizontal("start_ns", "end_ns"))
        .select("vcpu", "state", "start_ns", "end_ns", "position", "sequence")
    )


def true_wait(schedule: pl.LazyFrame, end_ns: int) -> pl.LazyFrame:
    """Accumulated WAIT at each dispatch.

    columns: vcpu u16, position u64, sequence u32, wait_ns i64; one row for each switch-in, sorted by (position, sequence). From that
    row until the next the vCPU's accumulated WAIT does not change while it runs.
    """
    pieces = intervals(schedule, end_ns).with_columns(
        waited=pl.when(pl.col("state") == WAIT)
        .then(pl.col("end_ns").cast(pl.Int64) - pl.col("start_ns").cast(pl.Int64))
        .otherwise(0)
    )
    return (
        pieces.with_columns(wait_ns=pl.col("waited").cum_sum().over("vcpu"))
        .filter(pl.col("state") == RUN)
        .select("vcpu", "position", "sequence", "wait_ns")
        .sort("position", "sequence")
    )


def reads(trace: Path) -> pl.DataFrame:
    """Every guest read of its stolen time against the truth at that vCPU's last entry.

    columns: position u64, vtime_ns u64, vcpu u16, told_ns i64, true_ns i64, error_ns i64 (told - true); sorted by position.
    """
    end_ns = int(scan(trace, "states").select(pl.col("vtime_ns").max()).collect().item() or 0)
    truth = true_wait(scan(trace, "schedule"), end_ns)
    calls = (
        scan(trace, "hypercalls")
        .filter((pl.col("function") == "PV_TIME_ST") & (pl.col("ret0").cast(pl.Int64, strict=False) >= 0))
        .select("position", "sequence", "vcpu")
        .sort("position", "sequence")
    )
    key = ["position", "sequence"]
    epochs = (
        calls.join_asof(truth.drop("sequence"), on="position", by="vcpu", strategy="backward", check_sortedness=False)
        .select("position", "vcpu", pl.col("wait_ns").fill_null(0).alias("epoch_ns"))
        .sort("position")
    )
    told = (
        scan(trace, "pvtime")
        .filter(pl.col("event") == "read")
        .select(*key, "vtime_ns", "vcpu", pl.col("stolen_ns").cast(pl.Int64).alias("told_ns"))
        .sort(*key)
    )
    return (
        told.join_asof(truth.drop("sequence"), on="position", by="vcpu", strategy="backward", check_sortedness=False)
        .join_asof(epochs, on="position", by="vcpu", strategy="backward", check_sortedness=False)
        .with_columns(true_ns=pl.col("wait_ns").fill_null(0) - pl.col("epoch_ns").fill_null(0))
        .with_columns(error_ns=pl.col("told_ns") - pl.col("true_ns"))
        .select("position", "vtime_ns", "vcpu", "told_ns", "true_ns", "error_ns")
        .collect()
    )


def summary(trace: Path) -> pl.DataFrame:
    """One row for each vCPU that read its stolen time.

    columns: vcpu u16, reads u32, told_ns i64 (last), true_ns i64 (at that read), error_ns_max i64 (greatest absolute error of all).
    """
    return (
        reads(trace)
        .group_by("vcpu")
        .agg(
            pl.len().alias("reads"),
            pl.col("told_ns").last(),
            pl.col("true_ns").last(),
            pl.col("error_ns").abs().max().alias("error_ns_max"),
        )
        .sort("vcpu")
    )
