"""Each vCPU's life as one ledger: what the host did, what the guest was told, and what was true. Spec: formats/SPEC.md 9.

The truth is computed from `schedule`, the successful PV_TIME_ST calls of `hypercalls` and the restore rows of `directives`; never from
what the hypervisor published.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from tracekit.analyzers.source import KEY, WINDOW_ROWS, Want, windows
from tracekit.formats.reader import Trace

# The state of a thread after a schedule row; rows that are not listed change nothing. yield is a WAIT, the last four are BLOCK.
STATE_AFTER = {
    "online": "wait", "run": "run", "preempt": "wait", "wake": "wait", "yield": "yield", "throttle": "wait", "resume": "wait",
    "unsuspend": "wait", "block": "sleep", "offline": "offline", "pause": "pause", "suspend": "suspend",
}  # fmt: skip
STATES = pl.Enum(["run", "wait", "yield", "sleep", "offline", "pause", "suspend"])
WAITS, BLOCKS = ("wait", "yield"), ("sleep", "offline", "pause", "suspend")

# Which accumulated times each publication policy counts (SPEC 9).
FORMULAS: dict[str, pl.Expr] = {
    "kvm": pl.col("wait_ns"),
    "spec-min": pl.col("wait_ns") - pl.col("yield_ns"),
    "xen": pl.col("wait_ns") + pl.col("offline_ns"),
    "kvm-x86-suspend": pl.col("wait_ns") + pl.col("suspend_ns"),
}
ST_ID = 0xC500_0021
UPDATES = ("enable", "publish")
TIMES = ("run_ns", "wait_ns", "yield_ns", "block_ns", "offline_ns", "suspend_ns")

# What a window leaves to the next, for each vCPU: the last row of its ledger.
_KEPT: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(KEY, pl.UInt64), "vtime_ns": pl.Int64, "vcpu": pl.UInt16, "event": pl.String, "told_ns": pl.Int128,
    "state": STATES, "since_ns": pl.Int64, **dict.fromkeys(TIMES, pl.Int64), "entry_ns": pl.Int64, "entry_clock_ns": pl.Int64,
    "entry_marks": pl.UInt32, "epoch": pl.UInt32, "base_ns": pl.Int64, "restored_ns": pl.Int64, "adjusted_ns": pl.Int64,
    "restores": pl.UInt32, "marks": pl.UInt32, "mark_told_ns": pl.Int128, "mark_truth_ns": pl.Int64, "mark_ns": pl.Int64,
    "mark_epoch": pl.UInt32, "mark_restores": pl.UInt32, "mark_restored_ns": pl.Int64,
}  # fmt: skip


def publication_of(trace: Trace) -> str:
    """The publication policy that a run was recorded with; `kvm` where the manifest names none that is known."""
    hypervisor = trace.manifest.get("scenario", {}).get("hypervisor", {})
    name = hypervisor.get("publication", "kvm") if isinstance(hypervisor, dict) else "kvm"
    return name if name in FORMULAS else "kvm"


IS_ST = (pl.col("function_id") == ST_ID) & (pl.col("ret0") < 1 << 63)  # a PV_TIME_ST that succeeded
WANTS: dict[str, Want] = {
    "schedule": Want(("event", "reason"), pl.col("vcpu").is_not_null()),
    "pvtime": Want(("event", "ipa", "stolen_ns", "revision", "attributes"), pl.col("event") != "attribute"),
    "hypercalls": Want(("function_id", "ret0"), IS_ST),
    "directives": Want(("kind", "value"), pl.col("kind") == "restore"),
}


def ledgers(trace: Trace, policy: str, rows: int = WINDOW_ROWS) -> Iterator[pl.DataFrame]:
    """The ledger of a trace, window by window. Errors: TraceDamaged. For the columns see `ledger`."""
    kept: pl.DataFrame | None = None
    for window in windows(trace, WANTS, rows):
        frame, kept = ledger(window, policy, kept)
        yield frame


def ledger(window: dict[str, pl.DataFrame], policy: str, kept: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One window's ledger, sorted by (position, sequence), and what the next window needs.

    columns: position u64, sequence u64, vtime_ns i64, vcpu u16; event: of `schedule` (turn: a run that is none), enable, publish, read (of
    `pvtime`), st (a PV_TIME_ST that succeeded), restore, write (where the caller gives the window a table `writes`: rows of `memory_writes` with
    the vCPU whose structure it is); ipa u64?, told_ns i128?, revision u32?, attributes u32?: of the `pvtime` row;
    state, state_before: of the thread; accumulated up to the row: run_ns, wait_ns (yield_ns: the part that yields began), block_ns
    (offline_ns, suspend_ns: parts of it); clock_ns i64: what the policy counts; entry_ns i64: time of the last switch-in; epoch u32: PV_TIME_ST
    so far; truth_ns i64: what an update here must store; restored_ns i64 and restores u32: brought by restores so far; and of the last update
    before this row: last_told_ns i128? (0 after a PV_TIME_ST), last_truth_ns i64?, last_ns i64? (its time), last_epoch u32?, last_restores
    u32?, last_restored_ns i64?; updates u32: since the last switch-in.
    """
    frame = _truth(_times(_rows(window, kept)).with_columns(clock_ns=FORMULAS[policy]))
    frame = _updates(frame)
    left = frame.group_by("vcpu", maintain_order=True).last().with_columns(since_ns=pl.max_horizontal("since_ns", "vtime_ns"))
    return frame.filter(~pl.col("is_kept")).drop("is_kept").sort(*KEY), left.select(list(_KEPT))


def _rows(window: dict[str, pl.DataFrame], kept: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of all tables, those that were kept before them. own: the state that a schedule row brings."""
    place = (*(pl.col(name).cast(pl.UInt64) for name in KEY), pl.col("vtime_ns").cast(pl.Int64), pl.col("vcpu"))
    event = pl.when(pl.col("reason").fill_null("") == "turn").then(pl.lit("turn")).otherwise("event")
    own = event.replace_strict(STATE_AFTER, default=None, return_dtype=pl.String).cast(STATES)
    schedule = window["schedule"].select(*place, event.alias("event"), own.alias("own"))
    pvtime = (
        window["pvtime"]
        .filter(pl.col("event") != "attribute")
        .select(*place, "event", pl.col("stolen_ns").cast(pl.Int128).alias("told_ns"), "ipa", "revision", "attributes")
    )
    calls = window["hypercalls"].filter(IS_ST).select(*place, pl.lit("st").alias("event"))
    value = pl.col("value").cast(pl.Int64, strict=False).fill_null(0)
    restores = (
        window["directives"]
        .filter(pl.col("kind") == "restore")
        .select(*place, pl.lit("restore").alias("event"), value.alias("restored"))
    )
    writes = (
        [window["writes"].select(*place, pl.lit("write").alias("event"), "ipa", "size", "value", "cause")]
        if "writes" in window
        else []
    )
    new = pl.concat([schedule, pvtime, calls, restores, *writes], how="diagonal").filter(pl.col("vcpu").is_not_null()).sort(*KEY)
    first = pl.DataFrame(schema=_KEPT) if kept is None else kept
    return pl.concat(
        [first.with_columns(is_kept=pl.lit(True), own="state"), new.with_columns(is_kept=pl.lit(False))], how="diagonal"
    )


def _carried(name: str, value: pl.Expr) -> pl.Expr:
    """A column of _KEPT: kept rows have it already."""
    return pl.when(pl.col("is_kept")).then(name).otherwise(value)


def _total(name: str, value: pl.Expr) -> pl.Expr:
    """A running total of _KEPT over each vCPU's rows."""
    return _carried(name, value).cum_sum().over("vcpu").cast(_KEPT[name])


def _latest(name: str, where: pl.Expr, value: pl.Expr) -> pl.Expr:
    """The latest value of _KEPT for each vCPU: that of the last row for which `where` held."""
    return _carried(name, pl.when(where).then(value)).forward_fill().over("vcpu").cast(_KEPT[name])


def _times(frame: pl.DataFrame) -> pl.DataFrame:
    """Accumulated times. A row that brings no state has the time of the state so far, and adds nothing to later rows."""
    is_change = pl.col("own").is_not_null()
    frame = frame.with_columns(
        state=pl.col("own").forward_fill().over("vcpu"), since_ns=_latest("since_ns", is_change, pl.col("vtime_ns"))
    )
    frame = frame.with_columns(
        state_before=pl.col("state").shift(1).over("vcpu"),
        passed=(pl.col("vtime_ns") - pl.col("since_ns").shift(1).over("vcpu")).clip(lower_bound=0).fill_null(0),
    )
    kinds: dict[str, tuple[str, ...]] = {
        "run_ns": ("run",), "wait_ns": WAITS, "yield_ns": ("yield",), "block_ns": BLOCKS, "offline_ns": ("offline",),
        "suspend_ns": ("suspend",),
    }  # fmt: skip
    columns = []
    for name, states in kinds.items():
        passed = pl.when(pl.col("state_before").is_in(states) & ~pl.col("is_kept")).then("passed").otherwise(0)
        done = _total(name, pl.when(is_change).then(passed).otherwise(0))
        columns.append((done + pl.when(is_change).then(0).otherwise(passed)).alias(name))
    return frame.with_columns(columns).drop("passed", "own")


def _truth(frame: pl.DataFrame) -> pl.DataFrame:
    """What Stored must be. A restore brings the truth of the last switch-in and its own value; what had not been reported is lost."""
    event = pl.col("event")
    is_entry, is_st, is_restore = event == "run", event == "st", event == "restore"
    restored = pl.col("restored") if "restored" in frame.columns else pl.lit(0)
    frame = frame.with_columns(
        entry_ns=_latest("entry_ns", is_entry, pl.col("vtime_ns")),
        entry_clock_ns=_latest("entry_clock_ns", is_entry | is_restore, pl.col("clock_ns")),
        restored_ns=_total("restored_ns", pl.when(is_restore).then(restored).otherwise(0)),
        restores=_total("restores", is_restore.cast(pl.UInt32)),
        epoch=_total("epoch", is_st.cast(pl.UInt32)),
    )
    lost = pl.col("clock_ns") - pl.col("entry_clock_ns").shift(1).over("vcpu").fill_null(0)
    frame = frame.with_columns(adjusted_ns=_total("adjusted_ns", pl.when(is_restore).then(lost - restored).otherwise(0)))
    frame = frame.with_columns(base_ns=_latest("base_ns", is_st, pl.col("clock_ns") - pl.col("adjusted_ns")))
    return frame.with_columns(truth_ns=pl.col("clock_ns") - pl.col("base_ns").fill_null(0) - pl.col("adjusted_ns"))


def _updates(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row's last update before it."""
    is_mark = pl.col("event").is_in([*UPDATES, "st"])
    told = pl.when(pl.col("event") == "st").then(pl.lit(0, pl.Int128)).otherwise("told_ns")
    marks = {
        "told_ns": told, "truth_ns": pl.col("truth_ns"), "ns": pl.col("vtime_ns"), "epoch": pl.col("epoch"),
        "restores": pl.col("restores"), "restored_ns": pl.col("restored_ns"),
    }  # fmt: skip
    names = {what: "mark_ns" if what == "ns" else f"mark_{what}" for what in marks}
    frame = frame.with_columns(
        *(_latest(names[what], is_mark, value).alias(names[what]) for what, value in marks.items()),
        marks=_total("marks", is_mark.cast(pl.UInt32)),
    )
    frame = frame.with_columns(entry_marks=_latest("entry_marks", pl.col("event") == "run", pl.col("marks")))
    return frame.with_columns(
        *(pl.col(name).shift(1).over("vcpu").alias(name.replace("mark_", "last_")) for name in names.values()),
        updates=pl.col("marks") - pl.col("entry_marks").fill_null(0),
    )
