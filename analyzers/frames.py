"""A trace's tables as LazyFrames: verified batches, and of those only the ones that a predicate can hold in.

Position, virtual time and, of several runs, their names are compared with the manifests before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars import DataFrame, LazyFrame
from polars.io.plugins import register_io_source

from tracekit.analyzers.pruning import conjuncts, might_hold
from tracekit.formats.reader import FolderStore, Trace
from tracekit.formats.tables import TABLES

__all__ = ["RUN", "DataFrame", "LazyFrame", "Run", "labelled", "scan", "scan_runs", "schema"]
RUN = "run"
_KINDS: dict[str, pl.DataType | type[pl.DataType]] = {
    "u8": pl.UInt8, "u16": pl.UInt16, "u32": pl.UInt32, "u64": pl.UInt64, "i32": pl.Int32, "text": pl.String,
    "binary": pl.Binary, "digest": pl.Binary,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One of several runs: its name in the `run` column, and how its trace is had while its rows are read."""

    name: str
    open: Callable[[], AbstractContextManager[Trace]]


def schema(table: str) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Columns and types of a table's frame: those of SPEC 5, text as String. Errors: KeyError."""
    return {column.name: _KINDS[column.type] for column in TABLES[table].columns}


def scan(trace: Trace, table: str, *, is_verified: bool = True) -> pl.LazyFrame:
    """A table as a LazyFrame; columns as in `schema`, sorted by (position, sequence).

    Batches are read when the frame is collected, their hashes checked; those that a filter on position or vtime_ns excludes are not touched.
    is_verified False: the Arrow file of an unpacked trace is scanned as it is, without looking at any hash.
    Errors, when collected: TraceDamaged.
    """
    if not is_verified and isinstance(trace.store, FolderStore):
        file: Path = trace.store.path / TABLES[table].file
        text = [column.name for column in TABLES[table].columns if column.type == "text"]
        return pl.scan_ipc(file).with_columns(pl.col(name).cast(pl.String) for name in text)

    def read(columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None) -> Iterator[pl.DataFrame]:
        return _limited(_read(trace, table, columns, predicate), rows)

    return register_io_source(read, schema=schema(table), is_pure=True)


def scan_runs(runs: Sequence[Run], table: str) -> pl.LazyFrame:
    """The same table of several runs below each other, with a leading column `run`; one trace is open at a time.

    A filter on `run` leaves the other traces closed.
    """

    def read(columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None) -> Iterator[pl.DataFrame]:
        return _limited(_read_runs(runs, table, columns, predicate), rows)

    return register_io_source(read, schema={RUN: pl.String, **schema(table)}, is_pure=True)


def _limited(frames: Iterator[pl.DataFrame], rows: int | None) -> Iterator[pl.DataFrame]:
    for frame in frames:
        if rows is not None:
            frame = frame.head(rows)
            rows -= frame.height
        yield frame
        if rows == 0:
            return


def _read(
    trace: Trace, table: str, columns: list[str] | None, predicate: pl.Expr | None, run: str | None = None
) -> Iterator[pl.DataFrame]:
    """What is asked of a trace's table, batch by batch."""
    can_hold = might_hold(predicate)
    for index, entry in enumerate(trace.manifest["tables"][table]["batches"]):
        if can_hold({name: (entry[name][0], entry[name][1]) for name in ("position", "vtime_ns")}):
            yield _asked(trace.batch(table, index), table, columns, predicate, run)


def _read_runs(runs: Sequence[Run], table: str, columns: list[str] | None, predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
    of_run = [part for part in conjuncts(predicate) if set(part.meta.root_names()) == {RUN}]
    names = pl.DataFrame({RUN: [run.name for run in runs]}, schema={RUN: pl.String})
    asked_for = set(names.filter(*of_run)[RUN]) if of_run else None
    for run in runs:
        if asked_for is None or run.name in asked_for:
            with run.open() as trace:
                yield from _read(trace, table, columns, predicate, run.name)


def _asked(batch: Any, table: str, columns: list[str] | None, predicate: pl.Expr | None, run: str | None) -> pl.DataFrame:
    """The rows and columns of a batch that are asked for."""
    types = schema(table)
    wanted = [*types] if columns is None else columns
    needed = {*wanted, *(predicate.meta.root_names() if predicate is not None else ())}
    frame = pl.from_arrow(batch.select([name for name in types if name in needed]))
    assert isinstance(frame, pl.DataFrame)
    if not frame.width:  # only rows are counted, or only `run` is asked for
        frame = pl.DataFrame({"position": pl.repeat(0, batch.num_rows, dtype=pl.UInt64, eager=True)})
    text = [name for name, kind in types.items() if kind == pl.String and name in frame.columns]
    frame = frame.with_columns(pl.col(text).cast(pl.String))
    if run is not None:
        frame = frame.select(pl.lit(run).alias(RUN), pl.all())
        wanted = [RUN, *wanted] if columns is None else wanted
    if predicate is not None:
        frame = frame.filter(predicate)
    return frame.select(wanted)


def labelled(parts: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """Frames below each other, each row led by the name of its run; a column that one of them lacks is null there."""
    frames = [frame.select(pl.lit(name, pl.String).alias(RUN), pl.all()) for name, frame in parts]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(schema={RUN: pl.String})
