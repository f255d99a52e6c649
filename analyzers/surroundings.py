"""Rows around a place of a trace, over all its tables, read by the batches that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from tracekit.analyzers.difference import Change, Event
from tracekit.analyzers.pairing import Limits, Place
from tracekit.formats.arrow import rows_of
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

ROWS_MAX = 200_000  # read behind a place when a counterpart is looked for


class Surroundings:
    """A trace's rows by number and by place; the batch read last of each table is kept. Errors of all methods: TraceDamaged."""

    def __init__(self, trace: Trace, tables: Sequence[str], limits: dict[str, Limits]) -> None:
        self.trace, self.tables, self._limits = trace, tuple(tables), limits
        self._kept: dict[str, tuple[int, Any]] = {}
        self._starts: dict[str, list[int]] = {}

    def event(self, table: str, index: int) -> Event:
        """A row by its number in its table."""
        starts = self._starts_of(table)
        number = next(n for n in range(len(starts) - 1, -1, -1) if starts[n] <= index)
        return self._event(table, number, index - starts[number])

    def next_place(self, event: Event) -> Place:
        """Where the next row of an event's table stands, or the trace ends."""
        end = self.trace.manifest["end"]
        if event.index + 1 < int(self.trace.manifest["tables"][event.table]["rows"]):
            return self.event(event.table, event.index + 1).place
        return int(end["position"]), int(end["sequence"])

    def before(self, place: Place, count: int) -> list[Event]:
        """The last events before a place that are compared, in order."""
        found: list[Event] = []
        for table in self.tables:
            events = self._backward(table, place)
            found += [event for _, event in zip(range(count), events, strict=False)]
        return sorted(found, key=lambda event: event.place)[-count:] if count else []

    def after(self, place: Place, count: int) -> list[Event]:
        """The first events from a place on that are compared, in order."""
        found: list[Event] = []
        for table in self.tables:
            found += [event for _, event in zip(range(count), self.forward(table, place), strict=False)]
        return sorted(found, key=lambda event: event.place)[:count]

    def forward(self, table: str, place: Place) -> Iterator[Event]:
        """A table's rows from a place on."""
        batches = self.trace.manifest["tables"][table]["batches"]
        for number, entry in enumerate(batches):
            if (entry["position"][1], entry["sequence"][1]) < place:
                continue
            for offset in range(self._offset(table, number, place), entry["rows"]):
                event = self._event(table, number, offset)
                if not self._is_compared(table, event.place):
                    if not self._limits[table].is_thin:
                        return
                    continue
                yield event

    def _backward(self, table: str, place: Place) -> Iterator[Event]:
        batches = self.trace.manifest["tables"][table]["batches"]
        for number in range(len(batches) - 1, -1, -1):
            if (batches[number]["position"][0], batches[number]["sequence"][0]) >= place:
                continue
            for offset in range(self._offset(table, number, place) - 1, -1, -1):
                event = self._event(table, number, offset)
                if self._is_compared(table, event.place):
                    yield event

    def last_run(self, place: Place) -> Event | None:
        """The last `run` of a vCPU before a place, of the ROWS_MAX rows before it."""
        for _, event in zip(range(ROWS_MAX), self._backward("schedule", place), strict=False):
            if event.row["event"] == "run" and event.row["vcpu"] is not None:
                return event
        return None

    def _is_compared(self, table: str, place: Place) -> bool:
        return self._limits[table].has(place)

    def _starts_of(self, table: str) -> list[int]:
        if table not in self._starts:
            starts, at = [], 0
            for entry in self.trace.manifest["tables"][table]["batches"]:
                starts.append(at)
                at += entry["rows"]
            self._starts[table] = starts
        return self._starts[table]

    def _batch(self, table: str, number: int) -> Any:
        if self._kept.get(table, (-1, None))[0] != number:
            self._kept[table] = (number, self.trace.batch(table, number))
        return self._kept[table][1]

    def _offset(self, table: str, number: int, place: Place) -> int:
        """How many rows of a batch lie before a place."""
        batch = self._batch(table, number)
        position, sequence = pl.Series(pl.from_arrow(batch.column(0))), pl.Series(pl.from_arrow(batch.column(1)))
        return int(((position < place[0]) | ((position == place[0]) & (sequence < place[1]))).sum())

    def _event(self, table: str, number: int, offset: int) -> Event:
        row = next(iter(rows_of(self._batch(table, number).slice(offset, 1))))
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        names = [column.name for column in TABLES[table].columns]
        return Event(table, self._starts_of(table)[number] + offset, dict(zip(names, values, strict=True)))


def reach_of(change: Change, sides: tuple[Surroundings, Surroundings]) -> Place:
    """From where a change shows. A row of `blocks` or `console` stands where it begins and may differ by what happens before it ends.

    Errors: TraceDamaged.
    """
    present = [(event, side) for event, side in zip((change.a, change.b), sides, strict=True) if event is not None]
    if change.table == "blocks":
        return min(event.place[0] + int(event.row["instructions"]) for event, _ in present), 1 << 32
    if change.table == "console" and len(present) == 2 and present[0][0].place == present[1][0].place:
        return min(side.next_place(event) for event, side in present)
    return change.place
