"""Which writes are asked for, and when enough of them are found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ROWS_MAX = 1000  # of an answer without a limit


@dataclass(frozen=True, slots=True)
class Wanted:
    """Writes to the addresses [begin, end), the newest first: `limit` of them, or (None) as many as it takes to account for every byte,
    at most ROWS_MAX."""

    begin: int
    end: int
    limit: int | None = None

    def newest(self, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Of rows of `memory_writes` to the range, the newest first, those that are wanted."""
        tally, out = Tally(self), []
        for row in rows:
            if tally.is_enough:
                break
            out.append(row)
            tally.add(row[5], row[6])
        return out


class Tally:
    """What the writes that were found account for."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._is_told = bytearray(wanted.end - wanted.begin)
        self._left = len(self._is_told)
        self._count = 0

    @property
    def is_enough(self) -> bool:
        """Whether nothing older is asked for."""
        limit = self._wanted.limit
        return self._count >= (ROWS_MAX if limit is None else limit) or (limit is None and not self._left)

    def add(self, ipa: int | None, size: int | None) -> None:
        """One more, older than all before. None: it set all memory."""
        self._count += 1
        begin, end = self._wanted.begin, self._wanted.end
        low, high = (begin, end) if ipa is None or size is None else (max(begin, ipa), min(end, ipa + size))
        for at in range(low - begin, high - begin):
            self._left -= not self._is_told[at]
            self._is_told[at] = 1

    def left(self) -> int | None:
        """The first address that nothing found accounts for."""
        at = self._is_told.find(0)
        return None if at < 0 else self._wanted.begin + at
