"""Invariants of the value: S1, S2, S4, S5, H3, L1, L2, U1. Each is an expression over the ledger. Spec: docs/pvtime.md 5.10."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tracekit.analyzers.findings import Tally, broken
from tracekit.analyzers.ledger import UPDATES

_told, _last = pl.col("told_ns"), pl.col("last_told_ns")
_step = _told - _last
_true_step = pl.col("truth_ns") - pl.col("last_truth_ns")
_wall = pl.col("vtime_ns") - pl.col("last_ns")
_is_update = pl.col("event").is_in(UPDATES) & _last.is_not_null()
_is_same_host = pl.col("restores") == pl.col("last_restores")
_is_same_epoch = pl.col("epoch") == pl.col("last_epoch")
_leaves = (pl.col("state_before") == "run") & (pl.col("state") != "run") & (pl.col("vtime_ns") > pl.col("entry_ns"))
_swapped = pl.sum_horizontal(
    ((_told.cast(pl.UInt64, strict=False) // (1 << 8 * n)) % 256).cast(pl.Int128) * (1 << 8 * (7 - n)) for n in range(8)
)


@dataclass(frozen=True, slots=True)
class Rule:
    """An invariant and the rows of the ledger that break it."""

    invariant: str
    table: str
    where: pl.Expr
    expected: pl.Expr
    found: pl.Expr


RULES = (
    Rule(
        "S1", "pvtime",
        pl.col("event").is_in(["publish", "read"]) & _last.is_not_null() & _is_same_epoch & _is_same_host & (_told < _last),
        pl.format("at least {} ns, as before", _last), pl.format("{} ns", _told),
    ),
    Rule(
        "S2", "pvtime",
        _is_update & _is_same_host & ((_step < 0) | (_step > _wall)),
        pl.format("at most {} ns more, the time that passed", _wall),
        pl.when(_step < 0).then(pl.format("{} ns: an underflow", _step)).otherwise(pl.format("{} ns more", _step)),
    ),
    Rule(
        "S4", "pvtime",
        _is_update & _is_same_host & (_step != _true_step),
        pl.format("{} ns more, what the vCPU waited since the last update", _true_step), pl.format("{} ns more", _step),
    ),
    Rule(
        "S4", "schedule",
        _leaves & (pl.col("updates") == 0) & (pl.col("last_epoch") > 0) & (_true_step != 0),
        pl.format("an update at the guest entry at {} ns: the vCPU had waited {} ns", pl.col("entry_ns"), _true_step),
        pl.lit("the guest ran, and there was none"),
    ),
    Rule(
        "S5", "memory_writes",
        (pl.col("event") == "write") & (pl.col("state") == "run") & (pl.col("vtime_ns") > pl.col("entry_ns"))
        & (pl.col("cause").fill_null("") != "pvtime_enable")
        & ((pl.col("size") != 8) | (pl.col("value").cast(pl.Int128) != _last)).fill_null(True),
        pl.lit("no change while guest code runs"),
        pl.format(
            "{} stored {} ns after the guest was entered", pl.col("value"), pl.col("vtime_ns") - pl.col("entry_ns")
        ),
    ),
    Rule(
        "H3", "pvtime",
        pl.col("event").is_in(UPDATES) & ((pl.col("revision") != 0) | (pl.col("attributes") != 0)),
        pl.lit("revision 0, attributes 0"), pl.format("revision {}, attributes {}", pl.col("revision"), pl.col("attributes")),
    ),
    Rule(
        "H3", "pvtime",
        pl.col("event").is_in(UPDATES) & (_told != pl.col("truth_ns")) & (_swapped == pl.col("truth_ns")),
        pl.format("{} ns, little-endian", pl.col("truth_ns")), pl.format("{}: its bytes are the wrong way round", _told),
    ),
    Rule(
        "L1", "pvtime",
        _is_update & _is_same_epoch & _is_same_host & (_step < 0) & (_told == _true_step),
        pl.format("the total goes on from {} ns: there was no PV_TIME_ST", _last), pl.format("{} ns: it began again at 0", _told),
    ),
    Rule(
        "L2", "pvtime",
        _is_update & ~_is_same_host & (_step != _true_step),
        pl.format("{} ns: {} ns from before the restore and {} ns since", _last + _true_step, _last, _true_step),
        pl.format("{} ns", _told),
    ),
)  # fmt: skip


class UnitWatch:
    """U1: every update is the same multiple of the truth, and that multiple is not 1."""

    LEAST_UPDATES = 4

    def __init__(self) -> None:
        self._low, self._high, self._count = float("inf"), 0.0, 0
        self._first: pl.DataFrame | None = None

    def feed(self, ledger: pl.DataFrame) -> None:
        """One window's ledger."""
        rows = ledger.filter(_is_update & _is_same_host & (_true_step > 0)).with_columns(
            ratio=_step.cast(pl.Float64) / _true_step.cast(pl.Float64)
        )
        if not rows.height:
            return
        least, most = rows.select(pl.col("ratio").min().alias("least"), pl.col("ratio").max().alias("most")).row(0)
        self._low, self._high, self._count = min(self._low, least), max(self._high, most), self._count + rows.height
        if self._first is None:
            self._first = rows.head(1)

    def close(self, tally: Tally) -> None:
        """Say it, if it is so."""
        is_steady = 0 < self._low <= self._high <= self._low * 1.001 and self._count >= self.LEAST_UPDATES
        if self._first is None or not is_steady or 0.99 < self._low < 1.01:
            return
        found = pl.format(
            "{} ns more: {} times as much, as in all {} updates", _step, pl.col("ratio").round(3), pl.lit(self._count)
        )
        tally.add("U1", "pvtime", broken(self._first, pl.lit(True), pl.format("{} ns more", _true_step), found))


def check(ledger: pl.DataFrame, tally: Tally) -> None:
    """Every rule over one window's ledger."""
    for rule in RULES:
        tally.add(rule.invariant, rule.table, broken(ledger, rule.where, rule.expected, rule.found))
