"""What will happen: one heap of events, ordered by (time, insertion)."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from tracekit.host.steps import Alarm

FAR_NS = 1 << 62
Action = Callable[[int], Alarm | None]


class Event:
    """Something that happens at a time. `matters`: it can make a vCPU runnable. is_over: it has happened or was cancelled."""

    __slots__ = ("action", "at_ns", "is_over", "matters", "number")

    def __init__(self, at_ns: int, number: int, action: Action, matters: bool) -> None:
        self.at_ns, self.number, self.action, self.matters = at_ns, number, action, matters
        self.is_over = False


class Agenda:
    """The events to come."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Event]] = []  # numbers differ: events are never compared
        self._number = 0
        self._front = 0  # numbers below it are free, for events that go before all others of their time
        self._pending = 0  # events that matter

    @property
    def matters(self) -> bool:
        """Whether an event to come can make a vCPU runnable."""
        return self._pending > 0

    @property
    def first_ns(self) -> int:
        """Time of the next event; FAR_NS if there is none."""
        heap = self._heap
        while heap and heap[0][2].is_over:
            heapq.heappop(heap)
        return heap[0][0] if heap else FAR_NS

    def push(self, at_ns: int, action: Action, *, matters: bool) -> Event:
        """A new event, behind those of the same time."""
        self._number += 1
        event = Event(at_ns, self._number, action, matters)
        self._pending += matters
        heapq.heappush(self._heap, (at_ns, self._number, event))
        return event

    def cancel(self, event: Event | None) -> None:
        """It will not happen; one that is over, or none at all, is left alone."""
        if event is not None and not event.is_over:
            event.is_over = True
            self._pending -= event.matters

    def pop(self) -> Event:
        """The next event (there is one: first_ns said so)."""
        event = heapq.heappop(self._heap)[2]
        assert not event.is_over
        event.is_over = True
        self._pending -= event.matters
        return event

    def postpone(self, until_ns: int) -> None:
        """Events before until_ns happen then, in the order in which they would have happened, before those of that time."""
        late = [entry[2] for entry in sorted(self._heap) if entry[0] < until_ns and not entry[2].is_over]
        rest = [entry for entry in self._heap if entry[0] >= until_ns and not entry[2].is_over]
        self._front -= len(late)
        for place, event in enumerate(late):
            event.at_ns, event.number = until_ns, self._front + place
        self._heap = [*((event.at_ns, event.number, event) for event in late), *rest]
        heapq.heapify(self._heap)
