"""A window's rows as events in each vCPU's life. Spec: formats/SPEC.md 5, 9."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.placement import STRUCTURE_SIZE, Places
from tracekit.analyzers.source import KEY, Want

# The state of a thread after a schedule row; rows that are not listed change nothing. wait, woken (a wait that began in WFI) and yield are
# WAIT; run and poll are RUN; the last four are BLOCK.
STATE_AFTER = {
    "online": "wait", "run": "run", "turn": "run", "poll": "poll", "preempt": "wait", "wake": "woken", "yield": "yield",
    "throttle": "wait", "resume": "wait", "unsuspend": "wait", "block": "sleep", "offline": "offline", "pause": "pause",
    "suspend": "suspend",
}  # fmt: skip
STATES = pl.Enum(["run", "poll", "wait", "woken", "yield", "sleep", "offline", "pause", "suspend"])
RUNS, WAITS, BLOCKS = ("run", "poll"), ("wait", "woken", "yield"), ("sleep", "offline", "pause", "suspend")
EVENTS = pl.Enum(
    [
        *STATE_AFTER, "migrate", "unthrottle", "st", "enable", "publish", "store", "elsewhere", "read", "odd", "touch",
        "restore", "vmm", "gone", "board",
    ]
)  # fmt: skip
ST_ID = 0xC500_0021
IS_ST = (
    (pl.col("function_id") == ST_ID) & (pl.col("ret0") < 1 << 63) & (pl.col("ret0") != 0xFFFF_FFFF)
)  # a PV_TIME_ST that succeeded
BY_HOST = ("pvtime", "fault")  # host stores that are updates; those of pvtime_enable are part of a PV_TIME_ST
NS_MAX = 1 << 62
KINDS = ("snapshot", "restore", "vmm", "thread_change", "reset", "kexec")


def wants(places: Places) -> dict[str, Want]:
    """What the ledger reads of a trace."""
    cells = pl.Series(sorted(places.cells), dtype=pl.UInt64)
    is_near = (pl.col("ipa") // STRUCTURE_SIZE).is_in(cells.implode())
    return {
        "schedule": Want(("event", "reason"), pl.col("vcpu").is_not_null()),
        "pvtime": Want(("event", "ipa", "stolen_ns", "revision", "attributes"), pl.col("event") != "attribute"),
        "hypercalls": Want(("function_id", "ret0"), IS_ST),
        "directives": Want(("kind", "size", "value"), pl.col("kind").is_in(list(KINDS))),
        "memory_writes": Want(
            ("origin", "ipa", "size", "value", "cause"),
            pl.col("cause").is_in(list(BY_HOST)) | ((pl.col("origin") == "guest") & is_near),
        ),
    }


def rows_of(window: dict[str, pl.DataFrame], places: Places) -> pl.DataFrame:
    """The rows of all tables, unsorted; for the columns see `ledger.Ledger.feed`. own: the state that a schedule row brings."""
    frames = [
        _schedule(window["schedule"]),
        *_pvtime(window["pvtime"], places),
        window["hypercalls"].filter(IS_ST).select(*_place(), pl.lit("st").cast(EVENTS).alias("event")),
        *_directives(window["directives"], places),
        *_writes(window["memory_writes"], places),
    ]
    return pl.concat([_COLUMNS, *frames], how="diagonal").filter(pl.col("vcpu") < places.vcpu_count)


_COLUMNS = pl.DataFrame(
    schema={
        **dict.fromkeys(KEY, pl.UInt64), "vtime_ns": pl.Int64, "vcpu": pl.UInt16, "event": EVENTS, "own": STATES,
        "told_ns": pl.Int128, "ipa": pl.UInt64, "revision": pl.UInt32, "attributes": pl.UInt32, "reader": pl.UInt16,
        "size": pl.UInt64, "value": pl.UInt64, "amount_ns": pl.Int64, "kind": pl.String, "reaches_total": pl.Boolean,
        "reaches_head": pl.Boolean,
    }
)  # fmt: skip


def _place() -> tuple[pl.Expr, ...]:
    return (*(pl.col(name).cast(pl.UInt64) for name in KEY), pl.col("vtime_ns").cast(pl.Int64), pl.col("vcpu"))


def _schedule(rows: pl.DataFrame) -> pl.DataFrame:
    is_turn = pl.col("reason").fill_null("") == "turn"
    event = pl.when(is_turn).then(pl.lit("turn")).otherwise("event")
    own = event.replace_strict(STATE_AFTER, default=None, return_dtype=pl.String)
    return rows.filter(pl.col("vcpu").is_not_null()).select(
        *_place(), event.cast(EVENTS).alias("event"), own.cast(STATES).alias("own")
    )


def _pvtime(rows: pl.DataFrame, places: Places) -> list[pl.DataFrame]:
    """Updates under the vCPU that they are for, reads under the vCPU whose structure is read."""
    fields = (pl.col("stolen_ns").cast(pl.Int128).alias("told_ns"), "ipa", "revision", "attributes")
    updates = places.with_base(rows.filter(pl.col("event").is_in(["enable", "publish"])))
    event = pl.when((pl.col("base") == pl.col("ipa")).fill_null(False)).then("event").otherwise(pl.lit("elsewhere"))
    reads = rows.filter(pl.col("event") == "read").with_columns(reader="vcpu").drop("vcpu").join(places.owners, on="ipa")
    return [
        updates.select(*_place(), event.cast(EVENTS).alias("event"), *fields),
        reads.select(*_place(), pl.lit("read").cast(EVENTS).alias("event"), *fields, "reader"),
    ]


def _directives(rows: pl.DataFrame, places: Places) -> list[pl.DataFrame]:
    """restore and vmm of a vCPU (a thread change is VMM time too, of no length: KVM_RUN returns and begins again); what concerns the board,
    once for each vCPU; gone: reset and kexec, from which nobody listens."""
    rows = rows.filter(pl.col("kind").is_in(list(KINDS)))
    everybody = pl.DataFrame({"vcpu": range(places.vcpu_count)}, schema={"vcpu": pl.UInt16})
    rows = pl.concat(
        [
            rows.filter(pl.col("vcpu").is_not_null()).with_columns(is_board=pl.lit(False)),
            rows.filter(pl.col("vcpu").is_null()).drop("vcpu").join(everybody, how="cross").with_columns(is_board=pl.lit(True)),
        ],
        how="diagonal",
    )
    kind = pl.col("kind")
    event = (
        pl.when(kind.is_in(["reset", "kexec"])).then(pl.lit("gone"))
        .when(pl.col("is_board") & (kind != "vmm")).then(pl.lit("board"))
        .when(kind == "thread_change").then(pl.lit("vmm"))
        .when(kind != "snapshot").then(kind)
    )  # fmt: skip
    taken = pl.when(kind == "thread_change").then(0).otherwise(pl.col("value"))
    amount = taken.clip(upper_bound=NS_MAX).cast(pl.Int64).fill_null(0).alias("amount_ns")
    rows = rows.select(*_place(), event.cast(EVENTS).alias("event"), amount, "kind", "value", "size")
    return [rows.filter(pl.col("event").is_not_null())]


def _writes(rows: pl.DataFrame, places: Places) -> list[pl.DataFrame]:
    """Stores into structures that no row of `pvtime` tells of, under the vCPU whose structure it is."""
    rows = rows.filter((pl.col("origin") == "guest") | pl.col("cause").is_in(list(BY_HOST)))
    is_plain = (pl.col("cause") == "pvtime") & (pl.col("size") == 8) & (pl.col("ipa") == pl.col("base") + 8)
    rows = places.with_base(rows).filter(~is_plain.fill_null(False)).drop("base").rename({"vcpu": "writer"})
    rows = rows.with_columns(pl.col("size").cast(pl.UInt64), cell=pl.col("ipa") // STRUCTURE_SIZE).join(
        places.owners_of_cells, on="cell", maintain_order="left"
    )
    begin = pl.col("base")
    rows = places.with_base(rows).filter(
        (pl.col("begin") == begin) & (pl.col("ipa") < begin + STRUCTURE_SIZE) & (pl.col("ipa") + pl.col("size") > begin)
    )
    offset = pl.col("ipa").cast(pl.Int128) - begin.cast(pl.Int128)
    rows = rows.with_columns(reaches_total=(offset < 16) & (offset + pl.col("size") > 8), reaches_head=offset < 8)
    is_guest = pl.col("origin") == "guest"
    is_whole = (pl.col("writer") == pl.col("vcpu")).fill_null(False) & (pl.col("size") == 8) & (offset == 8)
    event = pl.when(is_guest).then(pl.lit("touch")).when(is_whole).then(pl.lit("store")).otherwise(pl.lit("odd"))
    rows = rows.with_columns(event=event.cast(EVENTS)).filter((pl.col("event") != "odd") | pl.col("reaches_total"))
    told = pl.when(pl.col("event") == "store").then(pl.col("value").cast(pl.Int128)).alias("told_ns")
    return [rows.select(*_place(), "event", told, "ipa", "size", "value", "reaches_total", "reaches_head")]
