"""How values are spread for each of many keys, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

EXACT_MAX = 1 << 18
PERCENTILES = (50, 90, 99)


class Spreads:
    """Counts of non-negative values under keys. With more than EXACT_MAX different ones in all, they are cut to three significant digits."""

    def __init__(self, keys: Mapping[str, pl.DataType | type[pl.DataType]]) -> None:
        self._keys = list(keys)
        self._counts = pl.DataFrame(schema={**keys, "value": pl.Int64, "count": pl.Int64, "total": pl.Int128})
        self.is_exact = True

    def add(self, rows: pl.DataFrame, value: str) -> None:
        """The values of a column, under the rows' keys; nulls are none."""
        one = rows.select(*self._keys, pl.col(value).cast(pl.Int64).alias("value")).drop_nulls("value")
        new = one.group_by(*self._keys, "value").agg(
            pl.len().cast(pl.Int64).alias("count"), pl.col("value").cast(pl.Int128).sum().alias("total")
        )
        self._counts = self._merged(pl.concat([self._counts, new.select(self._counts.columns)]))
        if self._counts.height > EXACT_MAX:
            self.is_exact = False
            digits = (pl.col("value").clip(lower_bound=1).log10().floor() - 2).clip(lower_bound=0).cast(pl.Int64)
            step = pl.lit(10, pl.Int64).pow(digits)
            self._counts = self._merged(self._counts.with_columns(value=pl.col("value") // step * step))

    def _merged(self, counts: pl.DataFrame) -> pl.DataFrame:
        return counts.group_by(*self._keys, "value", maintain_order=True).agg(pl.col("count", "total").sum())

    def percentiles(self, prefix: str, unit: str) -> pl.DataFrame:
        """One row for each key that has values.

        columns: the keys; {prefix}s i64: how many values; {prefix}_total{unit}, {prefix}_p50{unit}, _p90, _p99, _max i64: their sum, the least
        value that so many per cent do not exceed, and the greatest.
        """
        counts = self._counts.sort(*self._keys, "value", nulls_last=True)
        reached = counts.with_columns(
            reached=pl.col("count").cum_sum().over(self._keys), all=pl.col("count").sum().over(self._keys)
        )
        return reached.group_by(self._keys, maintain_order=True).agg(
            pl.col("count").sum().alias(f"{prefix}s"),
            pl.col("total").sum().cast(pl.Int64).alias(f"{prefix}_total{unit}"),
            *(
                pl.col("value")
                .filter(pl.col("reached") * 100 >= pl.col("all") * percent)
                .first()
                .alias(f"{prefix}_p{percent}{unit}")
                for percent in PERCENTILES
            ),
            pl.col("value").last().alias(f"{prefix}_max{unit}"),
        )
