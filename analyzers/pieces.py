"""Every thread's life in pieces, window by window, and the instructions of each vCPU between them. Spec: formats/SPEC.md 4, 5.

A physical CPU's rows are in the order of its own time. So at the end of a window everything is known on it up to its last row there; what
reaches beyond is kept for the next window.
"""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.events import BLOCKS, RUNS, STATE_AFTER
from tracekit.analyzers.source import Want

WANTS = {"schedule": Want(("thread", "event", "pcpu", "reason"))}
NOBODY = -1
# Rows after which a thread is what it was.
_KEEPING = ("migrate", "unthrottle")
_KIND = {
    event: "run" if state in RUNS else "block" if state in BLOCKS else "wait"
    for event, state in STATE_AFTER.items()
    if event != "turn"
}
_THREAD = {
    "thread": pl.UInt32, "kind": pl.String, "pcpu": pl.UInt16, "is_throttled": pl.Boolean, "vtime_ns": pl.Int64, "woken_ns": pl.Int64,
    "entered": pl.Int64,
}  # fmt: skip
PIECE = {
    "thread": pl.UInt32,
    "kind": pl.String,
    "pcpu": pl.UInt16,
    "is_throttled": pl.Boolean,
    "start_ns": pl.Int64,
    "end_ns": pl.Int64,
}


class Pieces:
    """Follows `schedule` over windows."""

    def __init__(self, vcpu_count: int) -> None:
        self._vcpus = range(vcpu_count)
        self._threads = pl.DataFrame(schema=_THREAD)  # each thread's present piece, from where it was not handed out yet
        self._late = pl.DataFrame(schema=PIECE)  # ended, but beyond what is known of their pCPU
        self._reached: dict[int, int] = {}
        self._holder: int = NOBODY  # whose instructions retire: the vCPU of the last `run` row
        self._position = 0
        self._retired = dict.fromkeys(self._vcpus, 0)

    def feed(self, schedule: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Pieces, and changes, of one window of `schedule`.

        pieces: thread u32, kind str (run, wait, block), pcpu u16?, is_throttled bool, start_ns, end_ns i64. A life's pieces follow each other
        without gaps; within a window, those of a pCPU cover it up to one time. A long piece may come in parts.
        changes: thread u32, event str, vtime_ns i64, latency_ns i64? (of a `run`: since the `wake` that made it runnable), instructions i64?
        (of a row with which a vCPU stops running: what it retired since its `run`).
        """
        rows = self._counted(schedule.with_columns(pl.col("vtime_ns").cast(pl.Int64)))
        rows = rows.filter(pl.col("reason").fill_null("") != "turn")
        for pcpu, at_ns in rows.group_by("pcpu").agg(pl.col("vtime_ns").max()).drop_nulls("pcpu").iter_rows():
            self._reached[pcpu] = max(at_ns, self._reached.get(pcpu, 0))
        frame = self._followed(rows)
        self._threads = frame.group_by("thread", maintain_order=True).last().select(list(_THREAD))
        pieces = frame.with_columns(start_ns="vtime_ns", end_ns=pl.col("vtime_ns").shift(-1).over("thread"))
        return self._known(pieces.select(list(PIECE))), _changes(frame)

    def close(self, end_ns: int, end_position: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rest, up to the end of the trace; columns as in `feed`. Slices that the end cuts off are none."""
        if self._holder != NOBODY and end_position > self._position:
            self._retired[self._holder] += end_position - self._position
        last = self._threads.with_columns(start_ns="vtime_ns", end_ns=pl.max_horizontal("vtime_ns", pl.lit(end_ns)))
        pieces = pl.concat([self._late, last.select(list(PIECE))])
        return pieces, _CHANGES

    @property
    def retired(self) -> dict[int, int]:
        """Instructions of each vCPU so far."""
        return dict(self._retired)

    def _counted(self, schedule: pl.DataFrame) -> pl.DataFrame:
        """retired i64: instructions of the row's vCPU before the row."""
        is_vcpu = pl.col("thread").is_in(list(self._vcpus))
        frame = schedule.with_columns(holder=pl.when((pl.col("event") == "run") & is_vcpu).then(pl.col("thread").cast(pl.Int64)))
        frame = frame.with_columns(
            holder=pl.col("holder").forward_fill().shift(1, fill_value=None).fill_null(self._holder),
            passed=pl.col("position").cast(pl.Int64) - pl.col("position").cast(pl.Int64).shift(1, fill_value=self._position),
        )
        frame = frame.with_columns(
            (pl.when(pl.col("holder") == vcpu).then("passed").otherwise(0).cum_sum() + self._retired[vcpu]).alias(f"own_{vcpu}")
            for vcpu in self._vcpus
        )
        own = pl.coalesce(pl.when(pl.col("thread") == vcpu).then(f"own_{vcpu}") for vcpu in self._vcpus)
        frame = frame.with_columns(retired=own)
        if frame.height:
            self._position = int(frame["position"][-1])
            self._retired = {vcpu: int(frame[f"own_{vcpu}"][-1]) for vcpu in self._vcpus}
            runs = frame.filter((pl.col("event") == "run") & is_vcpu)
            self._holder = int(runs["thread"][-1]) if runs.height else self._holder
        return frame

    def _followed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows behind each thread's present piece, with the state that each brings; sorted by thread, then in the trace's order."""
        event = pl.col("event")
        rows = rows.select(
            "thread", "event", "vtime_ns", "pcpu", "retired",
            kind=event.replace_strict(_KIND, default=None, return_dtype=pl.String),
            is_throttled=pl.when(event == "throttle").then(True).when(event.is_in(["unthrottle", "run"])).then(False),
            woken_ns=pl.when(event == "wake").then("vtime_ns").when(event.is_in([*_KEEPING, "throttle"])).then(None).otherwise(NOBODY),
            entered=pl.when(event == "run").then("retired"),
        )  # fmt: skip
        frame = pl.concat([self._threads, rows], how="diagonal").sort("thread", maintain_order=True)
        filled = ("kind", "pcpu", "woken_ns", "entered")
        return frame.with_columns(
            *(pl.col(name).forward_fill().over("thread") for name in filled),
            pl.col("is_throttled").forward_fill().over("thread").fill_null(False),
            kind_before=pl.col("kind").forward_fill().over("thread").shift(1).over("thread"),
            woken_before_ns=pl.col("woken_ns").forward_fill().over("thread").shift(1).over("thread"),
        )

    def _known(self, pieces: pl.DataFrame) -> pl.DataFrame:
        """The parts up to what is known of each pCPU; the rest is kept."""
        limit = pl.col("pcpu").replace_strict(self._reached, default=None, return_dtype=pl.Int64)
        pieces = pl.concat([self._late, pieces]).with_columns(limit_ns=pl.coalesce(limit, "end_ns", "start_ns"))
        end = pl.col("end_ns").fill_null(pl.col("limit_ns"))
        cut = pieces.with_columns(
            end_ns=pl.min_horizontal(end, "limit_ns"), is_open=pl.col("end_ns").is_null(), whole_ns="end_ns"
        )
        begin = pl.max_horizontal("start_ns", "limit_ns")
        late = cut.filter(~pl.col("is_open") & (pl.col("whole_ns") > pl.col("limit_ns"))).with_columns(
            start_ns=begin, end_ns="whole_ns"
        )
        self._late = late.select(list(PIECE))
        opened = cut.filter(pl.col("is_open")).select("thread", began=begin)
        self._threads = self._threads.join(opened, on="thread", how="left", maintain_order="left").with_columns(
            vtime_ns=pl.coalesce("began", "vtime_ns")
        ).select(list(_THREAD))  # fmt: skip
        return cut.filter(pl.col("end_ns") > pl.col("start_ns")).select(list(PIECE))


_CHANGES = pl.DataFrame(
    schema={"thread": pl.UInt32, "event": pl.String, "vtime_ns": pl.Int64, "latency_ns": pl.Int64, "instructions": pl.Int64}
)


def _changes(frame: pl.DataFrame) -> pl.DataFrame:
    is_woken = (pl.col("event") == "run") & (pl.col("woken_before_ns") >= 0)
    leaves = (pl.col("kind_before") == "run") & (pl.col("kind") != "run")
    return frame.filter(pl.col("event").is_not_null()).select(
        "thread", "event", "vtime_ns", pl.when(is_woken).then(pl.col("vtime_ns") - pl.col("woken_before_ns")).alias("latency_ns"),
        pl.when(leaves).then(pl.col("retired") - pl.col("entered")).alias("instructions"),
    )  # fmt: skip
