"""SQL over a trace's tables; an error points at the place in the query. The dialect is polars' own."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from tracekit.formats.errors import InputError, TracekitError
from tracekit.formats.units import plain

FORMATS = ("table", "csv", "json", "parquet", "arrow")
NEAR_MAX = 3
LINES_AT_ONCE = 1000
_HEX = frozenset({"pc", "ipa", "function_id"})
_CHANGES = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(create|drop|delete|truncate|insert|update|alter)\b", re.IGNORECASE | re.DOTALL
)
_PLACE = re.compile(r" at Line: (\d+), Column: (\d+)")
_RELATION = re.compile(r"relation ['\"](.+?)['\"] was not found")
_COLUMN = re.compile(r"(?:unable to find column|no column named|column) ['\"](.+?)['\"]")
_AMBIGUOUS = re.compile(r"ambiguous reference to column ['\"](.+?)['\"]")
# What polars raises. OSError: of a file that the query itself names. PanicException, which is no Exception: polars' own mistake.
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_NAME = re.compile(r"['\"](\w+)['\"]")


class QueryError(InputError):
    """A query that cannot be answered; the text shows the query and where it is wrong."""


def answer(tables: Mapping[str, pl.LazyFrame], query: str) -> pl.LazyFrame:
    """The answer to a query, not collected yet. Errors: QueryError where the query is no SQL, changes something or names what is not there."""
    query = plain(query)
    change = _CHANGES.match(query)
    if change is not None:
        raise QueryError(_shown(query, "a query only reads: SELECT ... FROM a table", change.start(1), change.end(1)))
    try:
        with pl.SQLContext(frames=dict(tables), eager=False) as context:
            frame: pl.LazyFrame = context.execute(query)
        frame.collect_schema()
    except _FAILURES as error:
        raise _explained(error, query, tables) from None
    return frame


def collected(tables: Mapping[str, pl.LazyFrame], query: str, *, limit: int | None = None) -> pl.DataFrame:
    """The answer to a query, at most `limit` rows. Errors: QueryError, and TraceDamaged from the tables."""
    frame = answer(tables, query)
    try:
        return (frame if limit is None else frame.limit(limit)).collect(engine="streaming")
    except _FAILURES as error:
        raise _explained(error, query, tables) from None


def write(
    tables: Mapping[str, pl.LazyFrame], query: str, kind: str, target: Path | BinaryIO, *, limit: int | None = None
) -> None:
    """The answer to a query as csv, json (one object on each line), parquet or arrow (an IPC file, zstd), written as it is computed.

    Bytes (console data, digests) are hexadecimal text in csv and json. Errors: QueryError, TraceDamaged, OSError; BrokenPipeError where nobody reads.
    """
    frame = answer(tables, query)
    if limit is not None:
        frame = frame.limit(limit)
    try:
        if kind in ("csv", "json"):
            frame = frame.with_columns(_hex(frame))
        if kind == "csv":
            frame.sink_csv(target, engine="streaming")
        elif kind == "json":
            frame.sink_ndjson(target, engine="streaming")
        elif kind == "parquet":
            frame.sink_parquet(target, engine="streaming")
        else:
            assert kind == "arrow", kind
            frame.sink_ipc(target, compression="zstd", engine="streaming")
    except _FAILURES as error:
        if "Broken pipe" in str(error):  # polars drops its number
            raise BrokenPipeError from None
        if isinstance(error, OSError):
            raise
        if "No space left on device" in str(error) or "transport error" in str(error):  # what parquet makes of an OSError
            raise OSError(errno.EIO, "the disk is full or cannot be written") from None
        raise _explained(error, query, tables) from None


def _hex(frame: pl.LazyFrame) -> list[pl.Expr]:
    return [pl.col(name).bin.encode("hex") for name, kind in frame.collect_schema().items() if kind == pl.Binary]


def _explained(error: BaseException, query: str, tables: Mapping[str, pl.LazyFrame]) -> TracekitError:
    """What polars says, in the query's terms."""
    text = str(error).split("\n\n")[0].strip().replace("\n", " ")
    place = _PLACE.search(text)
    if place is not None:
        line, column = int(place[1]), int(place[2])
        at = sum(len(one) + 1 for one in query.split("\n")[: line - 1]) + column - 1
        return QueryError(_shown(query, _PLACE.sub("", text).removeprefix("sql parser error: "), at))
    if text.startswith("sql parser error: "):  # only the end of the query has no place
        return QueryError(_shown(query, text.removeprefix("sql parser error: "), len(query.rstrip())))
    if isinstance(error, pl.exceptions.PanicException):
        return QueryError(
            _shown(query, f"polars cannot answer that, and broke off: {text.splitlines()[0][:200] if text else ''}")
        )
    ambiguous = _AMBIGUOUS.search(text)
    if ambiguous is not None:
        return QueryError(_shown(query, text, *_word(query, ambiguous[1])))
    relation, column_name = _RELATION.search(text), _COLUMN.search(text)
    if relation is not None:
        return QueryError(_shown(query, f"no table {relation[1]!r}{_near(relation[1], tables)}", *_word(query, relation[1])))
    if column_name is not None and isinstance(error, pl.exceptions.ColumnNotFoundError | pl.exceptions.SQLInterfaceError):
        name = column_name[1]
        named = [one for table, one in tables.items() if re.search(rf"\b{re.escape(table)}\b", query, re.IGNORECASE)]
        columns = dict.fromkeys(column for one in named for column in one.collect_schema().names())
        return QueryError(_shown(query, f"no column {name!r}{_near(name, columns)}", *_word(query, name)))
    word = _NAME.search(text)
    return QueryError(_shown(query, text, *(_word(query, word[1]) if word is not None else ())))


def _near(name: str, known: Iterable[str]) -> str:
    """What may have been meant, else all that there is."""
    names = list(known)
    lower = {one.lower(): one for one in names}
    close = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=NEAR_MAX, cutoff=0.6)]
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(names)}" if names else ""


def _word(query: str, name: str) -> tuple[int, ...]:
    """Begin and end of a name in the query; nothing where it does not stand there."""
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, re.IGNORECASE)
    return () if found is None else found.span()


def _shown(query: str, what: str, begin: int | None = None, end: int | None = None) -> str:
    """The complaint, the line of the query, and a mark under the place."""
    if begin is None:
        return f"{what}\n  " + query.strip().replace("\n", "\n  ")
    start = query.rfind("\n", 0, begin) + 1
    line = query[start:].split("\n", 1)[0].expandtabs(1)
    width = max(1, (end if end is not None else begin + 1) - begin)
    return f"{what}\n  {line}\n  {' ' * (begin - start)}{'^' * width}"


def table_lines(frame: pl.DataFrame) -> Iterator[str]:
    """An answer for people: numbers to the right, null as a dash; addresses, function ids, and bytes that are no text in hexadecimal.

    Columns are aligned over LINES_AT_ONCE rows, so that a long answer begins at once.
    """
    columns = frame.columns
    is_left = [not (kind.is_numeric() or kind == pl.Boolean) for kind in frame.dtypes]
    widths = [len(name) for name in columns]
    for at in range(0, max(frame.height, 1), LINES_AT_ONCE):
        texts = [
            [_cell(name, one) for name, one in zip(columns, row, strict=True)]
            for row in frame[at : at + LINES_AT_ONCE].iter_rows()
        ]
        shown = [columns, *texts] if at == 0 else texts
        widths = [max(width, *(len(row[index]) for row in shown)) if shown else width for index, width in enumerate(widths)]
        for row in shown:
            cells = (
                text.ljust(width) if left else text.rjust(width) for text, width, left in zip(row, widths, is_left, strict=True)
            )
            yield "  ".join(cells).rstrip()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return value.hex() if "\ufffd" in text else repr(text)
    return f"{value:#x}" if name in _HEX and isinstance(value, int) else str(value)
