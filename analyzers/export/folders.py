"""Tables as files: Parquet for lakes, CSV for everything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from tracekit.analyzers.export.output import INDEX
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.source import Want, empty, frame_of
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

FORMAT, VERSION = "tracekit-export", 1
PART_ROWS = 64 * 65_536  # of a Parquet file
Tell = Callable[[int, int], None]


def batches(trace: Trace, table: str, window: Window) -> Iterator[Any]:
    """Verified batches that may have rows in a window. Errors: TraceDamaged."""
    for index, entry in enumerate(trace.manifest["tables"][table]["batches"]):
        if window.touches(entry["position"], entry["vtime_ns"]):
            yield trace.batch(table, index)


def write_parquet(trace: Trace, folder: Path, run: str, tables: Sequence[str], window: Window, tell: Tell) -> dict[str, int]:
    """TABLE/run=RUN/part-00000.parquet for each table; gives the rows of each.

    Row groups have at most 65,536 rows, files at most 64 row groups; a table without rows is one file without row groups.
    """
    from tracekit.formats.parquet import ParquetFile, within

    bounds = (window.from_position, window.to_position, window.from_ns, window.to_ns)
    counts = {}
    for table in tables:
        home = folder / table / f"run={quote(run, safe='')}"
        home.mkdir(parents=True)
        part, number, rows = ParquetFile(str(home / "part-00000.parquet"), table), 0, 0
        for batch in batches(trace, table, window):
            tell(batch.column(0)[0].as_py(), batch.column(2)[0].as_py())
            left = within(batch, *bounds)
            while left.num_rows:
                if part.rows == PART_ROWS:
                    part.close()
                    number += 1
                    part = ParquetFile(str(home / f"part-{number:05}.parquet"), table)
                piece = left.slice(0, PART_ROWS - part.rows)
                part.write(piece)
                rows += piece.num_rows
                left = left.slice(piece.num_rows)
        part.close()
        counts[table] = rows
    return counts


def write_csv(trace: Trace, folder: Path, run: str, tables: Sequence[str], window: Window, tell: Tell) -> dict[str, int]:
    """TABLE.csv for each table, with a head; nulls are empty, binaries hexadecimal, text by its name. Gives the rows of each."""
    counts = {}
    for table in tables:
        columns = TABLES[table].columns
        want = Want(tuple(column.name for column in columns[4:]), window.holds)
        packed = [pl.col(column.name).bin.encode("hex") for column in columns if column.type in ("binary", "digest")]
        rows = 0
        with (folder / f"{table}.csv").open("wb") as file:
            empty(table, want).with_columns(packed).write_csv(file)
            for batch in batches(trace, table, window):
                tell(batch.column(0)[0].as_py(), batch.column(2)[0].as_py())
                frame = frame_of(batch, table, want).with_columns(packed)
                frame.write_csv(file, include_header=False)
                rows += frame.height
        counts[table] = rows
    return counts


def write_index(trace: Trace, folder: Path, to: str, run: str, window: Window, counts: dict[str, int]) -> None:
    """export.json: what was exported, every file with its size and SHA-256, and the trace's manifest."""
    files: dict[str, list[dict[str, Any]]] = {table: [] for table in counts}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        table = name.split("/")[0].removesuffix(".csv")
        files[table].append({"path": name, "bytes": path.stat().st_size, "sha256": digest})
    tables = {
        table: {
            "rows": rows,
            "columns": [
                {"name": column.name, "type": column.type, "nullable": column.nullable} for column in TABLES[table].columns
            ],
            "files": files[table],
        }
        for table, rows in counts.items()
    }
    index = {
        "format": {"name": FORMAT, "version": VERSION}, "to": to, "run": run, "window": window.as_json(), "tables": tables,
        "trace": trace.manifest,
    }  # fmt: skip
    (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
