"""Who takes the rows that a replay makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tracekit.machine.events import Row


class RowWriter(Protocol):
    """A trace that is written, or a part of one, or a search. Rows of a table come sorted by (position, sequence)."""

    def append(self, table: str, row: Row) -> None:
        """One row."""

    def extend(self, table: str, columns: Mapping[str, Any], count: int) -> None:
        """Rows as raw columns by name (None: null throughout), which must be copied before returning."""
