"""One metric of two sides, judged: exactly, or as two samples. Spec: docs/analysis.md "compare"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tracekit.analyzers import statistics
from tracekit.analyzers.metric import CATALOGUE, Better, Metric, Value, key_of
from tracekit.analyzers.thresholds import Threshold, Thresholds

Verdict = Literal["same", "better", "worse", "different", "inconclusive"]
# The worst first: what one metric says decides for the whole.
ORDER: tuple[Verdict, ...] = ("worse", "different", "inconclusive", "better", "same")
EXIT_CODES: dict[Verdict, int] = {"same": 0, "better": 0, "worse": 1, "different": 1, "inconclusive": 3}


@dataclass(frozen=True, slots=True)
class Side:
    """A metric's values on one side. value: of the one run, or the median; low, high: its 95 % interval, where there are several runs."""

    runs: int
    value: float | str | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a metric. change: b - a (of medians), in its unit; relative: as a share of a.

    p: of the rank test, p_adjusted: corrected for all metrics of the comparison; effect: Cliff's delta, above 0 where b is greater; low, high:
    the 95 % interval of the change. allowed: by how much it might have changed; reason: the threshold's. why: one line.
    """

    name: str
    of: str | None
    unit: str
    better: Better
    verdict: Verdict
    a: Side
    b: Side
    why: str
    change: float | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    effect: float | None = None
    allowed: float | None = None
    reason: str | None = None

    @property
    def key(self) -> str:
        """`wait.max_ns`, or `wait.max_ns[vcpu1]`."""
        return key_of(self.name, self.of)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""

        def side(one: Side) -> dict[str, Any]:
            return {name: getattr(one, name) for name in Side.__dataclass_fields__}

        plain = {name: getattr(self, name) for name in Judgement.__dataclass_fields__}
        return {"key": self.key, **plain, "a": side(self.a), "b": side(self.b)}


def _direction(metric: Metric, rule: Threshold | None) -> Better:
    return rule.better if rule is not None and rule.better is not None else metric.better


def _verdict(better: Better, change: float) -> Verdict:
    if better == "none":
        return "different"
    return "worse" if (change > 0) == (better == "lower") else "better"


def absent(metric: Metric) -> Value:
    """The value where a run has no such part: nothing was called so often, nothing was found; else none."""
    return 0 if metric.unit in ("count", "ns") and CATALOGUE[metric.name].parts in ("function", "invariant") else None


def judge_exactly(metric: Metric, a: Value, b: Value, thresholds: Thresholds) -> Judgement:
    """One run each, of one scenario and seed: any difference is real."""
    rule = thresholds.of(metric.key)
    better = _direction(metric, rule)
    reason = rule.reason if rule is not None else None
    done = Judgement(metric.name, metric.of, metric.unit, better, "same", Side(1, a), Side(1, b), "equal", reason=reason)
    if a == b:
        return done
    if isinstance(a, int) and isinstance(b, int):
        change = b - a
        allowed = rule.allowed(a) if rule is not None else None
        done = replace(done, change=change, relative=change / abs(a) if a else None, allowed=allowed)
        if allowed is not None and abs(change) <= allowed:
            return replace(done, why="within its threshold")
        return replace(
            done, verdict=_verdict(better, change), why="beyond its threshold" if allowed is not None else "runs are exact"
        )
    if a is None or b is None:
        return replace(done, verdict="different", why=f"only {'the second' if a is None else 'the first'} run has a value")
    return replace(done, verdict="different", why="runs are exact")


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's values over the runs of both sides."""

    metric: Metric
    a: Sequence[Value]
    b: Sequence[Value]

    @property
    def is_text(self) -> bool:
        """Hashes and words."""
        return self.metric.unit in ("sha256", "word")

    def numbers(self) -> tuple[list[float], list[float]] | None:
        """The values, if every run has one."""
        a, b = ([float(value) for value in side if isinstance(value, int | float)] for side in (self.a, self.b))
        return (a, b) if len(a) == len(self.a) and len(b) == len(self.b) else None

    @property
    def is_constant(self) -> bool:
        """Every run of both sides has the same value, or none."""
        return len({*self.a, *self.b}) == 1

    @property
    def is_varying_text(self) -> bool:
        """A hash or word that differs from run to run within a side: there is nothing to compare."""
        return self.is_text and (len(set(self.a)) > 1 or len(set(self.b)) > 1)


def judge_samples(samples: Sequence[Sample], thresholds: Thresholds) -> list[Judgement]:
    """Sets of runs, as distributions; the correction is for all metrics that are tested here together."""
    tested = {
        index: both for index, one in enumerate(samples) if not one.is_constant and not one.is_text and (both := one.numbers())
    }
    p = {index: statistics.mann_whitney(*both) for index, both in tested.items()}
    adjusted = dict(zip(p, statistics.holm(list(p.values())), strict=True))
    out = []
    for index, sample in enumerate(samples):
        if index in tested:
            done = _judge_numbers(sample, *tested[index], p[index], adjusted[index], len(tested), thresholds)
        else:
            done = _judge_others(sample, thresholds)
        out.append(done)
    return out


def _judge_others(sample: Sample, thresholds: Thresholds) -> Judgement:
    """Constants, texts, and what some runs have no value for."""
    metric, rule = sample.metric, thresholds.of(sample.metric.key)
    a, b = (Side(len(side), side[0] if len(set(side)) == 1 else None) for side in (sample.a, sample.b))
    done = Judgement(
        metric.name, metric.of, metric.unit, _direction(metric, rule), "same", a, b, "equal in every run",
        reason=rule.reason if rule is not None else None,
    )  # fmt: skip
    if sample.is_constant:
        return done
    if sample.is_text and not sample.is_varying_text:
        p = statistics.least_p(len(sample.a), len(sample.b))
        if p <= thresholds.alpha:
            return replace(done, verdict="different", p=p, why="one value in every run of the first side, another in the second")
        return replace(done, verdict="inconclusive", p=p, why="too few runs")
    without = sum(value is None for value in (*sample.a, *sample.b))
    return replace(done, verdict="inconclusive", why=f"{without} of {len(sample.a) + len(sample.b)} runs have no value")


def _judge_numbers(
    sample: Sample, a: list[float], b: list[float], p: float, adjusted: float, count: int, thresholds: Thresholds
) -> Judgement:
    metric, rule = sample.metric, thresholds.of(sample.metric.key)
    before, after = statistics.median(a), statistics.median(b)
    low, high = statistics.shift_interval(a, b)
    effect = statistics.cliffs_delta(a, b)
    allowed = rule.allowed(before) if rule is not None else None
    change = after - before
    done = Judgement(
        metric.name, metric.of, metric.unit, _direction(metric, rule), "inconclusive",
        Side(len(a), before, *statistics.median_interval(a)), Side(len(b), after, *statistics.median_interval(b)), "",
        change=change, relative=change / abs(before) if before else None, low=low, high=high, p=p, p_adjusted=adjusted, effect=effect,
        allowed=allowed, reason=rule.reason if rule is not None else None,
    )  # fmt: skip
    if adjusted <= thresholds.alpha:
        if allowed is not None and abs(change) <= allowed:
            return replace(done, verdict="same", why="a real shift, within its threshold")
        return replace(done, verdict=_verdict(done.better, effect), why="a real shift")
    margin = allowed if allowed is not None else thresholds.margin * abs(before)
    if -margin <= low and high <= margin:
        return replace(done, verdict="same", why="no shift, and none beyond the margin is likely")
    if statistics.least_p(len(a), len(b)) * count > thresholds.alpha:
        return replace(done, why="too few runs: no difference of so few could be told from chance")
    return replace(done, why="no shift is certain, and none beyond the margin excluded: more runs are needed")


def whole(judgements: Sequence[Judgement]) -> Verdict:
    """The worst of all."""
    return min((one.verdict for one in judgements), key=ORDER.index, default="same")


def values_of(metrics: Sequence[Metric]) -> Mapping[str, Metric]:
    """By key."""
    return {one.key: one for one in metrics}
