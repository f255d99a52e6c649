"""Which part of a trace is exported."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import polars as pl

from tracekit.formats.errors import InputError


@dataclass(frozen=True, slots=True)
class Window:
    """Rows with from_position <= position < to_position and from_ns <= vtime < to_ns; None: no bound. Errors: InputError when it is empty."""

    from_position: int = 0
    to_position: int | None = None
    from_ns: int = 0
    to_ns: int | None = None

    def __post_init__(self) -> None:
        for what, first, end in (("position", self.from_position, self.to_position), ("vtime", self.from_ns, self.to_ns)):
            if end is not None and end <= first:
                raise InputError(f"no {what} lies between {first} and {end}; the end of a window is left out")

    @property
    def holds(self) -> pl.Expr:
        """Whether a row lies in it (columns position, vtime_ns)."""
        position, vtime = pl.col("position"), pl.col("vtime_ns")
        return self.begins_before("position", "vtime_ns") & (position >= self.from_position) & (vtime >= self.from_ns)

    def begins_before(self, position: str, vtime_ns: str) -> pl.Expr:
        """Whether a row comes before its end, by these columns."""
        expression = pl.lit(True)
        if self.to_position is not None:
            expression = expression & (pl.col(position) < self.to_position)
        if self.to_ns is not None:
            expression = expression & (pl.col(vtime_ns) < self.to_ns)
        return expression

    @property
    def overlaps(self) -> pl.Expr:
        """Whether an interval (position, start_ns, end_position, end_ns) has a part in it or ends at its begin."""
        is_late_enough = (pl.col("end_position") >= self.from_position) & (pl.col("end_ns") >= self.from_ns)
        return self.begins_before("position", "start_ns") & is_late_enough

    def is_past(self, position: int) -> bool:
        """Whether nothing of it comes behind this position."""
        return self.to_position is not None and position >= self.to_position

    def touches(self, positions: list[int], vtimes_ns: list[int]) -> bool:
        """Whether a batch with this first and last position, least and greatest vtime may have rows in it."""
        if positions[1] < self.from_position or vtimes_ns[1] < self.from_ns or self.is_past(positions[0]):
            return False
        return self.to_ns is None or vtimes_ns[0] < self.to_ns

    def as_json(self) -> dict[str, int | None]:
        """Plain values."""
        return asdict(self)
