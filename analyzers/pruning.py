"""Which batches of a table a predicate can hold in, by the ranges that the manifest keeps of each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

Ranges = Mapping[str, tuple[int, int]]
Test = Callable[[Ranges], bool]
DEPTH_MAX = 200


@dataclass(frozen=True, slots=True)
class _Comparison:
    """An operator, the same with its sides exchanged, and whether some value from least to greatest stands so to a number."""

    operator: Callable[[Any, Any], Any]
    turned: Callable[[Any, Any], Any]
    is_possible: Callable[[float, int, int], bool]  # number, least, greatest


_COMPARISONS = (
    _Comparison(operator.ge, operator.le, lambda number, least, greatest: greatest >= number),
    _Comparison(operator.gt, operator.lt, lambda number, least, greatest: greatest > number),
    _Comparison(operator.le, operator.ge, lambda number, least, greatest: least <= number),
    _Comparison(operator.lt, operator.gt, lambda number, least, greatest: least < number),
    _Comparison(operator.eq, operator.eq, lambda number, least, greatest: least <= number <= greatest),
)


def might_hold(predicate: pl.Expr | None) -> Test:
    """A test of a batch's ranges (name: (least, greatest)): False only where no row of the batch can satisfy the predicate.

    AND, OR, comparisons with literals, BETWEEN and IN are understood; whatever else may hold anywhere.
    """
    return _anything if predicate is None else _test(predicate, 0)


def conjuncts(predicate: pl.Expr | None) -> list[pl.Expr]:
    """The parts that must all hold."""
    if predicate is None:
        return []
    sides = _sides(predicate)
    if sides is None or not predicate.meta.eq(sides[0] & sides[1]):
        return [predicate]
    return [*conjuncts(sides[0]), *conjuncts(sides[1])]


def _anything(ranges: Ranges) -> bool:
    return True


def _sides(expression: pl.Expr) -> tuple[pl.Expr, pl.Expr] | None:
    """Left and right of an expression of two inputs."""
    inputs = expression.meta.pop()
    return (inputs[1], inputs[0]) if len(inputs) == 2 else None


def _test(predicate: pl.Expr, depth: int) -> Test:
    if depth > DEPTH_MAX:
        return _anything
    inputs = predicate.meta.pop()
    if len(inputs) == 3:
        return _between(predicate, inputs[2], inputs[1], inputs[0])
    if len(inputs) != 2:
        return _anything
    right, left = inputs
    if predicate.meta.eq(left & right):
        first, second = _test(left, depth + 1), _test(right, depth + 1)
        return lambda ranges: first(ranges) and second(ranges)
    if predicate.meta.eq(left | right):
        first, second = _test(left, depth + 1), _test(right, depth + 1)
        return lambda ranges: first(ranges) or second(ranges)
    return _comparison(predicate, left, right)


def _comparison(predicate: pl.Expr, left: pl.Expr, right: pl.Expr) -> Test:
    name = _column(left)
    if name is not None and predicate.meta.eq(left.is_in(right)):
        return _is_in(name, right)
    is_turned = name is None  # the literal stands on the left
    if name is None:
        name = _column(right)
    value = _number(left) if is_turned else _number(right)
    can = next((one for one in _COMPARISONS if predicate.meta.eq(one.operator(left, right))), None)
    if name is None or value is None or can is None:
        return _anything
    if is_turned:
        can = next(one for one in _COMPARISONS if one.operator is can.turned)
    return _within(name, partial(can.is_possible, value))


def _between(predicate: pl.Expr, column: pl.Expr, low: pl.Expr, high: pl.Expr) -> Test:
    name, least_wanted, greatest_wanted = _column(column), _number(low), _number(high)
    if name is None or least_wanted is None or greatest_wanted is None:
        return _anything
    if not any(predicate.meta.eq(column.is_between(low, high, closed)) for closed in ("both", "left", "right", "none")):
        return _anything
    return _within(name, lambda least, greatest: greatest >= least_wanted and least <= greatest_wanted)


def _is_in(name: str, listed: pl.Expr) -> Test:
    if not listed.meta.is_literal():
        return _anything
    values = pl.select(listed).to_series()
    if isinstance(values.dtype, pl.List | pl.Array):
        values = values.explode()
    if not values.dtype.is_numeric():
        return _anything
    wanted = values.drop_nulls().to_list()
    return _within(name, lambda least, greatest: any(least <= value <= greatest for value in wanted))


def _within(name: str, can: Callable[[int, int], bool]) -> Test:
    return lambda ranges: name not in ranges or can(*ranges[name])


def _column(expression: pl.Expr) -> str | None:
    """The name, if the expression is a plain column."""
    names = expression.meta.root_names()
    return names[0] if len(names) == 1 and expression.meta.eq(pl.col(names[0])) else None


def _number(expression: pl.Expr) -> int | float | None:
    """The value, if the expression is a plain number."""
    if not expression.meta.is_literal():
        return None
    values = pl.select(expression).to_series()
    value = values[0] if len(values) == 1 else None
    return value if isinstance(value, int | float) else None
