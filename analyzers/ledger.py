"""Each vCPU's life as one ledger: what the host did, what the guest was told, and what was true. Spec: formats/SPEC.md 9.

The truth is computed from `schedule`, the successful PV_TIME_ST calls of `hypercalls` and the snapshot and restore rows of `directives`;
never from what the hypervisor published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from tracekit.analyzers.events import BLOCKS, EVENTS, RUNS, STATES, WAITS, rows_of
from tracekit.analyzers.placement import Places
from tracekit.analyzers.source import KEY
from tracekit.formats.reader import Trace

# Which accumulated times each publication policy counts (SPEC 9).
FORMULAS: dict[str, pl.Expr] = {
    "kvm": pl.col("wait_ns"),
    "spec-min": pl.col("wait_ns") - pl.col("yield_ns"),
    "xen": pl.col("wait_ns") + pl.col("offline_ns"),
    "kvm-x86-suspend": pl.col("wait_ns") + pl.col("suspend_ns"),
}
TIMES: dict[str, tuple[str, ...]] = {
    "run_ns": RUNS, "code_ns": ("run",), "wait_ns": WAITS, "idle_ns": ("woken",), "yield_ns": ("yield",), "block_ns": BLOCKS,
    "offline_ns": ("offline",), "suspend_ns": ("suspend",),
}  # fmt: skip
LEAVES = pl.col("state_before").is_in(list(RUNS)) & ~pl.col("state").is_in(list(RUNS))  # rows with which a vCPU stops running
_COUNTS = ("epoch", "marks", "odd", "touched", "head")
_COUNT, _NS = pl.Int64, pl.Int64

# What a window leaves to the next, for each vCPU: the last row of its ledger. Nothing in it is null; mark_epoch -1: no update so far.
_KEPT: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(KEY, pl.UInt64), "vtime_ns": _NS, "vcpu": pl.UInt16, "event": EVENTS, "state": STATES, "since_ns": _NS,
    **dict.fromkeys(TIMES, _NS), "clock_ns": _NS, "entry_ns": _NS, "entry_code_ns": _NS, "vmm_code_ns": _NS, "entry_marks": _COUNT,
    **dict.fromkeys(_COUNTS, _COUNT), "restores": _COUNT, "restored_ns": _NS, "base_ns": _NS, "truth_ns": _NS, "due_ns": _NS,
    "mark_told_ns": pl.Int128, "mark_truth_ns": _NS, "mark_ns": _NS, "mark_epoch": _COUNT, "mark_restores": _COUNT,
    "mark_odd": _COUNT, "mark_touched": _COUNT, "gone_epoch": _COUNT, "seen_ns": _NS,
}  # fmt: skip
_MARKS = tuple(name for name in _KEPT if name.startswith("mark_"))


def publication_of(trace: Trace) -> str:
    """The publication policy that a run was recorded with; `kvm` where the manifest names none that is known."""
    hypervisor = trace.manifest.get("scenario", {}).get("hypervisor", {})
    name = hypervisor.get("publication", "kvm") if isinstance(hypervisor, dict) else "kvm"
    return name if name in FORMULAS else "kvm"


class Ledger:
    """Follows every vCPU over windows."""

    def __init__(self, policy: str, places: Places) -> None:
        self.formula = FORMULAS[policy]
        self._places = places
        vcpus = range(places.vcpu_count)
        columns = {name: [0] * len(vcpus) for name in _KEPT} | {
            "mark_epoch": [-1] * len(vcpus),
            "gone_epoch": [-1] * len(vcpus),
            "vcpu": list(vcpus),
        }
        off = {"event": ["offline"] * len(vcpus), "state": ["offline"] * len(vcpus)}
        self._kept = pl.DataFrame({**columns, **off}, schema=_KEPT)
        self._snapshots: dict[int, pl.DataFrame] = {}

    @property
    def kept(self) -> pl.DataFrame:
        """Each vCPU's last row so far; columns as in `feed`, but times only up to the last change of state, which was at since_ns i64, and
        mark_ for last_; seen_ns i64: when the vCPU itself was last seen to do something."""
        return self._kept

    def at(self, end_ns: int) -> pl.DataFrame:
        """Each vCPU's row as of a time at which its present state still lasts; columns as in `kept`, with all times up to then."""
        passed = (pl.lit(end_ns) - pl.col("since_ns")).clip(lower_bound=0)
        frame = self._kept.with_columns(
            pl.col(name) + pl.when(pl.col("state").is_in(list(states))).then(passed).otherwise(0)
            for name, states in TIMES.items()
        ).with_columns(clock_ns=self.formula)
        return frame.with_columns(truth_ns=pl.col("clock_ns") + pl.col("restored_ns") - pl.col("base_ns"))

    def feed(self, window: dict[str, pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """A window's ledger, in one or more frames sorted by (vcpu, position, sequence).

        columns: position u64, sequence u64, vtime_ns i64, vcpu u16 (of a read or a guest's store: whose structure it is);
        event: of `schedule` (turn: a run that is none), st (a PV_TIME_ST that succeeded), enable and publish (updates of the vCPU's
        structure), store (a host store of 8 bytes to its field that no publish row tells of), elsewhere (a publication to another address),
        read (of the structure by any vCPU, `reader`), odd (a host store of another size or place over its field), touch (a guest's store
        into the structure), restore, vmm, gone (reset or kexec), board (a snapshot or restore of the whole board);
        told_ns i128?, ipa u64?, revision u32?, attributes u32?, reader u16?, size u64?, value u64?: of the row;
        state, state_before: of the thread, after and before the row; accumulated up to the row: run_ns (code_ns: the part that is no
        poll), wait_ns (yield_ns: the part that yields began; idle_ns: the part that began in WFI), block_ns (offline_ns, suspend_ns: parts
        of it); clock_ns i64: what the policy counts; truth_ns i64: what an update here must store; due_ns i64: what must stand in memory:
        the truth at the last guest entry; entry_ns i64: time of the last switch-in; guest_ran bool: guest code has run since; updates i64:
        since then; epoch i64: PV_TIME_ST so far; gone_epoch i64: the epoch that a reset or kexec has ended (-1: none); restores i64: so far;
        restored_ns i64: what they brought; and of the last update before the row: last_told_ns i128 (0 after a PV_TIME_ST), last_truth_ns,
        last_ns (its time), last_epoch (-1: there was none), last_restores; odd_since, touched_since i64: odd and touch rows since that
        reach the total; head i64: touch rows so far that reach the first 8 bytes.
        """
        rows = rows_of(window, self._places)
        for part, board in _parts(rows):
            yield self._frame(part)
            if board is not None:
                self._renew(board)

    def _frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        kept = self._kept.with_columns(is_kept=pl.lit(True), own="state")
        frame = pl.concat([kept, rows.with_columns(is_kept=pl.lit(False))], how="diagonal")
        frame = _sorted(frame)
        frame = _times(frame).with_columns(clock_ns=self.formula)
        frame = _updates(_truth(frame))
        last = pl.col("vcpu") != pl.col("vcpu").shift(-1)
        # As of the last change of state: later rows add what passes since.
        settled = [pl.col(name) - pl.col(f"open_{name}") for name in TIMES]
        self._kept = frame.filter(last.fill_null(True)).with_columns(settled).select(list(_KEPT))
        return frame.filter(~pl.col("is_kept")).drop("is_kept", *(f"open_{name}" for name in TIMES))

    def _renew(self, board: _Board) -> None:
        """A snapshot keeps what stands in memory; a restore brings it back and loses what the old threads had not reported."""
        if board.kind == "snapshot":
            self._snapshots[board.number] = self._kept
            return
        kept = self._kept
        if board.is_rollback and board.number in self._snapshots:
            brought = ["due_ns", "epoch", "gone_epoch", "mark_told_ns", "mark_epoch"]
            kept = kept.drop(brought).join(
                self._snapshots[board.number].select("vcpu", *brought), on="vcpu", maintain_order="left"
            )
        self._kept = kept.with_columns(
            restores=pl.col("restores") + 1,
            base_ns=pl.col("clock_ns") + pl.col("restored_ns") - pl.col("due_ns"),
            truth_ns="due_ns",
            mark_truth_ns="due_ns",
            mark_ns="vtime_ns",
            mark_epoch=pl.when(pl.col("mark_epoch") >= 0).then("epoch").otherwise("mark_epoch"),
            mark_odd="odd",
            mark_touched="touched",
        ).select(list(_KEPT))


@dataclass(frozen=True, slots=True)
class _Board:
    """A snapshot or restore of the whole board."""

    kind: str
    number: int
    is_rollback: bool


def _parts(rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, _Board | None]]:
    """The rows up to and with each snapshot or restore of the board, which stands in them once for each vCPU; then the rest."""
    boards = rows.filter(pl.col("event") == "board").unique(KEY).sort(*KEY)
    for board in boards.iter_rows(named=True):
        position, sequence = board["position"], board["sequence"]
        is_before = (pl.col("position") < position) | ((pl.col("position") == position) & (pl.col("sequence") <= sequence))
        yield rows.filter(is_before), _Board(board["kind"], board["value"] or 0, board["size"] == 1)
        rows = rows.filter(~is_before)
    yield rows, None


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    """By vCPU, its kept row, position and sequence. All four in one u64 where they fit: that is several times faster."""
    rows = frame.filter(~pl.col("is_kept"))
    if not rows.height:
        return frame.sort("vcpu")
    first, end = rows.select(pl.col("position").min().alias("first"), pl.col("position").max().alias("end")).row(0)
    bits = int(frame.select(pl.col("sequence").max()).item()).bit_length()
    bits_above = bits + (end - first + 1).bit_length()
    if bits_above + int(frame.select(pl.col("vcpu").max()).item()).bit_length() > 64:
        return frame.sort("vcpu", pl.col("is_kept").not_(), *KEY)
    place = (pl.col("position") - first + 1) * (1 << bits) + pl.col("sequence")
    kept_first = pl.when(pl.col("is_kept")).then(0).otherwise(place)
    return frame.sort(pl.col("vcpu").cast(pl.UInt64) * (1 << bits_above) + kept_first)


# Every vCPU's rows begin with a kept row in which no column is null, so a fill or a sum over the whole frame never mixes two vCPUs.


def _carried(name: str, value: pl.Expr) -> pl.Expr:
    """A column of _KEPT: kept rows have it already."""
    return pl.when(pl.col("is_kept")).then(name).otherwise(value)


def _total(name: str, value: pl.Expr) -> pl.Expr:
    """A running total over each vCPU's rows that goes on from the kept row's."""
    summed = pl.when(pl.col("is_kept")).then(0).otherwise(value).cast(pl.Int64).cum_sum()
    return (summed + pl.when(pl.col("is_kept")).then(pl.col(name) - summed).forward_fill()).alias(name)


def _latest(name: str, where: pl.Expr, value: pl.Expr) -> pl.Expr:
    """The value at the last row for which `where` held, the row itself included."""
    return _carried(name, pl.when(where).then(value)).forward_fill().cast(_KEPT[name]).alias(name)


def _times(frame: pl.DataFrame) -> pl.DataFrame:
    """Accumulated times. A row that brings no state has the time of the state so far, and adds nothing to later rows."""
    is_change = pl.col("own").is_not_null()
    is_polling = pl.col("own").forward_fill().shift(1) == "poll"
    own = pl.when((pl.col("event") == "preempt") & is_polling & ~pl.col("is_kept")).then(pl.lit("woken", STATES)).otherwise("own")
    frame = frame.with_columns(own=own)
    frame = frame.with_columns(state=pl.col("own").forward_fill(), since_ns=_latest("since_ns", is_change, pl.col("vtime_ns")))
    frame = frame.with_columns(
        state_before=pl.col("state").shift(1),
        passed=(pl.col("vtime_ns") - pl.col("since_ns").shift(1)).clip(lower_bound=0).fill_null(0),
    )
    is_settled = is_change | pl.col("is_kept")
    frame = frame.with_columns(
        pl.when(pl.col("state_before").is_in(list(states)) & ~pl.col("is_kept")).then("passed").otherwise(0).alias(f"open_{name}")
        for name, states in TIMES.items()
    )
    frame = frame.with_columns(
        *(_total(name, pl.when(is_change).then(f"open_{name}").otherwise(0)) for name in TIMES),
    ).with_columns(pl.when(is_settled).then(0).otherwise(f"open_{name}").alias(f"open_{name}") for name in TIMES)
    return frame.with_columns(pl.col(name) + pl.col(f"open_{name}") for name in TIMES).drop("passed", "own")


def _truth(frame: pl.DataFrame) -> pl.DataFrame:
    """What Stored must be: the policy's clock since the last PV_TIME_ST, and what restores brought."""
    event = pl.col("event")
    frame = frame.with_columns(
        _total("restored_ns", pl.when(event == "restore").then("amount_ns").otherwise(0)),
        _total("epoch", event == "st"),
        pl.col("restores").forward_fill(),
        _latest("entry_ns", event == "run", pl.col("vtime_ns")),
        _latest("entry_code_ns", event == "run", pl.col("code_ns")),
        _latest("seen_ns", event.is_in(["turn", "st", "enable"]) | (pl.col("reader") == pl.col("vcpu")), pl.col("vtime_ns")),
        _latest("vmm_code_ns", event == "vmm", pl.col("code_ns") + pl.col("amount_ns")),
    )
    frame = frame.with_columns(_latest("gone_epoch", event == "gone", pl.col("epoch")))
    now = pl.col("clock_ns") + pl.col("restored_ns")
    frame = frame.with_columns(_latest("base_ns", event == "st", now))
    return frame.with_columns(
        truth_ns=now - pl.col("base_ns"), guest_ran=pl.col("code_ns") > pl.max_horizontal("entry_code_ns", "vmm_code_ns")
    )


def _updates(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row's last update before it."""
    event = pl.col("event")
    is_told = event.is_in(["enable", "publish", "store", "st"])
    is_mark = is_told | (event == "elsewhere")
    frame = frame.with_columns(
        _total("marks", is_mark),
        _total("odd", event == "odd"),
        _total("touched", (event == "touch") & pl.col("reaches_total")),
        _total("head", (event == "touch") & pl.col("reaches_head")),
    )
    told = pl.when(event == "st").then(pl.lit(0, pl.Int128)).otherwise("told_ns")
    has_left = LEAVES & pl.col("guest_ran")
    frame = frame.with_columns(
        _latest("entry_marks", event == "run", pl.col("marks")),
        _latest("due_ns", is_mark | has_left, pl.col("truth_ns")),
        _latest("mark_told_ns", is_told, told),
        _latest("mark_truth_ns", is_mark, pl.col("truth_ns")),
        _latest("mark_ns", is_mark, pl.col("vtime_ns")),
        *(_latest(f"mark_{name}", is_mark, pl.col(name)) for name in ("epoch", "restores", "odd", "touched")),
    )
    return frame.with_columns(
        *(pl.col(name).shift(1).alias(name.replace("mark_", "last_")) for name in _MARKS),
        updates=pl.col("marks") - pl.col("entry_marks"),
    ).with_columns(odd_since=pl.col("odd") - pl.col("last_odd"), touched_since=pl.col("touched") - pl.col("last_touched"))
