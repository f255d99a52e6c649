"""Where two short sequences of rows meet again, and which rows of a gap belong together."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

MATCHES = 3
CELLS_MAX = 1024  # of the table by which a gap's rows are paired


def common(a: pl.Series, b: pl.Series) -> int:
    """How many rows of two bags agree."""
    counts = [side.alias("number").value_counts(name="count") for side in (a, b)]
    both = counts[0].join(counts[1], on="number")
    return int(both.select(pl.min_horizontal("count", "count_right").sum()).item())


def meeting(a: list[int], b: list[int], matches: int = MATCHES) -> tuple[int, int] | None:
    """The nearest (offset in a, offset in b) from which `matches` numbers agree: the least sum of both, then the least difference."""
    grams: dict[tuple[int, ...], int] = {}
    for at in range(len(b) - matches, -1, -1):
        grams[tuple(b[at : at + matches])] = at
    best: tuple[int, int, int, int] | None = None
    for at in range(len(a) - matches + 1):
        if best is not None and at > best[0]:
            break
        other = grams.get(tuple(a[at : at + matches]))
        if other is not None:
            found = (at + other, abs(at - other), at, other)
            best = found if best is None else min(best, found)
    return None if best is None else (best[2], best[3])


def pairs_of(contents: tuple[list[int], list[int]], kinds: tuple[list[int], list[int]]) -> list[tuple[int, int]]:
    """Rows of a gap that belong together, in order on both sides: as many of the same content as can be, then of the same kind.

    In a wide gap only rows that stand beside each other.
    """
    left, right = len(kinds[0]), len(kinds[1])
    if kinds[0] == kinds[1] and not set(contents[0]) & set(contents[1]):
        return list(zip(range(left), range(right), strict=True))
    if left * right > CELLS_MAX:
        return [(n, n) for n in range(min(left, right)) if kinds[0][n] == kinds[1][n]]
    score = [[0] * (right + 1) for _ in range(left + 1)]
    for i in range(left - 1, -1, -1):
        for j in range(right - 1, -1, -1):
            score[i][j] = max(score[i + 1][j], score[i][j + 1], score[i + 1][j + 1] + _worth(contents, kinds, i, j))
    i = j = 0
    pairs = []
    while i < left and j < right:
        worth = _worth(contents, kinds, i, j)
        if worth and score[i][j] == score[i + 1][j + 1] + worth:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif score[i][j] == score[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _worth(contents: Sequence[list[int]], kinds: Sequence[list[int]], i: int, j: int) -> int:
    if contents[0][i] == contents[1][j]:
        return 2
    return int(kinds[0][i] == kinds[1][j])
