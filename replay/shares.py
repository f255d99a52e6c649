"""Who replays what: the intervals between a trace's checkpoints, dealt out so that all are done at about the same time.

Interval n ends at checkpoint n; the last one, behind all checkpoints, ends with the run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tracekit.formats.checkpoints import Entry
from tracekit.replay import timings

START_SECONDS = 0.35  # of going on from a checkpoint in another process: restoring, and translating anew what is warm elsewhere
INSTRUCTION_SECONDS = 1.2e-9  # where no timing is known
PAGE_SECONDS = 20e-6


@dataclass(frozen=True, slots=True)
class Share:
    """From checkpoint `start` (None: the beginning) to checkpoint `stop`, once it has agreed (None: to where the replay ends)."""

    start: int | None
    stop: int | None


def deal(entries: Sequence[Entry], key: str, first: int | None, end_position: int, count: int) -> list[Share]:
    """At most `count` shares of what comes behind checkpoint `first` (None: the beginning) and before a position, in order."""
    begin = 0 if first is None else first + 1
    end = max(begin, bisect_left(entries, end_position, key=lambda entry: entry.position))  # the interval in which it ends
    known = timings.load(key, len(entries) + 1)
    costs = [_guess(entries, n, end_position) if known is None else known[n] for n in range(begin, end + 1)]
    places = [begin, *(begin + part.stop for part in balanced(costs, count, START_SECONDS))]
    return [Share(low - 1 if low else None, high - 1 if high <= end else None) for low, high in pairwise(places)]


def _guess(entries: Sequence[Entry], n: int, end_position: int) -> float:
    """Cost of an interval, s: new pages stand for new code, which must be translated."""
    low = entries[n - 1].position if n else 0
    high, pages = (entries[n].position, entries[n].pages) if n < len(entries) else (end_position, 0)
    return max(0, min(high, end_position) - low) * INSTRUCTION_SECONDS + pages * PAGE_SECONDS


def balanced(costs: Sequence[float], count: int, start_cost: float) -> list[range]:
    """Neighbouring intervals as at most `count` ranges whose greatest cost is as small as it can be; all but the first cost start_cost more."""
    low, high = 0.0, sum(costs) + start_cost
    for _ in range(50):
        middle = (low + high) / 2
        if len(_cut(costs, middle, start_cost)) <= count:
            high = middle
        else:
            low = middle
    return _cut(costs, high, start_cost)


def _cut(costs: Sequence[float], limit: float, start_cost: float) -> list[range]:
    out: list[range] = []
    begin, total = 0, 0.0
    for n, cost in enumerate(costs):
        if n > begin and total + cost > limit:
            out.append(range(begin, n))
            begin, total = n, start_cost
        total += cost
    return [*out, range(begin, len(costs))]
