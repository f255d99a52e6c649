"""What the guest asked of its hypervisor: how often, what came back, what it cost. Spec: formats/SPEC.md 5, hypercalls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from tracekit.analyzers.placement import places_of
from tracekit.analyzers.source import WINDOW_ROWS, Want, windows
from tracekit.analyzers.spreads import Spreads
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

BY = ("vcpu", "pc")
KEPT_MAX = 1 << 16  # different results in all; beyond it, rare ones are counted together
RESULTS_MAX = 8  # different results that are listed for each row
HEX_MIN = 1 << 12  # results from here on are written in hexadecimal
ERRORS = 16  # -1 to -16 as results are errors, in SMCCC and in PSCI
WANTS = {
    "hypercalls": Want(("pc", "function_id", "function", "ret0")),
    "schedule": Want(("thread", "event", "reason"), pl.col("event") == "run"),
}
_KEYS = {"function": pl.String, "function_id": pl.UInt32, "vcpu": pl.UInt16, "pc": pl.UInt64}
_STRETCH = {"thread": pl.UInt32, "position": pl.Int64, "end": pl.Int64, "vtime_ns": pl.Int64}


class Calls:
    """Follows the calls over windows."""

    def __init__(self, trace: Trace, by: str | None) -> None:
        """Errors: InputError for another `by`."""
        if by is not None and by not in BY:
            raise InputError(f"by {by!r}: must be one of {', '.join(BY)}")
        self._keys = {name: kind for name, kind in _KEYS.items() if name not in BY or name == by}
        machine = trace.manifest.get("machine", {})
        numerator, denominator = machine.get("ns_per_instruction", (1, 1))
        # A vCPU that goes on at once has spent the call's own instruction and what the exit costs.
        self._at_once_ns = int(machine.get("exit_cost_ns", 0)) + int(numerator) // int(denominator)
        self._vcpus = places_of(trace).vcpu_count
        self._end = int(trace.manifest["end"]["position"])
        self._last: tuple[int, int, int] | None = None  # the stretch that was open: thread, position, vtime
        self._open = pl.DataFrame(schema={**_KEYS, "position": pl.Int64, "vtime_ns": pl.Int64})
        self._counts = pl.DataFrame(schema={**self._keys, "result": pl.Int64, "count": pl.Int64})
        self._ns, self._instructions = Spreads(self._keys), Spreads(self._keys)

    def feed(self, window: dict[str, pl.DataFrame]) -> None:
        """One window of both tables."""
        calls = window["hypercalls"].filter(pl.col("vcpu").is_not_null())
        calls = calls.with_columns(pl.col("position", "vtime_ns").cast(pl.Int64), result=_result())
        counts = calls.group_by(*self._keys, "result").agg(pl.len().cast(pl.Int64).alias("count"))
        self._counts = (
            pl.concat([self._counts, counts.select(self._counts.columns)])
            .group_by(*self._keys, "result", maintain_order=True)
            .agg(pl.col("count").sum())
        )
        if self._counts.height > KEPT_MAX:
            self._counts = self._without_rare()
        self._open = pl.concat([self._open, calls.select(self._open.columns)])
        self._resolve(self._stretches(window["schedule"]))

    def close(self) -> pl.DataFrame:
        """The frame, after the last window; see `hypercalls`."""
        if self._last is not None:
            thread, position, vtime_ns = self._last
            row = (thread, position, self._end, vtime_ns)
            self._resolve(pl.DataFrame([row], schema=_STRETCH, orient="row"))
        is_error = pl.col("result").is_between(-ERRORS, -1)
        ranked = self._counts.sort(
            *self._keys, "count", "result", descending=[False] * len(self._keys) + [True, False], nulls_last=True
        )
        name = pl.col("result").map_elements(_number, return_dtype=pl.String).fill_null("others")
        listed = pl.concat_str(name, pl.lit(" x"), pl.col("count").cast(pl.String)).head(RESULTS_MAX)
        counted = ranked.group_by(list(self._keys), maintain_order=True).agg(
            pl.col("count").sum().alias("calls"),
            pl.col("count").filter(is_error).sum().alias("failures"),
            listed.str.join(", ").first().alias("results"),
            pl.len().cast(pl.Int64).alias("different"),
        )
        more = pl.format("{}, {} more", "results", pl.col("different") - RESULTS_MAX)
        counted = counted.with_columns(results=pl.when(pl.col("different") > RESULTS_MAX).then(more).otherwise("results"))
        frame = counted.drop("different")
        for spread in (
            self._ns.percentiles("cost", "_ns"),
            self._instructions.percentiles("cost", "_instructions").drop("costs"),
        ):
            frame = frame.join(spread, on=list(self._keys), how="left", nulls_equal=True, maintain_order="left")
        frame = frame.rename({"costs": "returns"})
        frame = frame.with_columns(pl.col("returns", "cost_total_ns", "cost_total_instructions").fill_null(0))
        return frame.sort("calls", *self._keys, descending=[True] + [False] * len(self._keys), nulls_last=True)

    def _without_rare(self) -> pl.DataFrame:
        """Results that are no errors and not among the most frequent become null: others."""
        rank = pl.col("count").rank("ordinal", descending=True).over(list(self._keys))
        rare = (rank > RESULTS_MAX) & ~pl.col("result").is_between(-ERRORS, -1)
        counts = self._counts.with_columns(result=pl.when(~rare).then("result"))
        return counts.group_by(*self._keys, "result", maintain_order=True).agg(pl.col("count").sum())

    def _stretches(self, schedule: pl.DataFrame) -> pl.DataFrame:
        """From each `run` row of a vCPU to the next: whose instructions retire between two positions. The last one stays open."""
        runs = schedule.filter(pl.col("thread") < self._vcpus).select("thread", pl.col("position", "vtime_ns").cast(pl.Int64))
        if self._last is not None:
            before = pl.DataFrame(
                [self._last], schema={"thread": pl.UInt32, "position": pl.Int64, "vtime_ns": pl.Int64}, orient="row"
            )
            runs = pl.concat([before, runs])
        if not runs.height:
            return pl.DataFrame(schema=_STRETCH)
        thread, position, vtime_ns = runs.row(-1)
        self._last = thread, position, vtime_ns
        return runs.with_columns(end=pl.col("position").shift(-1)).drop_nulls("end").select(list(_STRETCH))

    def _resolve(self, stretches: pl.DataFrame) -> None:
        """Find where the vCPU of each open call goes on: in its first stretch that reaches beyond the call's own instruction."""
        useful = (
            stretches.filter(pl.col("end") > pl.col("position")).rename({"position": "from", "vtime_ns": "from_ns"}).sort("end")
        )
        useful = useful.with_columns(vcpu=pl.col("thread").cast(pl.UInt16))
        calls = self._open.with_columns(after=pl.col("position") + 2).sort(
            "after"
        )  # its end is at least one instruction behind the call's
        found = calls.join_asof(useful, left_on="after", right_on="end", by="vcpu", strategy="forward", check_sortedness=False)
        goes_on = pl.col("from") > pl.col("position")
        found = found.with_columns(
            ns=pl.when(goes_on).then(pl.col("from_ns") - pl.col("vtime_ns")).otherwise(self._at_once_ns),
            instructions=pl.max_horizontal("from", pl.col("position") + 1) - pl.col("position"),
        )
        self._open = found.filter(pl.col("end").is_null()).select(self._open.columns)
        done = found.filter(pl.col("end").is_not_null())
        self._ns.add(done, "ns")
        self._instructions.add(done, "instructions")


def _result() -> pl.Expr:
    """ret0 as a signed number of the call's width (bit 30 of the id: 64 bits)."""
    is_64 = pl.col("function_id") // (1 << 30) % 2 == 1
    word = (pl.col("ret0") % (1 << 32)).cast(pl.Int64)
    narrow = pl.when(word >= 1 << 31).then(word - (1 << 32)).otherwise(word)
    return pl.when(is_64).then(pl.col("ret0").reinterpret(signed=True)).otherwise(narrow)


def hypercalls(
    trace: Trace, *, by: str | None = None, symbols: Callable[[int], str | None] | None = None, rows: int = WINDOW_ROWS
) -> pl.DataFrame:
    """One row for each function, or for each function and `by` (vcpu or pc); the most frequent first.

    columns: function str? (null: unknown), function_id u32, vcpu u16 or pc u64 if asked for, symbol str? behind a pc where `symbols` names it; calls i64; failures i64: results from -1 to -16,
    the errors of SMCCC and PSCI; results str: `result xcount`, the most frequent first (signed, of the call's width, great ones in hexadecimal; at most
    RESULTS_MAX; of very many different ones the rare ones are counted together as `others`);
    returns i64: calls after which the vCPU went on (CPU_OFF and SYSTEM_OFF do not return); what they cost, from the call to the vCPU's next
    instruction: cost_total_ns, cost_p50_ns, cost_p90_ns, cost_p99_ns, cost_max_ns i64?: virtual time, that in which it slept or waited
    included (if it goes on at once: its instruction and the scenario's exit cost); cost_total_instructions, cost_p50_instructions, _p90_, _p99_, _max_ i64?:
    instructions that the whole board retired meanwhile, the call's own included: 1 where no other vCPU ran.
    rows: about how many rows are in memory at a time. Errors: InputError for another `by`, TraceDamaged.
    """
    calls = Calls(trace, by)
    for window in windows(trace, WANTS, rows):
        calls.feed(window)
    found = calls.close()
    if symbols is None or "pc" not in found.columns:
        return found
    names = pl.Series("symbol", [symbols(pc) for pc in found["pc"]], dtype=pl.String)
    return found.insert_column(found.columns.index("pc") + 1, names)


def lines(found: pl.DataFrame) -> Iterator[pl.DataFrame | str]:
    """For people: headings and tables."""
    keys = [name for name in _KEYS if name in found.columns]
    shown = [_shown(name) for name in keys]
    if "symbol" in found.columns:
        shown.append(pl.col("symbol"))
    yield "calls, and what came back"
    yield found.select(*shown, "calls", "failures", "returns", "results")
    for unit, title in (("_ns", "in ns"), ("_instructions", "in instructions of the whole board")):
        yield f"cost, from the call to the vCPU's next instruction, {title}"
        cost = [name for name in found.columns if name.startswith("cost_") and name.endswith(unit)]
        yield found.select(*shown, *(pl.col(name).alias(name.removeprefix("cost_").removesuffix(unit)) for name in cost))


def _number(value: int) -> str:
    return str(value) if abs(value) < HEX_MIN else f"{value:#x}"


def _shown(name: str) -> pl.Expr:
    if name == "function":
        return pl.col(name).fill_null("(unknown)")
    hexadecimal = pl.col(name).map_elements(lambda value: f"{value:#x}", return_dtype=pl.String)
    return hexadecimal if name in ("function_id", "pc") else pl.col(name)
