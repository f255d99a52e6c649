"""Rows as numbers that are equal where rows are: whole, without their place, and by the kind of event only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.formats.tables import TABLES

PLACE = ("position", "sequence", "vtime_ns")
NOBODY = -1  # the lane of rows without a vCPU
# What tells one kind of event from another: rows that agree in these and not in the rest are *changed*.
KIND_COLUMNS: dict[str, tuple[str, ...]] = {
    "schedule": ("event",),
    "directives": ("kind",),
    "hypercalls": ("pc", "function_id"),
    "memory_writes": ("origin", "ipa", "pc", "cause"),
    "memory_reads": ("origin", "ipa", "pc"),
    "pvtime": ("event", "ipa"),
    "interrupts": ("event", "intid"),
    "console": (),
    "inputs": ("source",),
    "states": ("scope",),
    "blocks": ("pc",),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Which columns of a table are compared. lane: rows of one thread or vCPU keep their order, between lanes it may change; None: one lane."""

    table: str
    lane: str | None
    whole: tuple[str, ...]
    content: tuple[str, ...]
    kind: tuple[str, ...]


def shape_of(table: str, ignore: Iterable[str] = (), *, has_same_guest: bool = True, has_same_threads: bool = True) -> Shape:
    """What is compared of a table.

    Two guests have other addresses of code: there `pc` does not tell kinds apart. With other numbers of vCPUs, threads have other numbers:
    then `thread` is not compared.
    """
    left_out = set(ignore) | (set() if has_same_threads else {"thread"})
    names = tuple(column.name for column in TABLES[table].columns if column.name not in left_out)
    lane = "thread" if table == "schedule" and has_same_threads else "vcpu"
    kind = (name for name in KIND_COLUMNS[table] if name not in left_out and (has_same_guest or name != "pc"))
    content = tuple(name for name in names if name not in (*PLACE, "vcpu", lane))
    return Shape(table, None if lane in left_out else lane, names, content, tuple(kind))


def fingerprints(batch: Any, shape: Shape, first_row: int) -> pl.DataFrame:
    """One row for each of a verified Arrow batch.

    columns: lane i64, row u64 (number in the table, from first_row), position u64, sequence u32, whole u64, content u64, kind u64
    (64-bit hashes: equal numbers are taken for equal rows).
    """
    columns = {}
    for index, column in enumerate(TABLES[shape.table].columns):
        array = batch.column(index)
        columns[column.name] = pl.Series(column.name, pl.from_arrow(array.indices if column.type == "text" else array))
    frame = pl.DataFrame(columns)
    return pl.DataFrame(
        {
            "lane": _lane(frame, shape),
            "row": pl.int_range(first_row, first_row + frame.height, dtype=pl.UInt64, eager=True),
            "position": frame["position"],
            "sequence": frame["sequence"],
            "whole": _hashes(frame, shape.whole),
            "content": _hashes(frame, shape.content),
            "kind": _hashes(frame, shape.kind),
        }
    )


def _lane(frame: pl.DataFrame, shape: Shape) -> pl.Series:
    if shape.lane is None:
        return pl.repeat(NOBODY, frame.height, dtype=pl.Int64, eager=True)
    return frame[shape.lane].cast(pl.Int64).fill_null(NOBODY)


def _hashes(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.Series:
    if not names:
        return pl.repeat(0, frame.height, dtype=pl.UInt64, eager=True)
    return frame.select(names).hash_rows(seed=0)
