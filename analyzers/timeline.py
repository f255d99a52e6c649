"""Each vCPU's life over time: as pieces, and in steps of equal length. Spec: formats/SPEC.md 5, 9."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.events import BLOCKS, RUNS, STATES, WAITS
from tracekit.analyzers.source import KEY
from tracekit.analyzers.walk import Walk
from tracekit.formats.reader import Trace

KINDS = {**dict.fromkeys(RUNS, "run"), **dict.fromkeys(WAITS, "wait"), **dict.fromkeys(BLOCKS, "block")}


def intervals(trace: Trace) -> pl.DataFrame:
    """Each vCPU's life in pieces, up to the trace's end. Errors: TraceDamaged.

    columns: vcpu u16, kind str (run, wait, block), state str (run, poll, wait, woken: a wait that began in WFI, yield, sleep, offline, pause,
    suspend), start_ns i64, end_ns i64, position u64, sequence u64 (of the row that begins the piece); sorted by (vcpu, position, sequence).
    The pieces of a vCPU partition the time from its first row on.
    """
    end_ns = int(trace.manifest["end"]["vtime_ns"])
    frames = []
    for step in Walk(trace).steps():
        for ledger in step.ledgers:
            is_change = (pl.col("state") != pl.col("state_before")) | (pl.col("vtime_ns") == 0)
            frames.append(ledger.filter(is_change).select("vcpu", "state", pl.col("vtime_ns").alias("start_ns"), *KEY))
    pieces = pl.concat([pl.DataFrame(schema={"vcpu": pl.UInt16, "state": STATES, "start_ns": pl.Int64}), *frames], how="diagonal")
    pieces = pieces.sort("vcpu", *KEY).with_columns(end_ns=pl.col("start_ns").shift(-1).over("vcpu").fill_null(end_ns))
    state = pl.col("state").cast(pl.String)
    return pieces.select(
        "vcpu", state.replace_strict(KINDS).alias("kind"), state, "start_ns", pl.max_horizontal("start_ns", "end_ns").alias("end_ns"), *KEY
    )  # fmt: skip
