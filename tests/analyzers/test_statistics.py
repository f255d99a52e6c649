"""The statistics against scipy, and their own laws."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tracekit.analyzers import statistics as ours

SAMPLES = st.lists(st.integers(-30, 30), min_size=2, max_size=26)
DISTINCT = st.lists(st.integers(0, 10**9), min_size=4, max_size=40, unique=True)


@settings(max_examples=300, deadline=None)
@given(a=SAMPLES, b=SAMPLES)
def test_rank_test_with_ties_is_scipys(a: list[int], b: list[int]) -> None:
    """Normal approximation with tie and continuity correction."""
    if len({*a, *b}) == len(a) + len(b):
        a = [*a, a[0]]
    if len({*a, *b}) == 1:
        assert ours.mann_whitney(a, b) == 1.0
        return
    assert ours.mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="asymptotic").pvalue, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(values=DISTINCT, cut=st.integers(1, 20))
def test_rank_test_without_ties_is_scipys(values: list[int], cut: int) -> None:
    """Exact for small samples."""
    cut = min(cut, len(values) - 1)
    a, b = values[:cut], values[cut:]
    assert ours.mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue, abs=1e-12)


def test_rank_test_of_large_samples() -> None:
    """Beyond the exact table, the approximation."""
    source = random.Random(5)
    a, b = ([source.random() + shift for _ in range(200)] for shift in (0, 0.05))
    assert ours.mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="asymptotic").pvalue, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(a=SAMPLES, b=SAMPLES)
def test_effect_size_counts_pairs(a: list[int], b: list[int]) -> None:
    """Cliff's delta by its definition."""
    plain = sum((y > x) - (y < x) for x in a for y in b) / (len(a) * len(b))
    assert ours.cliffs_delta(a, b) == pytest.approx(plain)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_the_step_down_rule(values: list[float]) -> None:
    """Under alpha after correction if and only if the step-down procedure rejects."""
    adjusted = ours.holm(values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, index in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
            if (len(values) - rank) * values[index] > alpha:
                break
            rejected.add(index)
        assert {index for index, p in enumerate(adjusted) if p <= alpha} == rejected


def test_the_least_p() -> None:
    """Three against three can never be under 0.05."""
    assert ours.least_p(3, 3) == pytest.approx(ours.mann_whitney([1, 2, 3], [4, 5, 6])) == 0.1
    assert ours.least_p(4, 4) == pytest.approx(stats.mannwhitneyu([1, 2, 3, 4], [5, 6, 7, 8], method="exact").pvalue)


def test_bootstrap_is_scipys_and_repeats() -> None:
    """The same interval at every call; near to scipy's percentile bootstrap of the same median."""
    source = random.Random(3)
    values = [source.gauss(100, 5) for _ in range(25)]
    low, high = ours.median_interval(values)
    assert (low, high) == ours.median_interval(list(values))
    theirs = stats.bootstrap((values,), lambda x, axis: __import__("numpy").median(x, axis=axis), method="percentile", rng=1)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=1.0)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=1.0)
    assert low <= ours.median(values) <= high


def test_intervals_cover_the_truth() -> None:
    """A 95 % interval of a difference of medians holds the true one about so often (a percentile bootstrap is a little narrow)."""
    source = random.Random(11)
    held = 0
    for _ in range(300):
        a, b = ([source.gauss(mean, 3) for _ in range(20)] for mean in (50, 52))
        low, high = ours.shift_interval(a, b)
        held += low <= 2 <= high
    assert 270 <= held <= 297
