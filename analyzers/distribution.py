"""How values are spread, in bounded memory."""

from __future__ import annotations

import polars as pl

EXACT_MAX = 1 << 16
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_SCHEMA = {"value": pl.Int64, "count": pl.Int64}


class Distribution:
    """Counts of non-negative values. With more than EXACT_MAX different ones they are cut to three significant digits."""

    def __init__(self) -> None:
        self._counts = pl.DataFrame(schema=_SCHEMA)
        self.is_exact = True

    def add(self, values: pl.Series) -> None:
        """More values (i64)."""
        new = values.drop_nulls().abs().alias("value").to_frame().group_by("value").len("count").select(pl.all().cast(pl.Int64))
        self._counts = self._merge(pl.concat([self._counts, new]))
        if self._counts.height > EXACT_MAX:
            self.is_exact = False
            digits = (pl.col("value").clip(lower_bound=1).log10().floor() - 2).clip(lower_bound=0).cast(pl.Int64)
            step = pl.lit(10, pl.Int64).pow(digits)
            self._counts = self._merge(self._counts.with_columns(value=pl.col("value") // step * step))

    @staticmethod
    def _merge(counts: pl.DataFrame) -> pl.DataFrame:
        return counts.group_by("value").agg(pl.col("count").sum()).sort("value")

    @property
    def counts(self) -> pl.DataFrame:
        """Every value and how often it came. columns: value i64, count i64; sorted by value."""
        return self._counts

    @property
    def count(self) -> int:
        """How many values there were."""
        return int(self._counts["count"].sum())

    def percentiles(self) -> dict[str, int]:
        """The least value that so many per cent do not exceed, and the greatest; {} without values."""
        if not self.count:
            return {}
        total, reached = self.count, self._counts["count"].cum_sum()
        out = {}
        for percent in PERCENTILES:
            index = reached.search_sorted(int(-(-total * percent // 100)))
            out[f"p{percent:g}"] = int(self._counts["value"][int(index)])
        return {**out, "max": int(self._counts["value"][-1])}
