"""The alignment alone: sequences of numbers with what was put in, taken out and changed."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.analyzers import align
from tracekit.analyzers.align import Budget, Lane
from tracekit.analyzers.difference import Counts

Rows = list[tuple[int, int]]  # (content, kind); a row's place is its number


def aligned(
    a: Rows, b: Rows, *, step: int = 1 << 20, budget: int = align.SEARCHED_MAX, limit: int = 5, has_places: bool = True
) -> Lane:
    """Fed in pieces."""
    lane = Lane(Budget(budget), limit, has_places)
    for at in range(0, max(len(a), len(b)), step):
        for side, rows in ((lane.a, a), (lane.b, b)):
            piece = rows[at : at + step]
            if piece:
                side.append(frame(piece, at))
        lane.advance(is_final=False)
    lane.advance(is_final=True)
    assert lane.is_empty
    return lane


def frame(rows: Rows, first: int) -> pl.DataFrame:
    """As fingerprints give it."""
    numbers = range(first, first + len(rows))
    columns = {
        "row": numbers,
        "whole": [hash((number, row)) & ((1 << 62) - 1) for number, row in zip(numbers, rows, strict=True)],
        "content": [row[0] for row in rows],
        "kind": [row[1] for row in rows],
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(align.COLUMNS, pl.UInt64))


def distinct(count: int, kinds: int = 3) -> Rows:
    """Rows of unlike content."""
    return [(1000 + n, n % kinds) for n in range(count)]


@pytest.mark.parametrize("step", [1 << 20, 1000, 37])
@pytest.mark.parametrize("count", [1, 10, 100, 1000, 5000])
def test_an_insertion_is_found(count: int, step: int) -> None:
    """However long it is and however the rows arrive; what is behind it is the same."""
    rows = distinct(20_000)
    put_in = [(7, 0)] * count
    lane = aligned(rows, [*rows[:500], *put_in, *rows[500:]], step=step)
    assert lane.counts == Counts(same=20_000, moved=lane.counts.moved, only_b=count)
    assert lane.counts.moved > 19_000 and lane.items["only_b"][0] == ("only_b", None, 500)


def test_a_repetitive_sequence() -> None:
    """As of `schedule`: run and preempt by turns, with one sleep and wake between that only A has."""
    turns: Rows = [(1, 1), (2, 2)] * 3000
    lane = aligned([*turns[:1000], (3, 3), (4, 4), *turns[1000:]], turns, has_places=False)
    assert lane.counts == Counts(same=6000, moved=lane.counts.moved, only_a=2)
    assert lane.items["only_a"] == [("only_a", 1000, None), ("only_a", 1001, None)]
    lane = aligned([*turns[:1000], (3, 3), (4, 4), *turns[1000:]], turns)  # here the rows behind them stand at the same places
    assert lane.counts == Counts(same=5998, only_a=4, only_b=2)


def test_values_that_all_differ() -> None:
    """Row beside row of the same kind: changed, without a search at each."""
    a, b = distinct(50_000), [(content + (1 << 40), kind) for content, kind in distinct(50_000)]
    lane = aligned(a, b)
    assert lane.counts == Counts(changed=50_000) and len(lane.items["changed"]) == 5
    assert align.SEARCHED_MAX - lane.budget.left < 400_000


def test_a_gap_with_pairs() -> None:
    """Rows of one kind are changed, the others stand alone, in order."""
    rows = distinct(100)
    a = [*rows[:50], (1, 90), (2, 91), *rows[50:]]
    b = [*rows[:50], (3, 91), (4, 92), *rows[50:]]
    lane = aligned(a, b)
    assert lane.counts == Counts(same=100, moved=0, changed=1, only_a=1, only_b=1)
    assert lane.items["changed"] == [("changed", 51, 50)]
    assert lane.items["only_a"] == [("only_a", 50, None)] and lane.items["only_b"] == [("only_b", None, 51)]


def test_too_many_places_are_counted_coarsely() -> None:
    """Without a budget equal rows are counted without their order; the sums hold."""
    a, b = distinct(3000), distinct(3000)
    random.Random(1).shuffle(b)
    lane = aligned(a, [*b, (5, 77)], budget=0)
    assert lane.is_coarse and lane.counts == Counts(same=3000, moved=lane.counts.moved, only_b=1)
    assert not aligned(a, a, budget=0).is_coarse


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=120), st.lists(st.integers(0, 5), max_size=120), st.sampled_from([1, 9, 1000]), st.booleans()
)  # fmt: skip
def test_sums_hold(left: list[int], right: list[int], step: int, is_coarse: bool) -> None:
    """Every row is counted once; never more rows are the same than both sides have; itself is the same."""
    a, b = [(n, n % 3) for n in left], [(n, n % 3) for n in right]
    lane = aligned(a, b, step=step, budget=0 if is_coarse else 1 << 20, limit=1000)
    counts = lane.counts
    assert counts.same + counts.changed + counts.only_a == len(a) and counts.same + counts.changed + counts.only_b == len(b)
    assert counts.moved <= counts.same <= (Counter(a) & Counter(b)).total()
    assert aligned(a, a, step=step).counts == Counts(same=len(a))
    if not is_coarse:
        for kind in ("changed", "only_a", "only_b"):
            places = [item[1:] for item in lane.items.get(kind, ())]
            assert places == sorted(places, key=lambda item: [one for one in item if one is not None])
            assert len(places) == getattr(counts, kind)
