"""All thin rows of a trace in their total order, with a view ahead to the next decision."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.thick import thin_rows
from tracekit.machine.map import TIMER_PPIS
from tracekit.replay.divergence import Event

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


class EventStream:
    """A cursor over the thin rows of every table, merged by (position, sequence). Errors: TraceDamaged, when reached."""

    def __init__(self, trace: Trace) -> None:
        self._merged = heapq.merge(*(self._table(trace, name) for name in TABLES), key=lambda event: (event.row[0], event.row[1]))
        self._ahead: deque[Event] = deque()
        self.taken = 0

    @staticmethod
    def _table(trace: Trace, name: str) -> Iterator[Event]:
        for row in thin_rows(trace, name):
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
        """The next event; it is behind the cursor then."""
        event = self.peek()
        assert event is not None
        self._ahead.popleft()
        self.taken += 1
        return event

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
