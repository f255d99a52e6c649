"""One table of two traces: what is the same without being read, and what has to be aligned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracekit.analyzers.align import COLUMNS, Budget, Item, Lane
from tracekit.analyzers.difference import Counts
from tracekit.analyzers.fingerprint import Shape, fingerprints
from tracekit.formats.reader import Trace
from tracekit.formats.tables import THICK_SEQUENCE

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Which rows are compared: those before `end` (position, sequence), of every capture level or of the thin one only."""

    end: Place | None = None
    is_thin: bool = False

    def keeps_all(self, batch: dict[str, Any]) -> bool:
        """Whether no row of a batch is left out, by its ranges in the manifest."""
        return not self.is_thin and (self.end is None or (batch["position"][1], batch["sequence"][1]) < self.end)

    def has(self, place: Place) -> bool:
        """Whether a row at this place is compared."""
        return (self.end is None or place < self.end) and not (self.is_thin and place[1] >= THICK_SEQUENCE)

    def keep(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows to compare."""
        if self.is_thin:
            frame = frame.filter(pl.col("sequence") < THICK_SEQUENCE)
        if self.end is not None:
            position, sequence = self.end
            is_at = (pl.col("position") == position) & (pl.col("sequence") < sequence)
            frame = frame.filter((pl.col("position") < position) | is_at)
        return frame


@dataclass(slots=True)
class Paired:
    """What came of a table. items: those of `align.Lane`, by lane."""

    counts: Counts = field(default_factory=Counts)
    items: list[Item] = field(default_factory=list)
    is_coarse: bool = False
    batches_read: int = 0

    def mirrored(self) -> Paired:
        """A and B exchanged."""
        counts, names = self.counts, {"only_a": "only_b", "only_b": "only_a"}
        items = [(names.get(kind, kind), other, at) for kind, at, other in self.items]
        swapped = Counts(counts.same, counts.moved, counts.changed, counts.only_b, counts.only_a)
        return Paired(swapped, items, self.is_coarse, self.batches_read)


class _Reader:
    """A table's batches from the first to the last."""

    def __init__(self, trace: Trace, shape: Shape, limits: Limits) -> None:
        self.trace, self.shape, self.limits = trace, shape, limits
        self.entry = trace.manifest["tables"][shape.table]
        self.index = 0
        self.rows = 0

    @property
    def batch(self) -> dict[str, Any] | None:
        """The next batch in the manifest; None behind the last one, or where the rest is not compared."""
        batches = self.entry["batches"]
        if self.index >= len(batches):
            return None
        batch: dict[str, Any] = batches[self.index]
        end = self.limits.end
        return batch if end is None or (batch["position"][0], batch["sequence"][0]) < end else None

    def skip(self) -> int:
        """Pass over a batch; gives its rows."""
        batch = self.batch
        assert batch is not None
        self.index += 1
        self.rows += batch["rows"]
        return int(batch["rows"])

    def read(self) -> pl.DataFrame:
        """The fingerprints of a batch. Errors: TraceDamaged."""
        before, index = self.rows, self.index
        self.skip()
        return self.limits.keep(fingerprints(self.trace.batch(self.shape.table, index), self.shape, before))


def pair(a: Trace, b: Trace, shape: Shape, limits: Limits, limit: int, budget: Budget) -> Paired:
    """Compare a table. Batches whose hashes agree are not read while both sides stand at the same row.

    limit: how many items are kept of each lane and kind. The outcome does not depend on which trace is A. Errors: TraceDamaged.
    """
    if a.manifest["digest"] > b.manifest["digest"]:
        return pair(b, a, shape, limits, limit, budget).mirrored()
    left, right = _Reader(a, shape, limits), _Reader(b, shape, limits)
    has_same_prelude = left.entry["prelude"] == right.entry["prelude"]
    lanes: dict[int, Lane] = {}
    out = Paired()
    while left.batch or right.batch:
        is_even = has_same_prelude and all(lane.is_empty for lane in lanes.values())
        if is_even and _agree(left.batch, right.batch, limits):
            out.counts += Counts(same=left.skip())
            right.skip()
            continue
        ready = [reader for reader in (left, right) if reader.batch is not None]
        behind = min(reader.rows for reader in ready)
        for reader in ready:
            if reader.rows == behind:
                out.batches_read += 1
                for number, frame in _by_lane(reader.read()):
                    lane = lanes.setdefault(number, Lane(budget, limit, has_places="position" in shape.whole))
                    (lane.a if reader is left else lane.b).append(frame)
        for lane in lanes.values():
            lane.advance(is_final=False)
    for lane in lanes.values():
        lane.advance(is_final=True)
        out.counts += lane.counts
        out.items += [item for items in lane.items.values() for item in items]
        out.is_coarse |= lane.is_coarse
    return out


def _agree(a: dict[str, Any] | None, b: dict[str, Any] | None, limits: Limits) -> bool:
    if a is None or b is None or a["sha256"] != b["sha256"] or a["length"] != b["length"] or a["rows"] != b["rows"]:
        return False
    return limits.keeps_all(a)


def _by_lane(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    for part in frame.partition_by("lane", maintain_order=True):
        yield int(part["lane"][0]), part.select(COLUMNS)
