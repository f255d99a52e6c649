"""Where the structures lie: registrations as `directives` tells them. Spec: formats/SPEC.md 5, docs/pvtime.md 2."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.analyzers.source import KEY, Want, frames
from tracekit.formats.reader import Trace

STRUCTURE_SIZE = 64
PAGE_SIZE = 4096
_OWNERS = {"ipa": pl.UInt64, "vcpu": pl.UInt16}


@dataclass(frozen=True, slots=True)
class Placed:
    """A vCPU's structure lies at `ipa` from (position, sequence) on."""

    position: int
    sequence: int
    vtime_ns: int
    vcpu: int
    ipa: int


class Places:
    """Every registration of a trace. is_assumed: it tells of none, so they are taken from the manifest."""

    def __init__(self, vcpu_count: int, placed: Iterable[Placed], is_assumed: bool = False) -> None:
        self.vcpu_count = vcpu_count
        self.is_assumed = is_assumed
        self.placed = tuple(one for one in placed if one.vcpu < vcpu_count)
        cells = {(one.ipa // STRUCTURE_SIZE + step, one.ipa, one.vcpu) for one in self.placed for step in (-1, 0, 1)}
        self.cells = {cell for cell, _, _ in cells if cell >= 0}
        first: dict[int, int] = {}
        for one in self.placed:
            first[one.ipa] = min(one.vcpu, first.get(one.ipa, one.vcpu))
        self.owners = pl.DataFrame({"ipa": list(first), "vcpu": list(first.values())}, schema=_OWNERS)
        self.owners_of_cells = pl.DataFrame(
            sorted(one for one in cells if one[0] >= 0),
            schema={"cell": pl.UInt64, "begin": pl.UInt64, "vcpu": pl.UInt16}, orient="row",
        )  # fmt: skip
        bases = {(one.vcpu, one.position): one.ipa for one in self.placed}  # of several at one position the last one holds
        rows = [(vcpu, position, ipa) for (vcpu, position), ipa in bases.items()]
        self._bases = pl.DataFrame(rows, schema={"vcpu": pl.UInt16, "position": pl.UInt64, "base": pl.UInt64}, orient="row").sort(
            "position", maintain_order=True
        )
        self._has_moved = len({(vcpu, ipa) for vcpu, _, ipa in rows}) > len({vcpu for vcpu, _, _ in rows})

    def with_base(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows, sorted by position, with `base` u64?: where their vCPU's structure is registered then."""
        if not self._has_moved:
            return rows.join(self._bases.select("vcpu", "base").unique(), on="vcpu", how="left", maintain_order="left")
        return rows.join_asof(self._bases, on="position", by="vcpu", check_sortedness=False)

    def shared(self) -> set[int]:
        """vCPUs whose structure overlaps another's at some time."""
        current: dict[int, int] = {}
        found: set[int] = set()
        for one in self.placed:
            current[one.vcpu] = one.ipa
            others = {vcpu for vcpu, ipa in current.items() if vcpu != one.vcpu and abs(ipa - one.ipa) < STRUCTURE_SIZE}
            found |= others | ({one.vcpu} if others else set())
        return found


def places_of(trace: Trace) -> Places:
    """The registrations of a trace: attribute_set rows that succeeded; without any, the manifest's structures from the beginning.

    Errors: TraceDamaged.
    """
    machine: dict[str, Any] = trace.manifest.get("machine", {})
    rows = pl.concat(frames(trace, "directives", Want(("kind", "ipa", "result"), pl.col("kind") == "attribute_set")))
    done = rows.filter(pl.col("result").fill_null(0) == 0, pl.col("vcpu").is_not_null(), pl.col("ipa").is_not_null())
    placed = [Placed(*row) for row in done.select(*KEY, "vtime_ns", "vcpu", "ipa").iter_rows()]
    structures = machine.get("pv_structures", [])
    count = int(machine.get("vcpus", 0)) or 1 + max((one.vcpu for one in placed), default=0)
    if not rows.height and len(structures) == count:
        return Places(count, [Placed(0, 0, 0, vcpu, int(ipa)) for vcpu, ipa in enumerate(structures)], is_assumed=True)
    return Places(count, placed)
