"""Two sequences of rows, given as numbers, aligned in time that grows with their length.

Rows that agree are passed over in bulk. At a row that does not, both sides are searched for the nearest row that stands at the same place in
both, or else the nearest from which MATCHES rows agree again; what lies between is paired by kind. Bounds: the next WINDOW_MAX rows are
searched, SEARCHED_MAX rows in all (then rows are counted without regard to their order), and a side waits with at most WAITING_MAX rows for
the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from tracekit.analyzers.difference import Counts
from tracekit.analyzers.meeting import MATCHES, common, meeting, pairs_of

WINDOWS = (64, 1024, 65_536)
WINDOW_MAX = WINDOWS[-1]
WAITING_MAX = 1 << 20
SEARCHED_MAX = 1 << 23
SPAN_MIN, SPAN_MAX = 64, WINDOW_MAX
COLUMNS = ("row", "whole", "content", "kind")
Item = tuple[str, int | None, int | None]  # kind of change, row of A, row of B
_END = -1  # behind a side's last row


@dataclass(slots=True)
class Budget:
    """How many more rows may be searched."""

    left: int = SEARCHED_MAX


class Side:
    """One side's rows from the cursor on."""

    def __init__(self) -> None:
        self._frame = pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.UInt64))
        self._at = 0

    @property
    def left(self) -> int:
        """Rows behind the cursor."""
        return self._frame.height - self._at

    def append(self, frame: pl.DataFrame) -> None:
        """More rows."""
        rest = self._frame[self._at :]
        self._frame = pl.concat([rest, frame], rechunk=True) if rest.height else frame
        self._at = 0

    def some(self, name: str, count: int, start: int = 0) -> pl.Series:
        """A column of the next rows."""
        return self._frame[name].slice(self._at + start, count)

    def row(self, offset: int) -> int:
        """The number of a row behind the cursor."""
        return int(self._frame["row"][self._at + offset])

    def skip(self, count: int) -> None:
        """The cursor goes on."""
        self._at += count


@dataclass(slots=True)
class Lane:
    """The rows of one table and vCPU (or thread), of both sides. items: of each kind the first `limit` and at least one; one that moved.

    has_places: rows that are whole the same stand at the same place, and so belong together.
    """

    budget: Budget
    limit: int
    has_places: bool = True
    a: Side = field(default_factory=Side)
    b: Side = field(default_factory=Side)
    counts: Counts = field(default_factory=Counts)
    items: dict[str, list[Item]] = field(default_factory=dict)
    is_coarse: bool = False
    _window: int = 0
    _span: int = SPAN_MIN

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self.a.left and not self.b.left

    def advance(self, is_final: bool) -> None:
        """Align as far as what is there allows. is_final: no more rows will come."""
        while self.a.left and self.b.left:
            if self.is_coarse:
                if not self._count_coarsely(is_final):
                    break
                continue
            self._follow()
            if not (self.a.left and self.b.left):
                break
            if not self._settle(is_final):
                break
        for side, kind in ((self.a, "only_a"), (self.b, "only_b")):
            self._lone(side, kind, side.left if is_final else max(0, side.left - WAITING_MAX))

    # --- equal rows -------------------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Pass over rows with the same content."""
        size = 256
        while count := min(self.a.left, self.b.left, size):
            differs = self.a.some("content", count) != self.b.some("content", count)
            length = int(differs.arg_max() or 0) if differs.any() else count
            self._same(length)
            if length < count:
                return
            size = min(size * 8, 1 << 20)

    def _same(self, count: int) -> None:
        if not count:
            return
        differs = self.a.some("whole", count) != self.b.some("whole", count)
        moved = int(differs.sum())
        if moved and self._wanted("moved"):
            at = int(differs.arg_max() or 0)
            self._note("moved", at, at)
        self.counts += Counts(same=count, moved=moved)
        self.a.skip(count)
        self.b.skip(count)

    # --- a row that differs ---------------------------------------------------------------------------------------------------------------

    def _settle(self, is_final: bool) -> bool:
        """Get over a row that differs; False: more rows are needed for that."""
        window = max(WINDOWS[self._window], self._span if self._span > SPAN_MIN else 0)
        if not is_final and min(self.a.left, self.b.left) < window:
            return False
        self.budget.left -= window
        if self.budget.left < 0:
            self.is_coarse = True
            return True
        met = None
        if self.has_places and window == WINDOWS[0]:
            met = meeting(*self._numbers("whole", window, False), 1)
        met = met or meeting(*self._numbers("content", window, is_final))
        is_last = self._window + 1 == len(WINDOWS) or (is_final and window >= max(self.a.left, self.b.left))
        if met is not None:
            self._gap(*met)
            self._span = SPAN_MIN
        elif self.a.some("kind", 1)[0] == self.b.some("kind", 1)[0] and (self._window or is_last or self._span > SPAN_MIN):
            self._stay()
        else:
            met = meeting(*self._numbers("kind", window, is_final))
            if (met is None or met == (0, 0)) and not is_last:
                self._window += 1
                return True
            self._gap(*(met or (min(window, self.a.left), min(window, self.b.left))))
        self._window = 0
        return True

    def _numbers(self, name: str, window: int, is_final: bool) -> tuple[list[int], list[int]]:
        """The next rows of both sides; behind their ends marks that agree, so that they can meet there."""
        out = []
        for side in (self.a, self.b):
            numbers = side.some(name, window).to_list()
            if is_final and len(numbers) == side.left:
                numbers += [_END] * MATCHES
            out.append(numbers)
        return out[0], out[1]

    def _stay(self) -> None:
        """The same kinds of events with other content, and no better place in sight: row beside row, for a span that doubles."""
        count = min(self._span, self.a.left, self.b.left)
        differs = self.a.some("kind", count) != self.b.some("kind", count)
        length = int(differs.arg_max() or 0) if differs.any() else count
        self._span = min(self._span * 2, SPAN_MAX) if length == self._span else SPAN_MIN
        is_changed = self.a.some("content", length) != self.b.some("content", length)
        places = is_changed.arg_true()
        for at in places.head(self._wanted("changed")).to_list():
            self._note("changed", at, at)
        moved = int(((self.a.some("whole", length) != self.b.some("whole", length)) & ~is_changed).sum())
        self.counts += Counts(same=length - places.len(), moved=moved, changed=places.len())
        self.a.skip(length)
        self.b.skip(length)

    def _gap(self, left: int, right: int) -> None:
        """Rows of which no row order agrees: pairs of one kind are changed, the rest stands alone."""
        contents = self.a.some("content", left).to_list(), self.b.some("content", right).to_list()
        wholes = self.a.some("whole", left).to_list(), self.b.some("whole", right).to_list()
        kinds = self.a.some("kind", left).to_list(), self.b.some("kind", right).to_list()
        i = j = same = moved = changed = 0
        for at, other in [*pairs_of(contents, kinds), (left, right)]:
            for n in range(i, min(at, i + self._wanted("only_a"))):
                self._note("only_a", n, None)
            for n in range(j, min(other, j + self._wanted("only_b"))):
                self._note("only_b", None, n)
            i, j = at + 1, other + 1
            if at == left:
                break
            if contents[0][at] != contents[1][other]:
                changed += 1
                self._note("changed", at, other)
            else:
                same += 1
                if wholes[0][at] != wholes[1][other]:
                    moved += 1
                    self._note("moved", at, other)
        pairs = same + changed
        self.counts += Counts(same, moved, changed, left - pairs, right - pairs)
        self.a.skip(left)
        self.b.skip(right)

    # --- the rest ---------------------------------------------------------------------------------------------------------------------------

    def _lone(self, side: Side, kind: str, count: int) -> None:
        """Rows that the other side does not have."""
        if not count:
            return
        for at in range(min(count, self._wanted(kind))):
            self._note(kind, *((at, None) if side is self.a else (None, at)))
        self.counts += Counts(only_a=count) if side is self.a else Counts(only_b=count)
        side.skip(count)

    def _count_coarsely(self, is_final: bool) -> bool:
        """Equal rows of a window, without regard to their order; False: more rows are needed."""
        if not is_final and min(self.a.left, self.b.left) < WINDOW_MAX:
            return False
        left, right = min(WINDOW_MAX, self.a.left), min(WINDOW_MAX, self.b.left)
        if is_final and max(self.a.left, self.b.left) <= 2 * WINDOW_MAX:
            left, right = self.a.left, self.b.left
        agreeing = {name: common(self.a.some(name, left), self.b.some(name, right)) for name in ("whole", "content", "kind")}
        same, pairs = agreeing["content"], max(agreeing["kind"], agreeing["content"])
        self.counts += Counts(same, max(0, same - agreeing["whole"]), pairs - same, left - pairs, right - pairs)
        self.a.skip(left)
        self.b.skip(right)
        return True

    def _wanted(self, kind: str) -> int:
        """How many more items of a kind are kept."""
        most = 1 if kind == "moved" else max(self.limit, 1)
        return most - len(self.items.get(kind, ()))

    def _note(self, kind: str, at: int | None, other: int | None) -> None:
        if self._wanted(kind) > 0:
            item = (kind, None if at is None else self.a.row(at), None if other is None else self.b.row(other))
            self.items.setdefault(kind, []).append(item)
