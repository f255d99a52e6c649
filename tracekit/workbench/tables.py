"""What one trace and many have in common: every table as a LazyFrame, SQL over them, and how they show themselves."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from typing import Any

from tracekit.analyzers.frames import DataFrame, LazyFrame
from tracekit.analyzers.query import collected
from tracekit.formats.captures import WHOLE_AT, thin_note
from tracekit.formats.tables import TABLES
from tracekit.workbench.card import Card


class ThinTraceWarning(UserWarning):
    """A table holds less than its name says, because the run was captured thinner; the text says how to get the rest."""


class Tables(ABC):
    """The tables of one or several traces. Spec: formats/SPEC.md 5.

    Every table has `position` u64 (instructions retired on the board before it), `sequence` u32, `vtime_ns` u64 (virtual host time) and `vcpu`
    u16?, and is sorted by (position, sequence); text is String. Nothing is read before a frame is collected; then the hash of every batch that
    is used is checked, and batches outside a filter on position or vtime_ns are not touched. Errors, when collected: TraceDamaged.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()

    @abstractmethod
    def _scan(self, name: str) -> LazyFrame:
        """A table of SPEC."""

    @abstractmethod
    def _thin(self, name: str) -> tuple[str, str] | None:
        """Path and capture level of a trace in which the table is not whole."""

    @abstractmethod
    def _more(self) -> dict[str, LazyFrame]:
        """Relations of `sql` besides the tables."""

    @abstractmethod
    def _card(self) -> Card:
        """What is shown."""

    def table(self, name: str) -> LazyFrame:
        """A table by its name. Errors: KeyError."""
        if name not in TABLES:
            raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
        self._warn(name, 4)
        return self._scan(name)

    @property
    def schedule(self) -> LazyFrame:
        """Who ran: thread u32, event, pcpu u16?, from_pcpu u16?, reason."""
        return self.table("schedule")

    @property
    def directives(self) -> LazyFrame:
        """What was done to the machine from outside: kind, ipa u64?, size u64?, value u64?, result i32?."""
        return self.table("directives")

    @property
    def hypercalls(self) -> LazyFrame:
        """HVC and SMC: pc u64, el u8, conduit, immediate u16, function_id u32, function, x0..x7 u64, ret0..ret3 u64, changed u32."""
        return self.table("hypercalls")

    @property
    def memory_writes(self) -> LazyFrame:
        """Stores: origin (guest, host), ipa u64, size u8, value u64, pc u64?, cause. Thin traces: host stores, structures, watched ranges."""
        return self.table("memory_writes")

    @property
    def memory_reads(self) -> LazyFrame:
        """Loads: origin, ipa u64, size u8, value u64, pc u64. All of them only at capture level `full`."""
        return self.table("memory_reads")

    @property
    def pvtime(self) -> LazyFrame:
        """Stolen-time structures: event (enable, publish, read, attribute), ipa u64, stolen_ns u64, revision u32, attributes u32."""
        return self.table("pvtime")

    @property
    def interrupts(self) -> LazyFrame:
        """Lines and their handling: event (assert, deassert, take, complete), intid u16, pc u64?."""
        return self.table("interrupts")

    @property
    def console(self) -> LazyFrame:
        """What the guest printed, by lines: data binary. As text: `console_text`."""
        return self.table("console")

    @property
    def inputs(self) -> LazyFrame:
        """What came from outside: source, data binary."""
        return self.table("inputs")

    @property
    def states(self) -> LazyFrame:
        """Digests of the machine's state: scope (vcpu, board), registers, devices, memory: binary of 32 bytes, nullable."""
        return self.table("states")

    @property
    def blocks(self) -> LazyFrame:
        """Straight runs of instructions: pc u64, instructions u16. Only at capture level `full`."""
        return self.table("blocks")

    def sql(self, query: str) -> DataFrame:
        """The answer to a query in polars' SQL over all tables, `threads` and `runs`. Rows have an order only where it says ORDER BY.

        Errors: QueryError, which shows the place in the query; TraceDamaged.
        """
        for name in WHOLE_AT:
            if re.search(rf"\b{name}\b", query, re.IGNORECASE):
                self._warn(name, 3)
        return collected(self.relations(), query)

    def relations(self) -> dict[str, LazyFrame]:
        """What `sql` knows, by name: the tables, `threads` and `runs`."""
        return {**{name: self._scan(name) for name in TABLES}, **self._more()}

    def thin_note(self, name: str) -> str | None:
        """Why a table is not whole and what makes it so; None where it is."""
        thin = self._thin(name) if name in WHOLE_AT else None
        if thin is None:
            return None
        path, level = thin
        return thin_note(path, level, name)

    def _warn(self, name: str, level: int) -> None:
        """Once for each table; level: how many calls above the user's line is."""
        if name in self._warned:
            return
        self._warned.add(name)
        note = self.thin_note(name)
        if note is not None:
            warnings.warn(note, ThinTraceWarning, stacklevel=level)

    def __repr__(self) -> str:
        return self._card().text()

    def __rich__(self) -> Any:
        return self._card().rich()

    def _repr_html_(self) -> str:
        return self._card().html()
