"""Each vCPU's life over time: as pieces, and in steps of equal length. Spec: formats/SPEC.md 5, 9."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers import console
from tracekit.analyzers.console import StatParser
from tracekit.analyzers.events import BLOCKS, RUNS, STATES, WAITS
from tracekit.analyzers.ledger import TIMES
from tracekit.analyzers.source import KEY, WINDOW_ROWS
from tracekit.analyzers.steal import entries_of, reads_of
from tracekit.analyzers.walk import Step, Walk
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

STEPS_MAX = 10_000
WANTS = (console.WANTS,)
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


_ROW = (
    "vcpu",
    "vtime_ns",
    "state",
    "since_ns",
    *TIMES,
    "restored_ns",
    "base_ns",
    "epoch",
    "gone_epoch",
    "due_ns",
    "mark_told_ns",
)


class Timeline:
    """Makes the table of a walk over steps of equal length, step by step."""

    def __init__(self, walk: Walk, step_ns: int) -> None:
        """Errors: InputError where the steps would be too many."""
        self._walk = walk
        self._step_ns = step_ns
        end_ns = int(walk.trace.manifest["end"]["vtime_ns"])
        count = -(-end_ns // step_ns) if step_ns else 0
        if not 0 < step_ns or count > STEPS_MAX:
            least = -(-end_ns // STEPS_MAX)
            raise InputError(
                f"--over {step_ns}ns: {count} steps in {end_ns} ns; at most {STEPS_MAX}: --over {max(least, 1)}ns or more"
            )
        self._edges = [min((one + 1) * step_ns, end_ns) for one in range(count)]
        self._done = dict.fromkeys(range(walk.places.vcpu_count), 0)  # edges of each vCPU that have been seen
        self._last = walk.ledger.kept.select(_ROW)
        self._samples: list[pl.DataFrame] = []
        self._entries = pl.DataFrame(schema=_ENTRIES)
        self._reads = pl.DataFrame(schema=_READS)
        self._stat = StatParser()
        self._accounted: dict[tuple[int, int], int] = {}

    def feed(self, step: Step) -> None:
        """One window."""
        for reading in self._stat.feed(step.tables["console"]):
            self._accounted[reading.cpu, self._bin(reading.vtime_ns)] = reading.steal_ns
        for ledger in step.ledgers:
            self._sample(ledger)
            bin_ = (pl.col("vtime_ns") // self._step_ns).clip(upper_bound=max(len(self._edges) - 1, 0)).alias("bin")
            entries = (
                entries_of(ledger)
                .group_by("vcpu", bin_)
                .agg(pl.len().cast(pl.Int64).alias("entries"), pl.col("error_ns").abs().max())
            )
            self._entries = _joined(self._entries, entries, pl.col("entries").sum(), pl.col("error_ns").max())
            own = reads_of(ledger).filter(pl.col("reader") == pl.col("vcpu"))
            last = own.group_by("vcpu", bin_, maintain_order=True).agg(pl.col("told_ns").last().alias("read_ns"))
            self._reads = _joined(self._reads, last, pl.col("read_ns").last())

    def _bin(self, at_ns: int) -> int:
        return min(at_ns // self._step_ns, max(len(self._edges) - 1, 0))

    def _sample(self, ledger: pl.DataFrame) -> None:
        """The edges that this frame passes. Rows that tell of another's time (foreign reads, the board's) do not count."""
        is_own = ~pl.col("event").is_in(["board", "gone", "touch", "odd"]) & (
            pl.col("reader").fill_null(pl.col("vcpu")) == pl.col("vcpu")
        )
        settled = [pl.col(name) - _passed(name, pl.col("vtime_ns")) for name in TIMES]
        rows = pl.concat([self._last, ledger.filter(is_own).with_columns(settled).select(_ROW)]).sort("vcpu", maintain_order=True)
        self._last = rows.group_by("vcpu", maintain_order=True).last().select(_ROW)
        wanted = []
        for vcpu, reached_ns in self._last.select("vcpu", "vtime_ns").iter_rows():
            done = self._done[vcpu]
            upto = max(done, min(len(self._edges), -(-reached_ns // self._step_ns) - 1))
            wanted += [(vcpu, edge) for edge in self._edges[done:upto]]
            self._done[vcpu] = upto
        self._take(rows, wanted)

    def _take(self, rows: pl.DataFrame, wanted: list[tuple[int, int]]) -> None:
        if not wanted:
            return
        edges = pl.DataFrame(wanted, schema={"vcpu": pl.UInt16, "end_ns": pl.Int64}, orient="row").sort("end_ns")
        rows = rows.sort("vtime_ns", maintain_order=True)
        found = edges.join_asof(rows, left_on="end_ns", right_on="vtime_ns", by="vcpu", check_sortedness=False)
        found = found.with_columns(pl.col(name) + _passed(name, pl.col("end_ns")) for name in TIMES)
        found = found.with_columns(clock_ns=self._walk.ledger.formula)
        is_listening = (pl.col("epoch") > 0) & (pl.col("epoch") != pl.col("gone_epoch"))
        truth = pl.col("clock_ns") + pl.col("restored_ns") - pl.col("base_ns")
        self._samples.append(
            found.select(
                "vcpu", "end_ns", "run_ns", "wait_ns", "block_ns", "clock_ns", pl.when(is_listening).then("due_ns").alias("true_ns"),
                pl.when(is_listening).then("mark_told_ns").cast(pl.UInt64).alias("told_ns"),
                pl.when(is_listening).then(truth - pl.col("due_ns")).alias("untold_ns"),
            )
        )  # fmt: skip

    def close(self) -> pl.DataFrame:
        """The table, after the last window; for the columns see `over`."""
        self._take(self._last, [(vcpu, edge) for vcpu, done in self._done.items() for edge in self._edges[done:]])
        if not self._samples:
            return pl.DataFrame(schema=_OVER)
        frame = pl.concat(self._samples).sort("vcpu", "end_ns")
        spent = ("run_ns", "wait_ns", "block_ns", "clock_ns")
        frame = frame.with_columns(
            begin_ns=(pl.col("end_ns") - 1) // self._step_ns * self._step_ns,
            **{name: pl.col(name) - pl.col(name).shift(1, fill_value=0).over("vcpu") for name in spent},
        ).with_columns(bin=pl.col("begin_ns") // self._step_ns)
        stat = [(cpu, at, steal_ns) for (cpu, at), steal_ns in self._accounted.items()]
        accounted = pl.DataFrame(stat, schema={"vcpu": pl.UInt16, "bin": pl.Int64, "accounted_ns": pl.UInt64}, orient="row")
        for more in (self._entries, self._reads, accounted):
            frame = frame.join(more, on=["vcpu", "bin"], how="left", maintain_order="left")
        frame = frame.rename({"clock_ns": "stolen_ns"}).with_columns(pl.col("entries").fill_null(0))
        return frame.select(*(pl.col(name).cast(kind) for name, kind in _OVER.items())).sort("begin_ns", "vcpu")


_ENTRIES = {"vcpu": pl.UInt16, "bin": pl.Int64, "entries": pl.Int64, "error_ns": pl.Int64}
_READS = {"vcpu": pl.UInt16, "bin": pl.Int64, "read_ns": pl.UInt64}
_OVER: dict[str, type[pl.DataType]] = {
    "begin_ns": pl.Int64, "end_ns": pl.Int64, "vcpu": pl.UInt16, "run_ns": pl.Int64, "wait_ns": pl.Int64, "block_ns": pl.Int64,
    "stolen_ns": pl.Int64, "entries": pl.Int64, "error_ns": pl.Int64, "true_ns": pl.Int64, "told_ns": pl.UInt64, "untold_ns": pl.Int64,
    "read_ns": pl.UInt64, "accounted_ns": pl.UInt64,
}  # fmt: skip


def _joined(before: pl.DataFrame, new: pl.DataFrame, *columns: pl.Expr) -> pl.DataFrame:
    return pl.concat([before, new.select(before.columns)]).group_by("vcpu", "bin", maintain_order=True).agg(*columns)


def _passed(name: str, now: pl.Expr) -> pl.Expr:
    """What a clock has gained since the last change of state."""
    return pl.when(pl.col("state").is_in(list(TIMES[name]))).then((now - pl.col("since_ns")).clip(lower_bound=0)).otherwise(0)


def over(trace: Trace, step_ns: int, *, policy: str | None = None, rows: int = WINDOW_ROWS) -> pl.DataFrame:
    """The stolen time of each vCPU in steps of equal length; the last one ends with the trace. Errors: InputError, TraceDamaged.

    columns: begin_ns, end_ns i64, vcpu u16; in the step: run_ns, wait_ns, block_ns i64, stolen_ns i64 (what the policy counted), entries i64,
    error_ns i64? (the greatest absolute error at a guest entry); at its end, of the present epoch: true_ns i64? (what must stand in memory),
    told_ns u64? (what does), untold_ns i64? (waited since the last guest entry); read_ns u64?, accounted_ns u64?: what the guest last read of
    its own structure and last showed in /proc/stat, in the step. Sorted by (begin_ns, vcpu).
    """
    walk = Walk(trace, policy=policy, rows=rows)
    table = Timeline(walk, step_ns)
    for step in walk.steps(*WANTS):
        table.feed(step)
    return table.close()
