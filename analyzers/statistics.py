"""What two samples say: rank test, correction for many tests, effect size, bootstrap interval. Plain Python, deterministic.

The rank test is Mann and Whitney's: exact without ties and for small samples, else the normal approximation with tie and continuity correction.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

EXACT_MAX = 20  # of the smaller sample; beyond it the normal approximation is as good
RESAMPLES = 999
_SEED = 20_240_217


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def pairs_won(a: Sequence[float], b: Sequence[float]) -> float:
    """U of b: in how many pairs b's value is the greater one; equal ones count a half."""
    ranks, _ = _ranks([*a, *b])
    return sum(ranks[len(a) :]) - len(b) * (len(b) + 1) / 2


def cliffs_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """How much likelier b's values are the greater ones than the smaller ones: -1 to 1, 0 for none."""
    return 2 * pairs_won(a, b) / (len(a) * len(b)) - 1


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p: how likely two samples of one distribution differ so much in their ranks. 1 where all values are equal."""
    (_, ties), count_a, count_b = _ranks([*a, *b]), len(a), len(b)
    won = pairs_won(a, b)
    if not ties and min(count_a, count_b) <= EXACT_MAX and max(count_a, count_b) <= 4 * EXACT_MAX:
        counts = _exact(count_a, count_b)
        least = round(min(won, count_a * count_b - won))
        return min(1.0, 2 * sum(counts[: least + 1]) / math.comb(count_a + count_b, count_a))
    total = count_a + count_b
    variance = count_a * count_b / 12 * (total + 1 - sum(one**3 - one for one in ties) / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = (abs(won - count_a * count_b / 2) - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(max(z, 0.0) / math.sqrt(2)))


def least_p(count_a: int, count_b: int) -> float:
    """The smallest p that samples of these sizes can reach, without ties."""
    return min(1.0, 2 / math.comb(count_a + count_b, count_a))


def holm(values: Sequence[float]) -> list[float]:
    """Each p corrected for all of them, after Holm: the chance of any false one among those under alpha stays under alpha."""
    adjusted = [0.0] * len(values)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
        reached = max(reached, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = reached
    return adjusted


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap of the median: between which values it lies."""
    return _between(_medians(values, 0), confidence)


def shift_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap of the difference of the medians, b's - a's."""
    return _between([after - before for before, after in zip(_medians(a, 0), _medians(b, 1), strict=True)], confidence)


def _ranks(values: Sequence[float]) -> tuple[list[float], list[int]]:
    """Each value's rank from 1, equal ones sharing the mean; and the sizes of groups of equal ones."""
    order = sorted(range(len(values)), key=lambda one: values[one])
    ranks, ties = [0.0] * len(values), []
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for index in order[begin:end]:
            ranks[index] = (begin + 1 + end) / 2
        if end - begin > 1:
            ties.append(end - begin)
        begin = end
    return ranks, ties


@functools.lru_cache(maxsize=64)
def _exact(count_a: int, count_b: int) -> tuple[int, ...]:
    """How many of all orders of two samples have each U: the coefficients of the Gaussian binomial."""
    size = count_a * count_b + 1
    counts = [1] + [0] * (size - 1)
    for one in range(1, count_a + 1):
        factor = count_b + one
        for index in range(size - 1, factor - 1, -1):  # times (1 - q^factor)
            counts[index] -= counts[index - factor]
        for index in range(one, size):  # by (1 - q^one)
            counts[index] += counts[index - one]
    return tuple(counts)


@functools.lru_cache(maxsize=32)
def _middles(count: int, stream: int) -> tuple[tuple[int, int], ...]:
    """Which of `count` ordered values stand in the middle of each resample (one twice where their number is odd); the same at every call."""
    source = random.Random(_SEED + stream)
    draws = (sorted(source.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return tuple((one[(count - 1) // 2], one[count // 2]) for one in draws)


def _medians(values: Sequence[float], stream: int) -> list[float]:
    """Medians of the resamples: order is kept by resampling, so that only two places of each are needed."""
    ordered = sorted(values)
    return [(ordered[low] + ordered[high]) / 2 for low, high in _middles(len(ordered), stream)]


def _between(values: list[float], confidence: float) -> tuple[float, float]:
    ordered = sorted(values)
    outside = int((1 - confidence) / 2 * (len(ordered) + 1))
    return ordered[max(outside - 1, 0)], ordered[min(len(ordered) - outside, len(ordered) - 1)]
