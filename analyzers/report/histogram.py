"""Counts of values in bins of 1, 2, 5, 10, 20, 50, ... ns."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tracekit.analyzers.report.wording import duration


@dataclass(frozen=True, slots=True)
class Bin:
    """count values of [from_ns, to_ns); 0 has a bin of its own."""

    from_ns: int
    to_ns: int
    count: int

    @property
    def label(self) -> str:
        """Its lower end, as people write it."""
        return "0" if self.to_ns == 1 else duration(self.from_ns)

    @property
    def text(self) -> str:
        """The whole bin."""
        return "0 ns" if self.to_ns == 1 else f"{duration(self.from_ns)} to {duration(self.to_ns)}"


_STEPS = (1, 2, 5)
EDGES = [0, *(step * 10**power for power in range(18) for step in _STEPS)]


def histogram(counts: pl.DataFrame) -> list[Bin]:
    """counts: value i64 (not negative), count i64. The bin of 0 where there are zeros, then from the first other bin that is not empty to the
    last one; [] without values."""
    index = pl.Series(EDGES, dtype=pl.Int64).search_sorted(counts["value"], "right").cast(pl.Int64) - 1
    by_bin = dict(counts.with_columns(bin=index).group_by("bin").agg(pl.col("count").sum()).iter_rows())
    ends = [*EDGES[1:], 1 << 62]
    others = sorted(one for one in by_bin if one)
    wanted = [*([0] if 0 in by_bin else []), *(range(others[0], others[-1] + 1) if others else ())]
    return [Bin(EDGES[one], ends[one], by_bin.get(one, 0)) for one in wanted]


def aligned(*bins: list[Bin]) -> list[list[Bin]]:
    """The same bins for several histograms, so that they can be compared by eye."""
    every = sorted({(one.from_ns, one.to_ns) for row in bins for one in row})
    others = [one for one in every if one[1] > 1]
    ends = [*EDGES[1:], 1 << 62]
    span = [one for one in zip(EDGES, ends, strict=True) if others and others[0][0] <= one[0] <= others[-1][0]]
    wanted = [*(one for one in every if one[1] == 1), *span]
    out = []
    for row in bins:
        counts = {one.from_ns: one.count for one in row}
        out.append([Bin(*edges, counts.get(edges[0], 0)) for edges in wanted])
    return out
