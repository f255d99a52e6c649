"""All thin rows of a trace in their total order, with a view ahead to the next decision and one back to what agreed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.thick import THICK, Place, thin_rows, thin_rows_before
from tracekit.machine.map import TIMER_PPIS
from tracekit.replay.divergence import Event

EVENTS_BEFORE = 10
# Tables whose every row is a decision; of the others, is_decision() tells.
_DECISION_TABLES = frozenset({"schedule", "directives", "inputs", "states"})


def is_decision(event: Event) -> bool:
    """Whether a replay must stop to apply it, if nothing that the guest does brings it about."""
    table, row = event.table, event.row
    if table in _DECISION_TABLES:
        return True
    if table == "memory_writes":
        return bool(row[4] == "host")
    if table == "pvtime":
        return bool(row[4] != "read")
    if table == "interrupts":
        return bool(row[4] == "take" or (row[4] == "assert" and (row[5] < 16 or row[5] in TIMER_PPIS)))
    return False


def _key(event: Event) -> Place:
    return event.row[0], event.row[1]


def events_before(trace: Trace, place: Place, count: int) -> list[Event]:
    """The last `count` thin rows before a place, of all tables, in order. Errors: TraceDamaged."""
    found: list[Event] = []
    for name in sorted(TABLES, key=lambda one: one in THICK):  # thick tables last: their thin rows may be far back
        floor = _key(found[0])[0] if len(found) == count else 0
        rows = thin_rows_before(trace, name, place, floor)
        mine = [Event(name, row) for row, _ in zip(rows, range(count))]
        found = sorted((*found, *mine), key=_key)[-count:]
    return found


def last_board_check(trace: Trace, place: Place) -> int:
    """Position of the last board `states` row before a place, 0 if there is none. Errors: TraceDamaged."""
    return next((int(row[0]) for row in thin_rows_before(trace, "states", place) if row[4] == "board"), 0)


class EventStream:
    """A cursor over the thin rows of every table, merged by (position, sequence). Errors: TraceDamaged, when reached.

    start: (position, sequence) of the first row that is not behind the cursor. open_console: head (position, sequence) of the console row
    behind the cursor that is being printed there; it has been taken, and is compared once it is whole.
    """

    def __init__(self, trace: Trace, start: Place = (0, 0), open_console: Place | None = None) -> None:
        self._trace = trace
        self.seek(start, open_console)

    def seek(self, start: Place = (0, 0), open_console: Place | None = None) -> None:
        """Begin again, there; `taken` counts from 0."""
        trace = self._trace
        self._merged = heapq.merge(*(self._table(trace, name, start) for name in TABLES), key=_key)
        self._ahead: deque[Event] = deque()
        behind = events_before(trace, start, EVENTS_BEFORE + 1) if start > (0, 0) else ()
        self._behind: deque[Event] = deque(behind, maxlen=EVENTS_BEFORE + 1)
        self._printed: Event | None = None  # the recorded console row that is being printed
        if open_console is not None:
            last = next(thin_rows_before(trace, "console", start), None)
            if last is not None and last[:2] == open_console:
                self._printed = Event("console", last)
        self.taken = 0

    @staticmethod
    def _table(trace: Trace, name: str, start: Place) -> Iterator[Event]:
        for row in thin_rows(trace, name, start):
            yield Event(name, row)

    def peek(self) -> Event | None:
        """The next event."""
        if not self._ahead:
            following = next(self._merged, None)
            if following is None:
                return None
            self._ahead.append(following)
        return self._ahead[0]

    def take(self) -> Event:
        """The next event, which has agreed; it is behind the cursor then."""
        event = self.peek()
        assert event is not None
        self._ahead.popleft()
        self._behind.append(event)
        self.taken += 1
        return event

    def begin_print(self) -> None:
        """Take the next event, a console row whose first byte has come."""
        self._printed = self.take()

    def printed(self) -> Event | None:
        """The console row that is being printed."""
        return self._printed

    def end_print(self) -> None:
        """The row that was being printed has agreed."""
        self._printed = None

    def before(self) -> tuple[Event, ...]:
        """The last events that agreed, in order; a console row whose rest is still to come is not one."""
        printed = None if self._printed is None else _key(self._printed)
        return tuple(event for event in self._behind if _key(event) != printed)[-EVENTS_BEFORE:]

    def next_decision(self, after_position: int) -> int | None:
        """Position of the first decision later than a position, None if there is none."""
        for event in self._ahead:
            if event.row[0] > after_position and is_decision(event):
                return int(event.row[0])
        for event in self._merged:
            self._ahead.append(event)
            if event.row[0] > after_position and is_decision(event):
                return int(event.row[0])
        return None
