"""A trace's tables in windows of bounded size, cut at one (position, sequence) for all of them. Every batch is verified as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

WINDOW_ROWS = 1 << 18
KEY = ("position", "sequence")
_NEVER = (1 << 64, 0)


@dataclass(frozen=True, slots=True)
class Want:
    """What is read of a table: some columns besides the four common ones, and only rows that `where` holds for."""

    columns: tuple[str, ...] = ()
    where: pl.Expr | None = None


@dataclass(slots=True)
class _Stream:
    """One table: batches that were read but not yet handed out."""

    name: str
    want: Want
    count: int
    index: int = 0
    frames: list[pl.DataFrame] = field(default_factory=list)
    reached: tuple[int, int] = (-1, 0)

    @property
    def rows(self) -> int:
        return sum(frame.height for frame in self.frames)

    def read(self, trace: Trace) -> None:
        """One more batch."""
        entry = trace.manifest["tables"][self.name]["batches"][self.index]
        frame = frame_of(trace.batch(self.name, self.index), self.name, self.want)
        self.index += 1
        self.frames.append(frame)
        self.reached = (entry["position"][1], entry["sequence"][1]) if self.index < self.count else _NEVER

    def take(self, bound: tuple[int, int]) -> pl.DataFrame:
        """The rows up to a place; the rest stays."""
        frame = pl.concat(self.frames) if self.frames else empty(self.name, self.want)
        if bound == _NEVER:
            self.frames = []
            return frame
        position, sequence = bound
        is_before = (pl.col("position") < position) | ((pl.col("position") == position) & (pl.col("sequence") <= sequence))
        taken = frame.filter(is_before)
        self.frames = [frame[taken.height :]] if taken.height < frame.height else []
        return taken


def frame_of(batch: object, table: str, want: Want) -> pl.DataFrame:
    """A verified Arrow batch as a frame: text columns as strings."""
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    names = [*(column.name for column in TABLES[table].columns[:4]), *want.columns]
    text = {column.name for column in TABLES[table].columns if column.type == "text"}
    frame = frame.select(pl.col(name).cast(pl.String) if name in text else pl.col(name) for name in names)
    return frame if want.where is None else frame.filter(want.where)


def frames(trace: Trace, table: str, want: Want) -> Iterator[pl.DataFrame]:
    """A table batch by batch; first a frame without rows. Errors: TraceDamaged."""
    yield empty(table, want)
    for batch in trace.batches(table):
        yield frame_of(batch, table, want)


def empty(table: str, want: Want) -> pl.DataFrame:
    """No rows, right types."""
    kinds = {"u8": pl.UInt8, "u16": pl.UInt16, "u32": pl.UInt32, "u64": pl.UInt64, "i32": pl.Int32, "text": pl.String}
    columns = {column.name: kinds.get(column.type, pl.Binary) for column in TABLES[table].columns}
    names = [*list(columns)[:4], *want.columns]
    return pl.DataFrame(schema={name: columns[name] for name in names})


def merged(*wants: Mapping[str, Want]) -> dict[str, Want]:
    """What several readers want together: all their columns, and every row that one of them wants."""
    out: dict[str, Want] = {}
    for one in wants:
        for table, want in one.items():
            if table not in out:
                out[table] = want
                continue
            before = out[table]
            where = None if before.where is None or want.where is None else before.where | want.where
            out[table] = Want(tuple(dict.fromkeys((*before.columns, *want.columns))), where)
    return out


def windows(trace: Trace, wants: Mapping[str, Want], rows: int = WINDOW_ROWS) -> Iterator[dict[str, pl.DataFrame]]:
    """Every wanted row once, in windows of about `rows` rows; within a window all tables reach the same place.

    Errors: TraceDamaged.
    """
    streams = [_Stream(name, want, len(trace.manifest["tables"][name]["batches"])) for name, want in wants.items()]
    for stream in streams:
        if not stream.count:
            stream.reached = _NEVER
    while True:
        read = 0
        while open_ := [stream for stream in streams if stream.index < stream.count]:
            behind = min(open_, key=lambda stream: stream.reached)
            if read and behind.reached != (-1, 0) and sum(stream.rows for stream in streams) >= rows:
                break
            behind.read(trace)
            read += 1
        bound = min(stream.reached for stream in streams)
        yield {stream.name: stream.take(bound) for stream in streams}
        if bound == _NEVER:
            return
