"""Tables as Arrow: schemas, batches from rows or raw columns, and streams of verified bytes back to rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from tracekit.formats.errors import TraceDamaged
from tracekit.formats.tables import DICTIONARIES, TABLES, Column

MAGIC = b"ARROW1\0\0"
_FEW = 16_384
THICK = frozenset({"memory_writes", "memory_reads", "blocks"})  # tables that may grow by millions of rows a second
Row = tuple[Any, ...]
_TYPES: dict[str, Any] = {
    "u8": pa.uint8(),
    "u16": pa.uint16(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "i32": pa.int32(),
    "binary": pa.binary(),
    "digest": pa.binary(32),
    "text": pa.dictionary(pa.uint8(), pa.utf8()),
}


@cache
def schema(table: str) -> Any:
    """The Arrow schema of a table."""
    return pa.schema([pa.field(c.name, _TYPES[c.type], nullable=c.nullable) for c in TABLES[table].columns])


@cache
def dictionary(name: str) -> Any:
    """The whole constant dictionary: one object, so that a file holds it once."""
    return pa.array(DICTIONARIES[name], pa.utf8())


@cache
def _codes(name: str) -> dict[str, int]:
    return {text: code for code, text in enumerate(DICTIONARIES[name])}


@cache
def options(*, in_parallel: bool = False) -> Any:
    """How batches are written: zstd level 1, columns perhaps in parallel. The bytes are the same."""
    return pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1), use_threads=in_parallel)


def _column(column: Column, values: Sequence[Any]) -> Any:
    if column.type == "text":
        assert column.dictionary is not None
        codes = _codes(column.dictionary)
        indices = pa.array([None if v is None else codes[v] for v in values], pa.uint8())
        return pa.DictionaryArray.from_arrays(indices, dictionary(column.dictionary))
    return pa.array(values, _TYPES[column.type])


def batch_from_rows(table: str, rows: Sequence[Row]) -> Any:
    """A RecordBatch; a name that a dictionary lacks is our own mistake and raises KeyError."""
    columns = TABLES[table].columns
    transposed: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    assert len(transposed) == len(columns), table
    arrays = [_column(c, values) for c, values in zip(columns, transposed, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema(table))


@lru_cache(16)
def _nulls(kind: str, count: int) -> Any:
    return pa.nulls(count, _TYPES[kind])


def batch_from_columns(table: str, columns: Mapping[str, Any], count: int, *, borrow: bool = False) -> Any:
    """A RecordBatch from raw little-endian buffers without nulls; None: all null. borrow: it lies in them instead of in copies."""
    arrays = []
    for column in TABLES[table].columns:
        buffer = columns[column.name]
        kind = "u8" if column.type == "text" else column.type
        if buffer is None:
            array = _nulls(kind, count)
        else:
            array = pa.Array.from_buffers(_TYPES[kind], count, [None, pa.py_buffer(buffer if borrow else bytes(buffer))])
        if column.dictionary is not None:
            array = pa.DictionaryArray.from_arrays(array, dictionary(column.dictionary), safe=False)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema(table))


def normal(table: str, batch: Any) -> Any:
    """The same rows with this version's dictionaries; those of an older minor version are a prefix of them."""
    arrays = []
    for column, array in zip(TABLES[table].columns, batch.columns, strict=True):
        if column.dictionary is not None and not array.dictionary.equals(dictionary(column.dictionary)):
            array = pa.DictionaryArray.from_arrays(array.indices, dictionary(column.dictionary))
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema(table))


def joined(table: str, batches: Sequence[Any]) -> Any:
    """Several batches as one."""
    if len(batches) == 1:
        return batches[0]
    combined = pa.Table.from_batches(batches, schema(table)).combine_chunks().to_batches()
    return combined[0] if combined else batch_from_rows(table, ())


def first_last(batch: Any) -> dict[str, list[int]]:
    """Ranges that the manifest keeps for a batch: position and sequence of its first and last row, least and greatest vtime."""
    position, sequence = batch.column(0), batch.column(1)
    low, high = _min_max(batch.column(2))
    return {
        "position": [position[0].as_py(), position[-1].as_py()],
        "sequence": [sequence[0].as_py(), sequence[-1].as_py()],
        "vtime_ns": [low, high],
    }


def _min_max(array: Any) -> tuple[int, int]:
    """Least and greatest value of a u64 array without nulls."""
    if len(array) <= _FEW and sys.byteorder == "little":
        values = memoryview(array.buffers()[1]).cast("B")[8 * array.offset : 8 * (array.offset + len(array))].cast("Q")
        return min(values), max(values)
    import pyarrow.compute as pc  # takes 30 ms

    both = pc.min_max(array).as_py()
    return both["min"], both["max"]


def decode_batch(table: str, prelude: bytes, body: bytes, columns: Sequence[str] | None = None) -> Any:
    """The RecordBatch of verified bytes. `prelude` is the file up to its first batch of rows (it ends with an empty batch).

    columns: only these, in the table's order; none of text. The others are not even decompressed.
    Errors: TraceDamaged when the bytes are no such batch.
    """
    chosen = None if columns is None else [TABLES[table].index(name) for name in columns]
    options = None if chosen is None else pa.ipc.IpcReadOptions(included_fields=chosen, use_threads=False)
    wanted = schema(table) if chosen is None else pa.schema([schema(table).field(index) for index in chosen])
    try:
        with pa.ipc.open_stream(pa.BufferReader(prelude[len(MAGIC) :] + body), options=options) as reader:
            if not reader.schema.equals(wanted):
                raise TraceDamaged(f"{table}.arrow: another schema than this format's")
            batches = list(_until_end(reader))
        if chosen is None:
            check_dictionaries(table, batches[-1])
        batches[-1].validate(full=True)
    except (pa.ArrowException, OSError, IndexError, ValueError, StopIteration) as error:
        raise TraceDamaged(f"{table}.arrow: cannot be decoded ({error})") from None
    return batches[-1]


def _until_end(reader: Any) -> Iterator[Any]:
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return


def check_dictionaries(table: str, batch: Any) -> None:
    """Errors: TraceDamaged when a dictionary is not the constant one (a prefix is an older minor version's)."""
    for index, column in enumerate(TABLES[table].columns):
        if column.dictionary is None:
            continue
        found = tuple(batch.column(index).dictionary.to_pylist())
        if found != DICTIONARIES[column.dictionary][: len(found)]:
            raise TraceDamaged(f"{table}.arrow: column {column.name} has another dictionary than {column.dictionary}")


def rows_of(batch: Any) -> Iterator[Row]:
    """Rows as tuples of Python values."""
    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            names = column.dictionary.to_pylist()
            columns.append([None if i is None else names[i] for i in column.indices.to_pylist()])
        else:
            columns.append(column.to_pylist())
    return zip(*columns, strict=True)


class ArrowFile:
    """An Arrow IPC file that grows batch by batch; every batch's byte range is known."""

    def __init__(self, path: str, table: str, *, compressed: bool = True) -> None:
        self._sink = pa.OSFile(path, "wb")
        how = options(in_parallel=table in THICK) if compressed else pa.ipc.IpcWriteOptions(use_threads=False)
        self._writer = pa.ipc.new_file(self._sink, schema(table), options=how)
        self._writer.write_batch(batch_from_rows(table, ()))  # brings the dictionaries into the prelude
        self.length: int = self._sink.tell()
        self.prelude_length = self.length

    def write(self, batch: Any) -> tuple[int, int]:
        """Append a batch; gives (offset, length) of its bytes."""
        start = self.length
        self._writer.write_batch(batch)
        self.length = self._sink.tell()
        return start, self.length - start

    def close(self) -> None:
        """Write the footer. May be called again."""
        if not self._sink.closed:
            try:
                self._writer.close()
            finally:
                self._sink.close()
