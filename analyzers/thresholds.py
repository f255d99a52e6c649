"""How much a metric may change, from a TOML file; each rule with its reason. Spec: docs/analysis.md "compare"."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tracekit.analyzers.metric import CATALOGUE, Better, is_known, name_of, near
from tracekit.formats.errors import InputError
from tracekit.formats.units import parse_duration_ns, parse_size

NAME = "thresholds.toml"
SETS = "sets"
_KEYS = ("absolute", "relative", "better", "ignore", "reason")
_NUMBER_MAX = 1e30  # what every sum of it still holds
_NOT_NUMBERS = ("sha256", "word")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A rule for one metric. absolute: in its unit; relative: a share of the first side's value; a change within either is none."""

    key: str
    reason: str
    absolute: float | None = None
    relative: float | None = None
    better: Better | None = None
    is_ignored: bool = False

    def allowed(self, base: float) -> float | None:
        """The greatest change that is none, in the metric's unit; None: nothing is said of it."""
        both = [
            *([self.absolute] if self.absolute is not None else []),
            *([self.relative * abs(base)] if self.relative is not None else []),
        ]
        return max(both) if both else None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All rules. alpha: the chance of any false finding in one comparison of sets; margin: below which share of the median
    two sets are called the same where a metric has no rule of its own."""

    rules: Mapping[str, Threshold] = field(default_factory=dict)
    alpha: float = 0.05
    margin: float = 0.05

    def of(self, key: str) -> Threshold | None:
        """The rule for a metric: of its key (`wait.max_ns[vcpu1]`), else of its name."""
        return self.rules.get(key) or self.rules.get(name_of(key))


def read_thresholds(path: Path) -> Thresholds:
    """A file of rules. Errors: InputError naming file, metric and what is allowed."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the thresholds {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits, brackets in thousands
        raise InputError(f"{path}: not TOML: {error}") from None
    try:
        return parse_thresholds(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_thresholds(document: Mapping[str, Any]) -> Thresholds:
    """The rules of a TOML document. Errors: InputError."""
    rules = {key: _rule(key, table) for key, table in document.items() if key != SETS}
    sets = document.get(SETS, {})
    if not isinstance(sets, dict) or set(sets) - {"alpha", "margin"}:
        raise InputError(f"[{SETS}]: has alpha and margin")
    alpha, margin = (_share(f"{SETS}.{key}", sets.get(key, 0.05)) for key in ("alpha", "margin"))
    if not 0 < alpha < 1:
        raise InputError(f"{SETS}.alpha = {alpha!r}: a number between 0 and 1 is needed")
    return Thresholds(rules, alpha, margin)


def _rule(key: str, table: Any) -> Threshold:
    if not is_known(key):
        looks = near(key, [SETS])
        raise InputError(
            f"no metric {key!r}{'; did you mean ' + ', '.join(looks) + '?' if looks else ''} (`tracekit compare --list`)"
        )
    if not isinstance(table, dict):
        raise InputError(f'["{key}"]: must be a table with reason and some of {", ".join(_KEYS[:-1])}')
    for one in table:
        if one not in _KEYS:
            raise InputError(f'["{key}"].{one}: no such key; a threshold has {", ".join(_KEYS)}')
    reason = table.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(f'["{key}"]: every threshold needs a reason = "..."')
    if len(table) < 2:
        raise InputError(f'["{key}"]: says nothing beside its reason; give some of {", ".join(_KEYS[:-1])}')
    unit = CATALOGUE[name_of(key)].unit
    better, ignore = table.get("better"), table.get("ignore", False)
    if better not in (None, "lower", "higher", "none"):
        raise InputError(f'["{key}"].better = {better!r}: must be lower, higher or none')
    if not isinstance(ignore, bool):
        raise InputError(f'["{key}"].ignore = {ignore!r}: must be true or false')
    if unit in _NOT_NUMBERS and {"absolute", "relative", "better"} & set(table):
        raise InputError(f'["{key}"]: it is no number; only ignore = true can be said of it')
    absolute = None if "absolute" not in table else _amount(f'["{key}"].absolute', table["absolute"], unit)
    relative = None if "relative" not in table else _share(f'["{key}"].relative', table["relative"])
    return Threshold(key, reason.strip(), absolute, relative, cast("Better | None", better), ignore)


def _amount(key: str, value: Any, unit: str) -> float:
    if isinstance(value, str) and unit in ("ns", "bytes"):
        try:
            return parse_duration_ns(value) if unit == "ns" else parse_size(value)
        except InputError as error:
            raise InputError(f"{key} = {value!r}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _NUMBER_MAX:
        raise InputError(f"{key} = {value!r}: a number of {unit} that is not negative is needed")
    return value


def _share(key: str, value: Any) -> float:
    """5 %, as "5%" or 0.05."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            value = float(value.strip()[:-1]) / 100
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _NUMBER_MAX:
        raise InputError(f'{key} = {value!r}: a share that is not negative is needed, for example "5%" or 0.05')
    return float(value)
