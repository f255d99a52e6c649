"""A cursor over a trace's events that can go back a little without reading tables again."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

from tracekit.formats.reader import Trace
from tracekit.formats.thick import Place, thin_rows_before
from tracekit.replay.divergence import Event
from tracekit.replay.events import EVENTS_BEFORE, EventStream

KEPT_MAX = 50_000  # events


class RecentEvents(EventStream):
    """An EventStream that keeps the last events it has read; seek() to one of them costs next to nothing."""

    def __init__(self, trace: Trace) -> None:
        self._kept: list[Event] = []
        self._source: Iterator[Event] = iter(())
        super().__init__(trace)

    def seek(self, start: Place = (0, 0), open_console: Place | None = None) -> None:
        """Begin again, there; `taken` counts from 0."""
        first = EVENTS_BEFORE + 1  # so many in front of it must be kept too
        at = bisect_left(self._kept, start, key=_place)
        if not first <= at < len(self._kept):
            super().seek(start, open_console)
            self._kept = list(self._behind)
            self._source = self._merged
        else:
            self._behind = deque(self._kept[at - first : at], maxlen=first)
            self._ahead = deque()
            self._printed = None if open_console is None else self._head(start, open_console)
            self.taken = 0
        self._merged = heapq.merge(self._from(bisect_left(self._kept, start, key=_place)), key=_place)

    def _from(self, at: int) -> Iterator[Event]:
        """Kept events from a place on, then new ones, which are kept."""
        yield from self._kept[at:]
        for event in self._source:
            self._kept.append(event)
            if len(self._kept) > KEPT_MAX:
                del self._kept[: KEPT_MAX // 2]
            yield event

    def _head(self, start: Place, console: Place) -> Event | None:
        """The console row that is being printed."""
        last = next(thin_rows_before(self._trace, "console", start), None)
        return Event("console", last) if last is not None and last[:2] == console else None


def events_between(trace: Trace, begin: Place, end: int) -> Iterator[Event]:
    """The events of all tables, as every capture level has them, from a place to a position, in order. Errors: TraceDamaged."""
    stream = EventStream(trace, begin)
    while (event := stream.peek()) is not None and event.row[0] < end:
        yield stream.take()


def _place(event: Event) -> Place:
    return event.row[0], event.row[1]
