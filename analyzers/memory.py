"""Invariants of place and store: M1, M2, M3, M5, M6, L5. Spec: docs/pvtime.md 5.10, 2; formats/SPEC.md 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracekit.analyzers.events import IS_ST
from tracekit.analyzers.findings import Finding, Tally
from tracekit.analyzers.placement import PAGE_SIZE, STRUCTURE_SIZE, Placed, Places
from tracekit.analyzers.source import KEY, Want

# What a device occupies of the board's address map. Source: docs/machine.md.
DEVICES = (
    ("the interrupt distributor", 0x0800_0000, 0x1_0000),
    ("the interrupt controller's CPU interface", 0x0801_0000, 0x1_0000),
    ("the UART", 0x0900_0000, 0x1000),
)
BY_HOST = ("pvtime", "pvtime_enable", "fault")
_CHANGES = ("attribute_set", "slot_add", "slot_delete", "slot_readonly", "restore", "reset", "kexec")
WANTS = {
    "directives": Want(("kind", "ipa", "size", "value", "result"), pl.col("kind").is_in(list(_CHANGES))),
    "memory_writes": Want(("origin", "ipa", "size", "value", "cause"), pl.col("cause").is_in(list(BY_HOST))),
    "hypercalls": Want(("function_id", "ret0"), IS_ST),
}


@dataclass(slots=True)
class _Slots:
    """The memory slots that the VMM has set up: begin to (end, whether it may be written)."""

    known: dict[int, tuple[int, bool]] = field(default_factory=dict)
    is_told: bool = False

    def apply(self, kind: str, ipa: int, size: int, value: int) -> None:
        self.is_told = True
        if kind == "slot_add":
            self.known[ipa] = ipa + size, value != 1
        elif kind == "slot_delete":
            self.known.pop(ipa, None)
        elif ipa in self.known:
            self.known[ipa] = self.known[ipa][0], False

    def why_not(self, ipa: int, size: int) -> str | None:
        """Why the hypervisor may not store there; None: it may."""
        for begin, (end, is_writable) in self.known.items():
            if begin <= ipa and ipa + size <= end:
                return None if is_writable else "a slot that is read-only"
        return "no slot"


class Memory:
    """Follows registrations, slots and host stores over windows."""

    def __init__(self, machine: Mapping[str, Any], places: Places, tally: Tally) -> None:
        self._machine = machine
        self._tally = tally
        self._places = places
        self._slots = _Slots()
        self._bases: dict[int, int] = {}
        self._old: dict[int, set[int]] = {}
        self._gone: dict[int, str] = {}  # vCPUs for whose structure nobody listens, since what
        self.misplaced: set[int] = set()
        if places.is_assumed:
            self._bases = {one.vcpu: one.ipa for one in places.placed}

    def feed(self, window: dict[str, pl.DataFrame]) -> None:
        """One window of `directives`, `memory_writes` and `hypercalls`."""
        stores = window["memory_writes"].filter(pl.col("cause").is_in(list(BY_HOST)), pl.col("vcpu").is_not_null())
        changes = window["directives"].filter(pl.col("kind").is_in(list(_CHANGES)), pl.col("result").fill_null(0) == 0)
        if self._gone or changes["kind"].is_in(["reset", "kexec"]).any():
            calls = window["hypercalls"].filter(IS_ST).select(*KEY, "vtime_ns", "vcpu", kind=pl.lit("st"))
            changes = pl.concat([changes, calls], how="diagonal").sort(*KEY)
        for part, change in _parts(stores, changes):
            self._check(part)
            if change is not None:
                self._apply(change)

    # --- what changes where stores may go ---------------------------------------------------------------------------------------

    def _apply(self, change: dict[str, Any]) -> None:
        kind, vcpu = change["kind"], change["vcpu"]
        if kind.startswith("slot_"):
            self._slots.apply(kind, change["ipa"] or 0, change["size"] or 0, change["value"] or 0)
        elif kind == "attribute_set" and vcpu is not None and change["ipa"] is not None:
            self._place(Placed(change["position"], change["sequence"], change["vtime_ns"], vcpu, change["ipa"]))
        elif (
            kind == "restore" and vcpu is None and not self._places.is_assumed
        ):  # new vCPUs: nothing is registered until the VMM does it again
            for one, ipa in self._bases.items():
                self._old.setdefault(one, set()).add(ipa)
            self._bases.clear()
        elif kind in ("reset", "kexec"):
            for one in range(self._places.vcpu_count) if vcpu is None else (vcpu,):
                self._gone[one] = kind
        elif kind == "st":
            self._gone.pop(vcpu, None)

    def _place(self, placed: Placed) -> None:
        vcpu, ipa = placed.vcpu, placed.ipa
        if vcpu in self._bases:
            self._old.setdefault(vcpu, set()).add(self._bases[vcpu])
        others = {other: base for other, base in self._bases.items() if other != vcpu}
        self._bases[vcpu] = ipa
        found = f"vCPU {vcpu}: {ipa:#x}"
        if ipa % STRUCTURE_SIZE:
            self._say("M1", placed, f"a structure that is aligned to {STRUCTURE_SIZE} bytes", found)
        for other, base in others.items():
            if abs(base - ipa) < STRUCTURE_SIZE:
                self._say("M2", placed, "a structure of its own", f"{found}, where vCPU {other} has one at {base:#x}")
                break
        else:
            if ipa % PAGE_SIZE > PAGE_SIZE - STRUCTURE_SIZE:
                self._say("M2", placed, "a structure in one page", f"{found}, over the end of one")
        trouble = self._misplaced(ipa)
        if trouble is not None:
            self.misplaced.add(vcpu)
            self._say("M6", placed, "a structure in memory that is nothing else's, in one slot", f"{found} lies {trouble}")

    def _misplaced(self, ipa: int) -> str | None:
        """What the structure collides with."""
        machine, end = self._machine, ipa + STRUCTURE_SIZE

        def meets(begin: int, size: int) -> bool:
            return ipa < begin + size and begin < end

        for name, begin, size in DEVICES:
            if meets(begin, size):
                return f"on {name}"
        for segment in machine.get("segments", []):
            if meets(int(segment["ipa"]), int(segment["size"])):
                return f"on an image that was loaded at {int(segment['ipa']):#x}"
        begin, size, reserved = int(machine.get("ram_base", 0)), int(machine.get("ram_size", 0)), machine.get("reserved")
        if reserved is not None and meets(begin, size):
            if not any(int(at) <= ipa and end <= int(at) + int(length) for at, length in reserved):
                return "in RAM that the guest may use"
        if self._slots.is_told and not any(at <= ipa and end <= upto for at, (upto, _) in self._slots.known.items()):
            return "in no single slot"
        return None

    def _say(self, invariant: str, placed: Placed, expected: str, found: str) -> None:
        place = placed.position, placed.sequence, placed.vtime_ns, placed.vcpu
        self._tally.note(Finding(invariant, "directives", *place, expected, found, 1))

    # --- stores --------------------------------------------------------------------------------------------------------------------

    def _check(self, stores: pl.DataFrame) -> None:
        """Stores between two changes."""
        if not stores.height:
            return
        bases = pl.DataFrame({"vcpu": list(self._bases), "base": list(self._bases.values())}, schema=_BASES)
        rows = stores.join(bases, on="vcpu", how="left", maintain_order="left").with_columns(pl.col("size").cast(pl.UInt64))
        inside = (pl.col("ipa") >= pl.col("base")) & (pl.col("ipa") + pl.col("size") <= pl.col("base") + STRUCTURE_SIZE)
        rows = rows.with_columns(
            is_inside=inside.fill_null(False), is_old=self._is_old(), why_not=self._why_not(rows), gone=self._gone_there()
        )
        what = "{size} bytes at {ipa:#x} by vCPU {vcpu}"
        strays = ~pl.col("is_inside") & pl.col("gone").is_null()
        registered = "a store into this vCPU's structure"
        self._add("L5", rows, strays & pl.col("is_old"), registered, what + ", where it was before")
        self._add("M5", rows, strays & ~pl.col("is_old"), registered, what + ", where none of it is")
        self._add("L5", rows, pl.col("gone").is_not_null(), "no store between {gone} and the next PV_TIME_ST", what)
        is_refused = pl.col("is_inside") & pl.col("why_not").is_not_null()
        self._add("M5", rows, is_refused, "a store into a slot that can be written", what + ", in {why_not}")
        total, end = pl.col("base") + 8, pl.col("ipa") + pl.col("size")
        is_whole = (pl.col("ipa") == total) & (pl.col("size") == 8)
        reaches = (pl.col("ipa") < total + 8) & (end > total)
        is_update = (pl.col("cause") == "pvtime") | ((pl.col("cause") == "fault") & reaches)
        self._add("M3", rows, pl.col("is_inside") & is_update & ~is_whole, "one store of 8 bytes, 8 after {base:#x}", what)

    def _add(self, invariant: str, rows: pl.DataFrame, where: pl.Expr, expected: str, found: str) -> None:
        self._tally.add(invariant, "memory_writes", rows.filter(where.fill_null(False)), expected, found)

    def _is_old(self) -> pl.Expr:
        out = pl.lit(False)
        for vcpu, ipas in self._old.items():
            for ipa in sorted(ipas - {self._bases.get(vcpu, -1)}):
                out = out | ((pl.col("vcpu") == vcpu) & pl.col("ipa").is_between(ipa, ipa + STRUCTURE_SIZE - 1))
        return out

    def _why_not(self, rows: pl.DataFrame) -> pl.Series:
        """Of each store, why the slots forbid it; null: they do not."""
        if not self._slots.is_told:
            return pl.Series([None] * rows.height, dtype=pl.String)
        places = rows.select("ipa", "size").unique()
        reasons = [self._slots.why_not(int(ipa), int(size)) for ipa, size in places.iter_rows()]
        known = places.with_columns(why_not=pl.Series(reasons, dtype=pl.String))
        return rows.select("ipa", "size").join(known, on=["ipa", "size"], how="left", maintain_order="left")["why_not"]

    def _gone_there(self) -> pl.Expr:
        """Since what nobody listens to the structure that a store goes to; null: somebody does, or it is none."""
        out = pl.lit(None, pl.String)
        for vcpu, kind in self._gone.items():
            if vcpu in self._bases:
                ipa = self._bases[vcpu]
                out = pl.when(pl.col("ipa").is_between(ipa, ipa + STRUCTURE_SIZE - 1)).then(pl.lit(kind)).otherwise(out)
        return out


_BASES = {"vcpu": pl.UInt16, "base": pl.UInt64}


def _parts(stores: pl.DataFrame, changes: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, dict[str, Any] | None]]:
    """The stores before each change, in order, and after the last."""
    for change in changes.iter_rows(named=True):
        position, sequence = change["position"], change["sequence"]
        is_before = (pl.col("position") < position) | ((pl.col("position") == position) & (pl.col("sequence") < sequence))
        part = stores.filter(is_before)
        yield part, change
        stores = stores[part.height :]
    yield stores, None
