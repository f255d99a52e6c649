"""What the guest was told of its stolen time against what was true. Spec: formats/SPEC.md 9.

The truth comes from the ledger; published values are only compared with it. What the policy implies (a wait that nobody has told yet, because
the vCPU has not been entered since) is kept apart from what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.analyzers import console
from tracekit.analyzers.console import Reading, StatParser
from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.ledger import LEAVES
from tracekit.analyzers.source import KEY, WINDOW_ROWS
from tracekit.analyzers.walk import Step, Walk
from tracekit.formats.reader import Trace

WANTS = (console.WANTS,)
STATES_OF = {"run_ns": ("run", "poll"), "wait_ns": ("wait", "woken", "yield")}

_event = pl.col("event")
_is_listening = (pl.col("epoch") > 0) & (pl.col("epoch") != pl.col("gone_epoch"))


def _signed(value: pl.Expr) -> pl.Expr:
    """A u64 (as i128) as two's complement: a total with its top bit set is an underflow (docs/pvtime.md 5.9)."""
    return pl.when(value >= 1 << 63).then(value - (1 << 64)).otherwise(value).cast(pl.Int64)


def entries_of(ledger: pl.DataFrame) -> pl.DataFrame:
    """Guest entries of enabled vCPUs in a frame of the ledger: every update, and every entry that had none, at the row where it shows.

    columns: position u64, sequence u64, vtime_ns i64, vcpu u16, event (enable, publish, store; else the row that ended the run), table str,
    told_ns u64 (what stands in memory), true_ns i64, error_ns i64 (told - true), since_ns i64 (since the update before), is_missing bool.
    """
    is_update = _event.is_in(["enable", "publish", "store"])
    is_missing = LEAVES & pl.col("guest_ran") & (pl.col("updates") == 0)
    told = pl.when(is_update).then("told_ns").otherwise("last_told_ns")
    return ledger.filter(_is_listening & (is_update | is_missing)).select(
        *KEY, "vtime_ns", "vcpu", _event,
        pl.when(_event == "store").then(pl.lit("memory_writes")).when(is_update).then(pl.lit("pvtime")).otherwise(pl.lit("schedule"))
        .alias("table"),
        told.cast(pl.UInt64).alias("told_ns"), pl.col("truth_ns").alias("true_ns"), (_signed(told) - pl.col("truth_ns")).alias("error_ns"),
        (pl.col("vtime_ns") - pl.col("last_ns")).alias("since_ns"), (~is_update).alias("is_missing"),
    )  # fmt: skip


def reads_of(ledger: pl.DataFrame) -> pl.DataFrame:
    """The guest's reads of enabled vCPUs' structures in a frame of the ledger.

    columns: position u64, sequence u64, vtime_ns i64, vcpu u16 (whose structure), reader u16, told_ns u64, true_ns i64 (what must have stood
    there: the truth at that vCPU's last guest entry), error_ns i64 (told - true), age_ns i64 (since the last update), untold_ns i64 (what the
    vCPU has waited since and nobody could tell; another vCPU reads, or the reader was not entered since).
    """
    is_own = pl.col("reader") == pl.col("vcpu")
    due = pl.when(is_own).then("truth_ns").otherwise("due_ns")
    return ledger.filter(_is_listening & (_event == "read")).select(
        *KEY, "vtime_ns", "vcpu", "reader", pl.col("told_ns").cast(pl.UInt64), due.alias("true_ns"),
        (_signed(pl.col("told_ns")) - due).alias("error_ns"), (pl.col("vtime_ns") - pl.col("last_ns")).clip(lower_bound=0).alias("age_ns"),
        (pl.col("truth_ns") - due).clip(lower_bound=0).alias("untold_ns"),
    )  # fmt: skip


def publications(trace: Trace, *, policy: str | None = None) -> pl.DataFrame:
    """Every guest entry of an enabled vCPU against the truth, in the trace's order; for the columns see `entries_of`. Errors: TraceDamaged."""
    return _collected(trace, policy, entries_of)


def reads(trace: Trace, *, policy: str | None = None) -> pl.DataFrame:
    """Every guest read of a stolen time against the truth, in the trace's order; for the columns see `reads_of`. Errors: TraceDamaged."""
    return _collected(trace, policy, reads_of)


def _collected(trace: Trace, policy: str | None, select: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    walk = Walk(trace, policy=policy)
    return pl.concat(select(ledger) for step in walk.steps() for ledger in step.ledgers).sort(*KEY)


def per_vcpu(trace: Trace, *, policy: str | None = None) -> pl.DataFrame:
    """One row for each vCPU; for the columns see `Report.vcpus`. Errors: TraceDamaged."""
    return steal(trace, policy=policy).vcpus


@dataclass(frozen=True, slots=True)
class Worst:
    """The greatest absolute error: of which row, and how much (signed, ns)."""

    table: str
    position: int
    sequence: int
    vtime_ns: int
    vcpu: int
    told_ns: int
    true_ns: int
    error_ns: int

    def command(self, trace: str) -> str:
        """What shows the row."""
        return f"tracekit dump {trace} {self.table} --from {self.position} --to {self.position + 1}"


@dataclass(frozen=True, slots=True)
class Report:
    """The stolen time of a trace. Times in ns.

    vcpus: one row each; columns: vcpu u16; wall_ns, run_ns, wait_ns, block_ns i64: its life up to the end, conservation_ns: run + wait + block
    - wall; stolen_ns: what the policy counted in all; epochs: PV_TIME_ST; and of the present epoch at the end: true_ns, told_ns u64 (in memory),
    untold_ns (waited since the last guest entry), read_ns u64? (the guest's last own read), read_true_ns? (what it must have been);
    accounted_ns u64?, accounted_at_ns? (the last steal column of /proc/stat, and when it was printed), accounted_read_ns u64?
    (what that vCPU had read last before: Linux charges at ticks and shows whole USER_HZ, so up to 10 ms less is implied); entries i64, missing i64 (entries without the update that was due), reads i64, and
    error_ns, read_error_ns: the greatest absolute errors; age_ns: the greatest age of what an own read saw.
    """

    policy: str
    vcpus: pl.DataFrame
    worst: Worst | None
    entry_errors: Distribution
    read_errors: Distribution
    ages: Distribution
    untold: Distribution

    @property
    def error_ns(self) -> int:
        """The greatest absolute error at a guest entry or in a vCPU's read of its own structure."""
        return abs(self.worst.error_ns) if self.worst is not None else 0

    def as_json(self, trace: str) -> dict[str, Any]:
        """Plain values."""
        worst = self.worst
        shown = None
        if worst is not None:
            names = ("table", "position", "sequence", "vtime_ns", "vcpu", "told_ns", "true_ns", "error_ns")
            shown = {**{name: getattr(worst, name) for name in names}, "command": worst.command(trace)}
        spread = {
            "entry_error_ns": self.entry_errors, "read_error_ns": self.read_errors, "read_age_ns": self.ages,
            "foreign_read_untold_ns": self.untold,
        }  # fmt: skip
        return {
            "policy": self.policy, "error_ns": self.error_ns, "worst": shown,
            "vcpus": self.vcpus.to_dicts(),
            "distribution": {
                name: {"count": one.count, "is_exact": one.is_exact, **one.percentiles()} for name, one in spread.items()
            },
        }  # fmt: skip


_ENTRIES = {"entries": pl.Int64, "missing": pl.Int64, "error_ns": pl.Int64}
_READS = {"reads": pl.Int64, "read_error_ns": pl.Int64, "age_ns": pl.Int64}
_ACCOUNTED = {"accounted_ns": pl.UInt64, "accounted_at_ns": pl.Int64, "accounted_read_ns": pl.UInt64}
_LAST_READ = {"read_ns": pl.UInt64, "read_true_ns": pl.Int64}


class Steal:
    """Makes the report of a walk, step by step."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._entry_errors, self._read_errors = Distribution(), Distribution()
        self._ages, self._untold = Distribution(), Distribution()
        self._worst: Worst | None = None
        self._counts: list[dict[int, dict[str, int]]] = [{}, {}]
        self._read: dict[int, tuple[int, int]] = {}
        self._stat = StatParser()
        self._accounted: dict[int, tuple[Reading, int | None]] = {}

    def feed(self, step: Step) -> None:
        """One window."""
        shown = {one.cpu: one for one in self._stat.feed(step.tables["console"])}
        before = {cpu: self._read[cpu][0] for cpu in shown if cpu in self._read}
        for ledger in step.ledgers:
            entries, all_reads = entries_of(ledger), reads_of(ledger)
            is_own = pl.col("reader") == pl.col("vcpu")
            own, foreign = all_reads.filter(is_own), all_reads.filter(~is_own)
            self._entry_errors.add(entries["error_ns"])
            self._read_errors.add(all_reads["error_ns"])
            self._ages.add(own["age_ns"])
            self._untold.add(foreign["untold_ns"])
            self._note_worst(entries)
            self._note_worst(own.with_columns(table=pl.lit("pvtime")))
            self._add(0, entries, pl.len().alias("entries"), pl.col("is_missing").sum().alias("missing"), _most("error_ns"))
            worst_read = _most("error_ns").alias("read_error_ns")
            self._add(1, own, pl.len().alias("reads"), worst_read, _most("age_ns"))
            for cpu, one in shown.items():
                earlier = own.filter(pl.col("vcpu") == cpu, pl.col("position") < one.position)["told_ns"]
                before.update({cpu: earlier[-1]} if len(earlier) else {})
            last = own.group_by("vcpu", maintain_order=True).last().select("vcpu", "told_ns", "true_ns")
            self._read.update({vcpu: (told_ns, true_ns) for vcpu, told_ns, true_ns in last.iter_rows()})
        self._accounted.update({cpu: (one, before.get(cpu)) for cpu, one in shown.items()})

    def _add(self, which: int, rows: pl.DataFrame, *columns: pl.Expr) -> None:
        for row in rows.group_by("vcpu").agg(*columns).iter_rows(named=True):
            before = self._counts[which].setdefault(row.pop("vcpu"), dict.fromkeys(row, 0))
            for name, value in row.items():
                before[name] = max(before[name], value or 0) if name.endswith("_ns") else before[name] + value

    def _note_worst(self, rows: pl.DataFrame) -> None:
        most = rows["error_ns"].abs().max()
        assert most is None or isinstance(most, int)
        if not most or (self._worst is not None and most <= abs(self._worst.error_ns)):
            return
        row = rows.filter(pl.col("error_ns").abs() == most).sort(*KEY).row(0, named=True)
        self._worst = Worst(**{name: row[name] for name in Worst.__dataclass_fields__})

    def close(self) -> Report:
        """The report, after the last window."""
        end_ns = int(self._walk.trace.manifest["end"]["vtime_ns"])
        vcpus = self._walk.ledger.at(end_ns).select(
            "vcpu", pl.lit(end_ns, pl.Int64).alias("wall_ns"), "run_ns", "wait_ns", "block_ns",
            (pl.col("run_ns") + pl.col("wait_ns") + pl.col("block_ns") - end_ns).alias("conservation_ns"),
            pl.col("clock_ns").alias("stolen_ns"), pl.col("epoch").alias("epochs"),
            pl.when(_is_listening).then("due_ns").alias("true_ns"),
            pl.when(_is_listening).then("mark_told_ns").cast(pl.UInt64).alias("told_ns"),
            pl.when(_is_listening).then(pl.col("truth_ns") - pl.col("due_ns")).alias("untold_ns"),
        )  # fmt: skip
        read = [(vcpu, *values) for vcpu, values in self._read.items()]
        stat = [(cpu, one.steal_ns, one.vtime_ns, read_ns) for cpu, (one, read_ns) in self._accounted.items()]
        vcpus = vcpus.join(_frame(read, _LAST_READ), on="vcpu", how="left").join(_frame(stat, _ACCOUNTED), on="vcpu", how="left")
        for schema, counts in zip((_ENTRIES, _READS), self._counts, strict=True):
            rows = [(vcpu, *(values[name] for name in schema)) for vcpu, values in counts.items()]
            vcpus = vcpus.join(_frame(rows, schema), on="vcpu", how="left").with_columns(pl.col(*schema).fill_null(0))
        return Report(
            self._walk.policy, vcpus.sort("vcpu"), self._worst, self._entry_errors, self._read_errors, self._ages, self._untold
        )


def _most(name: str) -> pl.Expr:
    return pl.col(name).abs().max()


def _frame(rows: list[Any], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"vcpu": pl.UInt16, **schema}, orient="row")


def steal(trace: Trace, *, policy: str | None = None, rows: int = WINDOW_ROWS) -> Report:
    """The report of a trace, in windows of about `rows` rows. Errors: TraceDamaged."""
    walk = Walk(trace, policy=policy, rows=rows)
    report = Steal(walk)
    for step in walk.steps(*WANTS):
        report.feed(step)
    return report.close()
