"""The writes to a range of addresses, newest first, out of a table of any size: batches that cannot hold one are not read, of the others one
column is decompressed until a row fits."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tracekit.formats import arrow
from tracekit.formats.arrow import Row
from tracekit.formats.pages import may_touch
from tracekit.formats.reader import Trace

TABLE = "memory_writes"
PIECE_BYTES_MAX = 8  # a row is a piece of at most so many bytes
WORKERS_MAX = 4
ROWS_AT_ONCE = 256
Found = tuple[int, Any, Any]  # index of a batch, indices of rows in it, the batch; None, None: none fits


def writes_backwards(trace: Trace, begin: int, end: int, *, before: int, from_position: int = 0) -> Iterator[tuple[int, Row]]:
    """(number of the row in `memory_writes`, row) of the writes to [begin, end) at positions [from_position, before), the newest first.

    Errors: TraceDamaged, when reached.
    """
    batches = trace.manifest["tables"][TABLE]["batches"]
    first_rows = [0, *accumulate(entry["rows"] for entry in batches)]
    wanted = [
        index
        for index in range(len(batches) - 1, -1, -1)
        if batches[index]["position"][0] < before
        and batches[index]["position"][1] >= from_position
        and may_touch(batches[index], begin, end)
    ]

    def found_in(index: int) -> tuple[int, Any, Any]:
        raw = trace.verified(TABLE, index)
        places = trace.some_columns(TABLE, index, raw, ("ipa", "size"))
        at = _hits(places.column(0), places.column(1), begin, end)
        return index, at, trace.decoded(TABLE, index, raw) if len(at) else None

    for index, at, batch in _in_order(found_in, wanted):
        if batch is not None:
            for number, row in _backwards(batch, at):
                if from_position <= row[0] < before:
                    yield first_rows[index] + number, row


def captured_backwards(columns: Mapping[str, Any], count: int, begin: int, end: int, table: str = TABLE) -> Iterator[Row]:
    """Those of `count` captured rows of `memory_writes` (or `memory_reads`), as raw columns, that touch [begin, end), the newest first."""
    ipa = pa.Array.from_buffers(pa.uint64(), count, [None, pa.py_buffer(columns["ipa"])])
    size = pa.Array.from_buffers(pa.uint8(), count, [None, pa.py_buffer(columns["size"])])
    at = _hits(ipa, size, begin, end)
    if len(at):
        for _, row in _backwards(arrow.batch_from_columns(table, columns, count), at):
            yield row


def _in_order(task: Callable[[int], Found], indices: list[int]) -> Iterator[Found]:
    """The task's results in order; from the second on, a few are worked on at a time (hashing and decompression need no interpreter)."""
    if indices:
        yield task(indices[0])
    if len(indices) < 2:
        return
    workers = max(1, min(WORKERS_MAX, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Found]] = deque()
        try:
            for index in indices[1:]:
                ahead.append(pool.submit(task, index))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for one in ahead:
                one.cancel()


def _near(ipa: Any, begin: int, end: int) -> Any:
    """Indices of the rows that would write into the range if each had PIECE_BYTES_MAX bytes."""
    low = max(0, begin - PIECE_BYTES_MAX + 1)
    distance = pc.subtract(ipa, pa.scalar(low, pa.uint64()))  # wraps around below `low`
    return pc.indices_nonzero(pc.less(distance, pa.scalar(end - low, pa.uint64())))


def _hits(ipa: Any, size: Any, begin: int, end: int) -> Any:
    """Indices of the rows that write into the range, ascending."""
    near = _near(ipa, begin, end)
    after = pc.add(ipa.take(near), size.take(near).cast(pa.uint64()))
    return near.filter(pc.greater(after, pa.scalar(begin, pa.uint64())))


def _backwards(batch: Any, at: Any) -> Iterator[tuple[int, Row]]:
    """(index, row) of chosen rows, the last first; only those that are asked for become values of Python."""
    for stop in range(len(at), 0, -ROWS_AT_ONCE):
        chosen = at.slice(max(0, stop - ROWS_AT_ONCE), min(ROWS_AT_ONCE, stop))
        yield from reversed(list(zip(chosen.to_pylist(), arrow.rows_of(batch.take(chosen)), strict=True)))
