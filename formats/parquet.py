"""A table as Parquet: row groups of bounded size in the trace's order, with statistics. Types are those of formats/SPEC.md 5.

Text columns are dictionaries that polars reads as Enum with the categories of SPEC, and pyarrow as dictionary. Digests are binaries of 32 bytes.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracekit.formats.arrow import dictionary, schema
from tracekit.formats.tables import DICTIONARIES, TABLES

ROW_GROUP_ROWS = 65_536
_RISING = ("position", "vtime_ns")  # stored as differences


def parquet_schema(table: str) -> Any:
    """The Arrow schema of a table, with the categories where polars looks for them."""
    fields = []
    for column, field in zip(TABLES[table].columns, schema(table), strict=True):
        if column.dictionary is not None:
            values = "".join(f"{len(name)};{name}" for name in DICTIONARIES[column.dictionary])
            field = field.with_metadata({"_PL_ENUM_VALUES2": values})
        fields.append(field)
    return pa.schema(fields)


def within(batch: Any, from_position: int, to_position: int | None, from_ns: int, to_ns: int | None) -> Any:
    """The rows of a RecordBatch with from <= position < to and from <= vtime < to; None: no bound."""
    conditions = [
        compare(batch.column(index), pa.scalar(bound, pa.uint64()))
        for index, compare, bound in (
            (0, pc.greater_equal, from_position or None), (0, pc.less, to_position), (2, pc.greater_equal, from_ns or None), (2, pc.less, to_ns),
        )
        if bound is not None
    ]  # fmt: skip
    for mask in conditions[1:]:
        conditions[0] = pc.and_(conditions[0], mask)
    return batch.filter(conditions[0]) if conditions else batch


class ParquetFile:
    """One growing file of a table. The same rows give the same bytes, however they come in batches."""

    def __init__(self, path: str, table: str) -> None:
        self._schema = parquet_schema(table)
        self._table = table
        texts = [column.name for column in TABLES[table].columns if column.type == "text"]
        self._file = open(path, "wb")  # noqa: SIM115 - `close` closes it; by handle, as pyarrow takes no name that is no UTF-8
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[*texts, *(name for name in ("pc",) if name in self._schema.names)],
            column_encoding=dict.fromkeys(_RISING, "DELTA_BINARY_PACKED"),
            write_statistics=True,
            write_page_checksum=True,
            sorting_columns=pq.SortingColumn.from_ordering(self._schema, [("position", "ascending"), ("sequence", "ascending")]),
        )
        self._waiting: list[Any] = []
        self.rows = 0
        self._written = 0

    def write(self, batch: Any) -> None:
        """Append a verified batch of the trace, or a part of one."""
        arrays = [
            array if column.dictionary is None else pa.DictionaryArray.from_arrays(array.indices, dictionary(column.dictionary))
            for column, array in zip(TABLES[self._table].columns, batch.columns, strict=True)
        ]
        self._waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.rows += batch.num_rows
        while self.rows - self._written >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        waiting = pa.Table.from_batches(self._waiting, self._schema)
        group = waiting.slice(0, ROW_GROUP_ROWS)
        self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._written += group.num_rows
        self._waiting = waiting.slice(group.num_rows).to_batches()

    def close(self) -> None:
        """Write the rest and the footer."""
        if self.rows > self._written:
            self._flush()
        self._writer.close()
        self._file.close()
