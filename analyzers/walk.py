"""One pass over a trace for everything that asks about it: windows of bounded size, each with its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from tracekit.analyzers import events
from tracekit.analyzers.ledger import FORMULAS, Ledger, publication_of
from tracekit.analyzers.placement import Places, places_of
from tracekit.analyzers.source import WINDOW_ROWS, Want, merged, windows
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace


@dataclass(slots=True)
class Step:
    """A window of a trace: its tables, and the frames of its ledger (`ledger.Ledger.feed`)."""

    tables: dict[str, pl.DataFrame]
    ledgers: list[pl.DataFrame]


class Walk:
    """A trace, its structures and its ledger. policy: whose formula is the truth (default: the one it was recorded with).

    rows: about how many rows are in memory at a time; the result does not depend on it.
    """

    def __init__(self, trace: Trace, *, policy: str | None = None, rows: int = WINDOW_ROWS) -> None:
        """Errors: InputError for an unknown policy, TraceDamaged."""
        self.trace = trace
        self.policy = policy or publication_of(trace)
        if self.policy not in FORMULAS:
            raise InputError(f"no publication policy {self.policy!r}; there are {', '.join(FORMULAS)}")
        self.places: Places = places_of(trace)
        self.ledger = Ledger(self.policy, self.places)
        self._rows = rows

    def steps(self, *wants: Mapping[str, Want]) -> Iterator[Step]:
        """Every window once, with what the ledger needs and what is asked for besides. Errors: TraceDamaged."""
        wanted = merged(events.wants(self.places), *wants)
        for tables in windows(self.trace, wanted, self._rows):
            yield Step(tables, list(self.ledger.feed(tables)))
