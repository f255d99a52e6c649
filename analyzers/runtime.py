"""Where each vCPU's time went: run, wait and for whom, block; wake-up latency, migrations, and instructions between two switches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.analyzers.pieces import WANTS, Pieces
from tracekit.analyzers.placement import places_of
from tracekit.analyzers.source import WINDOW_ROWS, windows
from tracekit.analyzers.spreads import Spreads
from tracekit.analyzers.whom import LATENCY, THROTTLED, shares
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

STEPS_MAX = 10_000
KINDS = ("run", "wait", "block")
_KEY = {"vcpu": pl.UInt16, "bin": pl.Int64}
_NOT_THREADS = {LATENCY: "wake-up latency", THROTTLED: "throttled"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where time went, per vCPU and, if asked for, over steps of equal length. Times in virtual ns.

    vcpus: columns: vcpu u16; with steps: start_ns, end_ns i64; run_ns, wait_ns, block_ns i64: they add up to the step (or the whole run);
    latency_ns: the part of wait_ns in which nobody had the vCPU's pCPU (it was woken and not picked yet), throttled_ns: the part in which its
    quota was used up, others_ns: the rest, in which another thread had the pCPU (`waits` says which); migrations i64; wakes i64: times that it
    was woken and ran, wake_total_ns, wake_p50_ns, wake_p90_ns, wake_p99_ns, wake_max_ns i64?: from the `wake` to the `run`; slices i64: times
    that it was switched out (at its end in this step), slice_total_instructions, slice_p50_instructions, _p90_, _p99_, _max_ i64?: what it
    retired between the switch-in and the switch-out.
    waits: for whom; columns: vcpu u16; with steps: start_ns, end_ns i64; whom i64: a thread, -1: nobody (wake-up latency), -2: throttled; name
    str: of the thread; wait_ns i64. Sorted by vCPU, step, and the greatest first.
    is_exact: False where percentiles were cut to three digits.
    """

    vcpus: pl.DataFrame
    waits: pl.DataFrame
    is_exact: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"vcpus": self.vcpus.to_dicts(), "waits": self.waits.to_dicts(), "is_exact": self.is_exact}


class Account:
    """Makes a Runtime, window by window."""

    def __init__(self, trace: Trace, *, over_ns: int | None = None, between: tuple[int, int] | None = None) -> None:
        """over_ns: length of a step. between: only [start, end) of the run, ns. Errors: InputError where the steps would be too many."""
        self._manifest = trace.manifest
        end_ns = int(trace.manifest["end"]["vtime_ns"])
        self._range = (0, end_ns) if between is None else (max(0, between[0]), min(end_ns, between[1]))
        if over_ns is not None and (over_ns <= 0 or -(-end_ns // over_ns) > STEPS_MAX):
            least = max(1, -(-end_ns // STEPS_MAX))
            raise InputError(f"steps of {over_ns} ns in {end_ns} ns: at most {STEPS_MAX} of them: {least}ns or more")
        self._over_ns = over_ns
        self._vcpus = list(range(places_of(trace).vcpu_count))
        self._pieces = Pieces(len(self._vcpus))
        self._times = pl.DataFrame(schema={**_KEY, "kind": pl.String, "ns": pl.Int64})
        self._waits = pl.DataFrame(schema={**_KEY, "whom": pl.Int64, "ns": pl.Int64})
        self._moves = pl.DataFrame(schema={**_KEY, "migrations": pl.Int64})
        self._wakes, self._slices = Spreads(_KEY), Spreads(_KEY)

    def feed(self, schedule: pl.DataFrame) -> None:
        """One window of `schedule`."""
        self._add(*self._pieces.feed(schedule))

    def close(self) -> Runtime:
        """After the last window."""
        end = self._manifest["end"]
        self._add(*self._pieces.close(int(end["vtime_ns"]), int(end["position"])))
        times = self._times.pivot("kind", index=["vcpu", "bin"], values="ns").with_columns(
            pl.lit(0, pl.Int64).alias(kind) for kind in KINDS if kind not in self._times["kind"]
        )
        special = self._waits.with_columns(
            kind=pl.col("whom").replace_strict(
                {LATENCY: "latency_ns", THROTTLED: "throttled_ns"}, default="others_ns", return_dtype=pl.String
            )
        )
        parts = [
            special.filter(kind=name).group_by("vcpu", "bin").agg(pl.col("ns").sum().alias(name))
            for name in ("others_ns", "latency_ns", "throttled_ns")
        ]
        frame = times.select("vcpu", "bin", *(pl.col(kind).fill_null(0).alias(f"{kind}_ns") for kind in KINDS))
        for part in (
            *parts,
            self._moves,
            self._wakes.percentiles("wake", "_ns"),
            self._slices.percentiles("slice", "_instructions"),
        ):
            frame = frame.join(part, on=["vcpu", "bin"], how="left")
        counts = (
            "others_ns",
            "latency_ns",
            "throttled_ns",
            "migrations",
            "wakes",
            "wake_total_ns",
            "slices",
            "slice_total_instructions",
        )
        frame = frame.with_columns(pl.col(counts).fill_null(0)).sort("vcpu", "bin")
        names = {**{one["thread"]: str(one.get("name", one["thread"])) for one in self._manifest["threads"]}, **_NOT_THREADS}
        waits = self._waits.with_columns(name=pl.col("whom").replace_strict(names, default=None, return_dtype=pl.String))
        waits = waits.sort("vcpu", "bin", "ns", "whom", descending=[False, False, True, False])
        return Runtime(
            self._labelled(frame), self._labelled(waits.select("vcpu", "bin", "whom", "name", pl.col("ns").alias("wait_ns"))),
            self._wakes.is_exact and self._slices.is_exact,
        )  # fmt: skip

    def _labelled(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self._over_ns is None:
            return frame.drop("bin")
        start = pl.col("bin") * self._over_ns
        begin, end = self._range
        steps = (start.clip(lower_bound=begin).alias("start_ns"), (start + self._over_ns).clip(upper_bound=end).alias("end_ns"))
        return frame.select("vcpu", *steps, pl.exclude("vcpu", "bin"))

    def _add(self, pieces: pl.DataFrame, changes: pl.DataFrame) -> None:
        begin, end = self._range
        cut = pieces.with_columns(pl.col("start_ns").clip(lower_bound=begin), pl.col("end_ns").clip(upper_bound=end))
        cut = cut.filter(pl.col("end_ns") > pl.col("start_ns"))
        own = self._binned(cut.filter(pl.col("thread").is_in(self._vcpus)))
        length = (pl.col("end_ns") - pl.col("start_ns")).alias("ns")
        self._times = _summed(self._times, own.select(_vcpu(), "bin", "kind", length), "ns")
        for_whom = shares(own.filter(kind="wait"), cut.filter(kind="run"))
        self._waits = _summed(self._waits, for_whom.select(_vcpu(), "bin", "whom", "ns"), "ns")
        at = pl.col("vtime_ns")
        inside = changes.filter(
            pl.col("thread").is_in(self._vcpus), at >= begin, (at < end) | (at == self._manifest["end"]["vtime_ns"])
        )
        inside = inside.with_columns(_vcpu(), bin=self._bin(pl.min_horizontal(at, pl.lit(max(end - 1, 0)))))
        moves = inside.filter(event="migrate").group_by("vcpu", "bin").agg(pl.len().cast(pl.Int64).alias("migrations"))
        self._moves = _summed(self._moves, moves, "migrations")
        self._wakes.add(inside, "latency_ns")
        self._slices.add(inside, "instructions")

    def _bin(self, at: pl.Expr) -> pl.Expr:
        return at // self._over_ns if self._over_ns is not None else pl.lit(0, pl.Int64)

    def _binned(self, pieces: pl.DataFrame) -> pl.DataFrame:
        """Each piece in parts that lie in one step."""
        if self._over_ns is None:
            return pieces.with_columns(bin=pl.lit(0, pl.Int64))
        step = self._over_ns
        pieces = pieces.with_columns(bin=pl.int_ranges(pl.col("start_ns") // step, (pl.col("end_ns") - 1) // step + 1)).explode(
            "bin"
        )
        first = pl.col("bin") * step
        return pieces.with_columns(
            start_ns=pl.max_horizontal("start_ns", first), end_ns=pl.min_horizontal("end_ns", first + step)
        )


def _vcpu() -> pl.Expr:
    return pl.col("thread").cast(pl.UInt16).alias("vcpu")


def _summed(before: pl.DataFrame, new: pl.DataFrame, value: str) -> pl.DataFrame:
    keys = [name for name in before.columns if name != value]
    return pl.concat([before, new.select(before.columns)]).group_by(keys, maintain_order=True).agg(pl.col(value).sum())


def runtime(
    trace: Trace, *, over_ns: int | None = None, between: tuple[int, int] | None = None, rows: int = WINDOW_ROWS
) -> Runtime:
    """Where each vCPU's time went; see Runtime. over_ns: over steps of this length; between: only [start, end) of the run, ns.

    rows: about how many rows are in memory at a time. Errors: InputError for too many steps, TraceDamaged.
    """
    account = Account(trace, over_ns=over_ns, between=between)
    for window in windows(trace, WANTS, rows):
        account.feed(window["schedule"])
    return account.close()


def lines(found: Runtime) -> Iterator[pl.DataFrame | str]:
    """For people: headings and tables."""
    times = ("run_ns", "wait_ns", "others_ns", "latency_ns", "throttled_ns", "block_ns")
    steps = [name for name in ("vcpu", "start_ns", "end_ns") if name in found.vcpus.columns]
    yield "time in ns: run; wait, of it for others, for nobody (wake-up latency) and throttled; block"
    yield found.vcpus.select(*steps, *(pl.col(name).alias(name.removesuffix("_ns")) for name in times))
    digits = "" if found.is_exact else " (percentiles to three digits)"
    yield f"wake-up latency in ns, migrations, and instructions from switch-in to switch-out{digits}"
    rest = [name for name in found.vcpus.columns if name not in (*steps, *times)]
    yield found.vcpus.select(
        *steps, *(pl.col(name).alias(name.removesuffix("_ns").removesuffix("_instructions")) for name in rest)
    )
    yield "waited for, in ns"
    yield found.waits.select(*steps, "name", pl.col("wait_ns").alias("wait"))
