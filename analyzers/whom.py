"""For whom a thread waits: the one that has the physical CPU in whose queue it is. Spec: formats/SPEC.md 5, schedule."""

from __future__ import annotations

import polars as pl

LATENCY, THROTTLED = -1, -2  # instead of a thread: nobody has the pCPU; the waiting thread's quota is used up
_SHARES = {"thread": pl.UInt32, "bin": pl.Int64, "whom": pl.Int64, "ns": pl.Int64}


def shares(waits: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """How long each wait was a wait for whom.

    waits: thread u32, bin i64, pcpu u16?, is_throttled bool, start_ns, end_ns i64. runs: pieces in which a thread has a pCPU, at least all
    that overlap a wait; thread u32, pcpu u16?, start_ns, end_ns.
    columns: thread u32, bin i64, whom i64 (a thread, LATENCY or THROTTLED), ns i64; one row for each (thread, bin, whom) that has any.
    """
    length = pl.col("end_ns") - pl.col("start_ns")
    throttled = (
        waits.filter("is_throttled")
        .group_by("thread", "bin")
        .agg(length.sum().alias("ns"))
        .with_columns(whom=pl.lit(THROTTLED, pl.Int64))
    )
    waits = waits.filter(~pl.col("is_throttled"), pl.col("end_ns") > pl.col("start_ns")).with_columns(
        pl.col("pcpu").fill_null(0xFFFF)
    )
    runs = runs.filter(pl.col("pcpu").is_not_null(), pl.col("end_ns") > pl.col("start_ns")).sort("start_ns")
    whom = sorted(runs["thread"].unique().to_list())
    names = [f"for_{one}" for one in whom]
    before = runs.with_columns(
        (pl.when(pl.col("thread") == one).then(length).otherwise(0).cum_sum() - pl.when(pl.col("thread") == one).then(length).otherwise(0))
        .over("pcpu").alias(name) for one, name in zip(whom, names, strict=True)
    ).rename({"thread": "holder", "end_ns": "held_until_ns"})  # fmt: skip
    begins, ends = (_reached(waits, at, before, whom, names) for at in ("start_ns", "end_ns"))
    parts = pl.concat([waits.select("thread", "bin", length.alias("ns")), ends - begins], how="horizontal")
    sums = parts.group_by("thread", "bin").agg(pl.col("ns", *names).sum())
    nobody = pl.col("ns") - pl.sum_horizontal(names) if names else pl.col("ns")
    sums = sums.with_columns(nobody.alias(f"for_{LATENCY}"))
    long = sums.drop("ns").unpivot(index=["thread", "bin"], variable_name="whom", value_name="ns")
    long = long.with_columns(pl.col("whom").str.strip_prefix("for_").cast(pl.Int64))
    return pl.concat([one.select(pl.col(name).cast(kind) for name, kind in _SHARES.items()) for one in (long, throttled)]).filter(
        pl.col("ns") != 0
    )


def _reached(waits: pl.DataFrame, at: str, runs: pl.DataFrame, whom: list[int], names: list[str]) -> pl.DataFrame:
    """For each wait's pCPU, how long each thread had it up to a time of the wait."""
    points = waits.select("pcpu", pl.col(at).alias("at_ns")).with_row_index("row").sort("at_ns")
    found = points.join_asof(
        runs.drop_nulls("pcpu"), left_on="at_ns", right_on="start_ns", by="pcpu", check_sortedness=False
    ).sort("row")
    held = (pl.min_horizontal("at_ns", "held_until_ns") - pl.col("start_ns")).clip(lower_bound=0)
    return found.select(
        (pl.col(name) + pl.when(pl.col("holder") == one).then(held).otherwise(0)).fill_null(0).alias(name)
        for one, name in zip(whom, names, strict=True)
    )
