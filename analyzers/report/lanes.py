"""Who did what when: every thread's life in pieces, from `schedule` alone. Spec: formats/SPEC.md 5, 9."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from tracekit.analyzers.events import RUNS, STATE_AFTER, STATES, WAITS
from tracekit.analyzers.source import Want, frames
from tracekit.formats.reader import Trace

OCCUPANTS_MAX = 3  # threads that a wait is blamed on by name; the rest is summed

_WANT = Want(("thread", "event", "pcpu", "reason"))
_EVENTS = pl.Enum([*STATE_AFTER, "migrate", "unthrottle"])
_PIECES: dict[str, pl.DataType | type[pl.DataType]] = {
    "thread": pl.UInt32, "state": STATES, "pcpu": pl.UInt16, "start_ns": pl.Int64, "end_ns": pl.Int64, "position": pl.UInt64,
    "sequence": pl.UInt32, "event": _EVENTS, "reason": pl.String, "is_wakeup": pl.Boolean,
}  # fmt: skip


def pieces_of(trace: Trace) -> pl.DataFrame:
    """Each thread's life in pieces, neighbours' and VMM threads' too, up to the trace's end. Errors: TraceDamaged.

    columns: thread u32, state enum (`events.STATES`), pcpu u16? (where it runs, is queued or ran last), start_ns, end_ns i64, position u64,
    sequence u32, event enum, reason str? (of the row that begins the piece), is_wakeup bool (a WAIT piece of a wait that began with `wake`);
    sorted by (thread, position, sequence). A piece ends where the state or the physical CPU changes; some last 0 ns.
    """
    end_ns = int(trace.manifest["end"]["vtime_ns"])
    is_turn = pl.col("reason").fill_null("") == "turn"
    event = pl.when(is_turn).then(pl.lit("turn")).otherwise("event").cast(_EVENTS)
    own = event.cast(pl.String).replace_strict(STATE_AFTER, default=None, return_dtype=pl.String).cast(STATES)
    narrow = [
        batch.select(
            "thread", "position", "sequence", pl.col("vtime_ns").cast(pl.Int64).alias("start_ns"), "pcpu", event.alias("event"),
            own.alias("own"), pl.col("reason").cast(pl.Categorical),
        )
        for batch in frames(trace, "schedule", _WANT)
    ]  # fmt: skip
    rows = pl.concat(narrow).sort("thread", maintain_order=True)
    rows = rows.with_columns(pl.col("own", "pcpu").forward_fill().over("thread"))
    is_polled = (pl.col("event") == "preempt") & (pl.col("own").shift(1).over("thread") == "poll").fill_null(False)
    rows = rows.with_columns(state=pl.when(is_polled).then(pl.lit("woken", STATES)).otherwise("own")).drop("own")
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ("thread", "state", "pcpu")]
    rows = rows.filter(~(same[0] & same[1] & same[2]), pl.col("state").is_not_null())
    end = pl.when(pl.col("thread") == pl.col("thread").shift(-1)).then(pl.col("start_ns").shift(-1)).otherwise(end_ns)
    rows = rows.with_columns(end_ns=pl.max_horizontal("start_ns", end.fill_null(end_ns)), is_wakeup=_is_wakeup())
    return rows.select(pl.col(name).cast(kind) for name, kind in _PIECES.items())


def _is_wakeup() -> pl.Expr:
    """A WAIT piece whose wait began with `wake`: migrations on the way do not end it."""
    is_wait = pl.col("state").is_in(list(WAITS))
    begun = pl.when(pl.col("event") == "wake").then(True).when(~is_wait | (pl.col("event") == "preempt")).then(False)
    return is_wait & begun.forward_fill().over("thread").fill_null(False)


def wakeup_latencies(pieces: pl.DataFrame) -> pl.DataFrame:
    """From each wake-up of a thread to its next run; waits that ended otherwise (a pause, the end) do not count.

    columns: thread u32, start_ns i64, latency_ns i64.
    """
    is_first = pl.col("event") == "wake"
    waits = pieces.with_columns(ends_in=pl.col("state").shift(-1).over("thread")).with_columns(
        spell=(is_first & pl.col("is_wakeup")).cum_sum().over("thread")
    )
    return (
        waits.filter(pl.col("is_wakeup"))
        .group_by("thread", "spell", maintain_order=True)
        .agg(pl.col("start_ns").first(), pl.col("end_ns").last(), pl.col("ends_in").last())
        .filter(pl.col("ends_in").cast(pl.String).is_in(list(RUNS)))
        .select("thread", "start_ns", (pl.col("end_ns") - pl.col("start_ns")).alias("latency_ns"))
    )


def occupants(waits: pl.DataFrame, pieces: pl.DataFrame) -> list[list[tuple[int, int]]]:
    """For each WAIT piece (columns as in `pieces_of`): who ran on its physical CPU meanwhile: [(thread, ns)], most first; ties by thread.

    What is left of the wait nobody ran: the host's own latency.
    """
    out: list[list[tuple[int, int]]] = [[] for _ in range(waits.height)]
    for shares in _overlaps(waits.with_row_index("row"), pieces):
        by_row = (
            shares.group_by("row", "thread")
            .agg(pl.col("ns").sum())
            .sort(["row", "ns", "thread"], descending=[False, True, False])
        )
        for row, thread, ns in by_row.iter_rows():
            out[row].append((thread, ns))
    return out


def waited_for(pieces: pl.DataFrame, vcpus: int) -> pl.DataFrame:
    """Who waited for whom, in all. columns: vcpu u32, thread u32? (null: nobody ran there, the host's own latency), ns i64; most first."""
    length = pl.col("end_ns") - pl.col("start_ns")
    waits = pieces.filter(is_waiting(), pl.col("thread") < vcpus)
    whole = waits.group_by(pl.col("thread").alias("vcpu")).agg(length.sum().alias("ns"))
    asked = waits.with_columns(row="thread")
    found = [one.group_by(pl.col("row").alias("vcpu"), "thread").agg(pl.col("ns").sum()) for one in _overlaps(asked, pieces)]
    empty = pl.DataFrame(schema={"vcpu": pl.UInt32, "thread": pl.UInt32, "ns": pl.Int64})
    known = pl.concat([empty, *found]).group_by("vcpu", "thread").agg(pl.col("ns").sum())
    told = known.group_by("vcpu").agg(pl.col("ns").sum().alias("told"))
    nobody = whole.join(told, on="vcpu", how="left").select(
        "vcpu", pl.lit(None, pl.UInt32).alias("thread"), (pl.col("ns") - pl.col("told").fill_null(0)).alias("ns")
    )
    return pl.concat([known, nobody]).filter(pl.col("ns") > 0).sort(["vcpu", "ns", "thread"], descending=[False, True, False])


def _overlaps(waits: pl.DataFrame, pieces: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """What ran where somebody waited, for each physical CPU. waits: as pieces, and `row` u32. columns: row u32, thread u32, ns i64 (> 0)."""
    runs = pieces.filter(pl.col("state").is_in(list(RUNS)), pl.col("pcpu").is_not_null())
    waits = waits.filter(pl.col("pcpu").is_not_null())
    for (pcpu,), asked in waits.group_by("pcpu", maintain_order=True):
        there = runs.filter(pl.col("pcpu") == pcpu).sort("start_ns").select("thread", "start_ns", "end_ns").with_row_index("run")
        first = there["end_ns"].cum_max().search_sorted(asked["start_ns"], "right")
        last = there["start_ns"].search_sorted(asked["end_ns"], "left")
        pairs = asked.select(
            "row", pl.col("start_ns").alias("from_ns"), pl.col("end_ns").alias("to_ns"), pl.int_ranges(first, last).alias("run")
        )
        pairs = pairs.explode("run").drop_nulls("run").with_columns(pl.col("run").cast(pl.UInt32))
        ns = pl.min_horizontal("to_ns", "end_ns") - pl.max_horizontal("from_ns", "start_ns")
        yield pairs.join(there, on="run", how="left").select("row", "thread", ns.alias("ns")).filter(pl.col("ns") > 0)


def states_over(pieces: pl.DataFrame) -> pl.DataFrame:
    """How long each thread was in each state. columns: thread u32, state enum, pieces i64, ns i64, longest_ns i64; sorted."""
    length = pl.col("end_ns") - pl.col("start_ns")
    return (
        pieces.group_by("thread", "state")
        .agg(pl.len().cast(pl.Int64).alias("pieces"), length.sum().alias("ns"), length.max().alias("longest_ns"))
        .sort("thread", "state")
    )


def is_waiting() -> pl.Expr:
    """A piece in which the thread wants to run and does not."""
    return pl.col("state").is_in(list(WAITS))
