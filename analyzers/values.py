"""Invariants of the value: S1, S2, S4, S5, H3, L1, L2, U1. Each is an expression over the ledger. Spec: docs/pvtime.md 5.10.

An update is judged by its step since the update before it, so that one mistake is told once. A step that another rule explains (bytes in the
wrong order, a total that began again, a unit, a store in pieces, a store of the guest or while it runs) breaks that rule's invariant alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from tracekit.analyzers.findings import Tally
from tracekit.analyzers.ledger import LEAVES


def _swapped(value: pl.Expr) -> pl.Expr:
    """A u64 with its bytes the other way round, as i128."""
    value = value.cast(pl.UInt64, strict=False)
    return pl.sum_horizontal((value // (1 << 8 * n) % 256).cast(pl.Int128) * (1 << 8 * (7 - n)) for n in range(8))


_told, _last = pl.col("told_ns"), pl.col("last_told_ns")
_event, _step, _true_step, _wall = pl.col("event"), pl.col("step_ns"), pl.col("true_step_ns"), pl.col("wall_ns")
_STEPS = (
    (_told - _last).alias("step_ns"),
    (pl.col("truth_ns") - pl.col("last_truth_ns")).alias("true_step_ns"),
    (pl.col("vtime_ns") - pl.col("last_ns")).alias("wall_ns"),
    (pl.col("vtime_ns") - pl.col("entry_ns")).alias("since_entry_ns"),
)
_is_same_host = pl.col("restores") == pl.col("last_restores")
_is_same_epoch = pl.col("epoch") == pl.col("last_epoch")
_is_clean = (pl.col("odd_since") == 0) & (pl.col("touched_since") == 0)
_is_listening = (pl.col("epoch") > 0) & (pl.col("epoch") != pl.col("gone_epoch"))
_is_update = _event.is_in(["enable", "publish", "store"]) & (pl.col("last_epoch") > 0) & _is_listening
_restarts = _is_update & _is_same_epoch & _is_same_host & _is_clean & (_step < 0) & (_told == _true_step)
_is_swapped = (
    _is_update & _is_same_host & _is_clean & (_step != _true_step)
    & ((_swapped(_told) - _swapped(_last) == _true_step) | (_swapped(_told) - _last == _true_step))
)  # fmt: skip
_is_wrong, _is_odd_read = pl.col("is_wrong"), pl.col("is_odd_read")
_is_beyond = (_step < 0) | (_step > _wall)
_is_late = (_event == "publish") & (pl.col("odd_since") == 0) | (_event == "store")
_is_late = _is_late & _is_listening & (pl.col("state") == "run") & pl.col("guest_ran") & (_told != _last)
_misses = LEAVES & pl.col("guest_ran") & (pl.col("updates") == 0) & _is_listening & (_true_step != 0)
# Cheap to ask, and true of every row that a rule may be about.
_is_suspect = (
    _event.is_in(["enable", "publish", "store"])
    & ((_step != _true_step) | (pl.col("revision") != 0) | (pl.col("attributes") != 0) | _is_late)
    | (_event == "read") & (_told != _last)
    | (_event == "touch")
    | _misses
)
UNIT = "unit"  # the cause under which steps stand that a wrong unit may explain


@dataclass(frozen=True, slots=True)
class Rule:
    """An invariant and the rows of the ledger that break it. The texts may name columns."""

    invariant: str
    table: str
    where: pl.Expr
    expected: str
    found: str
    cause: str = ""


_MORE, _WAITED = "{step_ns} ns more", "{true_step_ns} ns more, what the vCPU waited since the last update"
_AT_MOST = "from 0 to {wall_ns} ns more, the time that passed since the last update"
_LATE = ("no change while guest code runs", "{told_ns} ns stored {since_entry_ns} ns after the guest was entered")

# Over the ledger of vCPUs whose structure is their own.
RULES = (
    Rule("S1", "pvtime", _is_wrong & _is_same_epoch & (_step < 0), "at least {last_told_ns} ns, as before", "{told_ns} ns"),
    Rule("S1", "pvtime", _is_odd_read & (_told < _last), "at least {last_told_ns} ns, as stored last", "{told_ns} ns read"),
    Rule("S2", "pvtime", _is_wrong & _is_beyond & (_true_step > 0), _AT_MOST, _MORE, UNIT),
    Rule("S2", "pvtime", _is_wrong & _is_beyond & (_true_step <= 0), _AT_MOST, _MORE),
    Rule("S4", "pvtime", _is_wrong & (_true_step > 0), _WAITED, _MORE, UNIT),
    Rule("S4", "pvtime", _is_wrong & (_true_step <= 0), _WAITED, _MORE),
    Rule(
        "S4", "pvtime", _is_odd_read & (_told > _last),
        "{last_told_ns} ns, as stored last", "{told_ns} ns read: it changed without an update",
    ),
    Rule("S5", "pvtime", _is_late & (_event == "publish"), *_LATE),
    Rule("S5", "memory_writes", _is_late & (_event == "store"), *_LATE),
    Rule(
        "H3", "pvtime",
        _event.is_in(["enable", "publish"]) & ((pl.col("revision") != 0) | (pl.col("attributes") != 0)) & (pl.col("head") == 0),
        "revision 0, attributes 0", "revision {revision}, attributes {attributes}",
    ),
    Rule(
        "H3", "pvtime", _is_swapped,
        "{true_step_ns} ns more than {last_told_ns}, little-endian", "{told_ns}: its bytes are the wrong way round",
    ),
    Rule(
        "L1", "pvtime", _restarts,
        "the total goes on from {last_told_ns} ns: there was no PV_TIME_ST", "{told_ns} ns: it began again at 0",
    ),
    Rule(
        "L2", "pvtime", _is_update & ~_is_same_host & _is_clean & (_step != _true_step),
        "{true_step_ns} ns more than the {last_told_ns} ns that stood in memory at the restore", "{told_ns} ns, {step_ns} ns more",
    ),
)  # fmt: skip

# Over the ledger of those of them whose structure lies in memory that is the host's to write.
PLACED_RULES = (
    Rule(
        "S4", "schedule", _misses,
        "an update at the guest entry at {entry_ns} ns: {true_step_ns} ns had not been told", "the guest ran, and there was none",
    ),
    Rule(
        "S5", "memory_writes", (_event == "touch") & _is_listening,
        "only the hypervisor writes the structure", "the guest stored {size} bytes at {ipa:#x}",
    ),
)  # fmt: skip


class Values:
    """The value's invariants over a trace. shared: vCPUs whose structure is another's too (M2); misplaced: M6 of theirs is broken."""

    def __init__(self, tally: Tally, shared: Collection[int], misplaced: Collection[int]) -> None:
        self._tally = tally
        self._shared, self._misplaced = shared, misplaced
        self._unit = UnitWatch()

    def feed(self, ledger: pl.DataFrame) -> None:
        """A frame of the ledger."""
        ledger = _without(ledger, self._shared)
        is_odd_read = (_event == "read") & _is_same_epoch & _is_same_host & _is_clean & _is_listening & (_told != _last)
        is_wrong = _is_update & _is_same_host & _is_clean & (_step != _true_step) & ~_restarts & ~_is_swapped & ~_is_late
        ledger = ledger.with_columns(_STEPS)
        self._unit.feed(ledger)
        ledger = ledger.filter(_is_suspect.fill_null(False))
        if not ledger.height:
            return
        ledger = ledger.with_columns(is_wrong=is_wrong.fill_null(False), is_odd_read=is_odd_read.fill_null(False))
        self._apply(RULES, ledger)
        self._apply(PLACED_RULES, _without(ledger, self._misplaced))

    def _apply(self, rules: tuple[Rule, ...], ledger: pl.DataFrame) -> None:
        hits = ledger.select(rule.where.fill_null(False).alias(str(index)) for index, rule in enumerate(rules))
        for index, rule in enumerate(rules):
            if hits[str(index)].any():
                rows = ledger.filter(hits[str(index)])
                self._tally.add(rule.invariant, rule.table, rows, rule.expected, rule.found, rule.cause)

    def close(self, kept: pl.DataFrame) -> None:
        """The end of the trace. kept: each vCPU's last row; a vCPU that still ran there, and was seen running, must have been told."""
        ran_ns = pl.col("code_ns") + (pl.col("seen_ns") - pl.col("since_ns")).clip(lower_bound=0)
        ran = (pl.col("state") == "run") & (ran_ns > pl.max_horizontal("entry_code_ns", "vmm_code_ns"))
        misses = (
            ran & (pl.col("marks") == pl.col("entry_marks")) & _is_listening & (pl.col("truth_ns") != pl.col("mark_truth_ns"))
        )
        rows = _without(kept, {*self._shared, *self._misplaced})
        expected = "an update at the guest entry at {entry_ns} ns"
        self._tally.add("S4", "schedule", rows.filter(misses), expected, "the guest ran to the end, and there was none")
        if self._unit.close(self._tally):
            self._tally.drop(UNIT)


def _without(rows: pl.DataFrame, vcpus: Collection[int]) -> pl.DataFrame:
    return rows.filter(~pl.col("vcpu").is_in(sorted(vcpus))) if vcpus else rows


class UnitWatch:
    """U1: every update is the same multiple of the truth, and that multiple is not 1. Rounding of 1 ns is allowed for."""

    LEAST_UPDATES = 4

    def __init__(self) -> None:
        self._low, self._high, self._count = 0.0, float("inf"), 0
        self._least, self._most = 1 << 62, 0
        self._first: pl.DataFrame | None = None

    def feed(self, ledger: pl.DataFrame) -> None:
        """A frame of the ledger."""
        if 0.99 < self._low <= self._high < 1.01 or self._low > self._high * (1 + 1e-9):
            return  # it is 1, or there is none: nothing that follows can change that
        rows = ledger.filter(_is_update & _is_same_host & _is_clean & (_true_step > 0))
        if not rows.height:
            return
        step, true = _step.cast(pl.Float64), _true_step.cast(pl.Float64)
        least, most, low, high = rows.select(
            _true_step.min().alias("least"), _true_step.max().alias("most"), ((step - 1) / true).max().alias("low"),
            ((step + 1) / true).min().alias("high"),
        ).row(0)  # fmt: skip
        self._least, self._most, self._count = min(self._least, least), max(self._most, most), self._count + rows.height
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._first is None:
            self._first = rows.head(1)

    def close(self, tally: Tally) -> bool:
        """Say it, and tell whether it is so. Updates that are all of one size cannot tell a unit from a constant error."""
        is_steady = self._count >= self.LEAST_UPDATES and 0 < self._low <= self._high * (1 + 1e-9)
        is_told = self._most >= self._least * 1.01
        if self._first is None or not (is_steady and is_told) or (self._high > 0.99 and self._low < 1.01):
            return False
        found = f"{{step_ns}} ns more: about {self._high:.4g} times as much, as in all {self._count} updates"
        tally.add("U1", "pvtime", self._first, "{true_step_ns} ns more", found)
        return True
