"""Two sides of runs by their metrics, and the rule by which they are compared. Spec: docs/analysis.md "compare".

Same scenario and seed: exactly, one run each is enough. Sets of runs: as distributions. One run each that differ in seed or scenario:
inconclusive, as nobody can tell chance from change.
"""

from __future__ import annotations

import fnmatch
import glob
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tracekit.analyzers.identity import Identity, differing, hypervisors, identity
from tracekit.analyzers.metric import CATALOGUE, Metric, near
from tracekit.analyzers.metrics import metrics as metrics_of
from tracekit.analyzers.thresholds import Thresholds
from tracekit.analyzers.verdict import (
    EXIT_CODES,
    Judgement,
    Sample,
    Side,
    Verdict,
    absent,
    judge_exactly,
    judge_samples,
    values_of,
    whole,
)
from tracekit.formats.errors import InputError
from tracekit.formats.manifest import NAME as MANIFEST
from tracekit.formats.reader import Trace

Mode = Literal["exact", "sets", "single"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """a, b: the paths. mode: exact, sets or single (one run each that cannot be compared); rule: why so, in words.

    diff: the command that shows where two runs part; None where there is nothing to show. title: what was asked for.
    """

    mode: Mode
    rule: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    verdict: Verdict
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...] = ()
    diff: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    title: str = "tracekit compare"

    @property
    def exit_code(self) -> int:
        """0 same or better, 1 worse or different, 3 inconclusive."""
        return EXIT_CODES[self.verdict]

    def of(self, *verdicts: Verdict) -> list[Judgement]:
        """The metrics with these verdicts, in the catalogue's order."""
        return [one for one in self.judgements if one.verdict in verdicts]

    def as_json(self) -> dict[str, Any]:
        """Plain values; the form is analyzers/compare.schema.json."""
        return {
            "format": "tracekit-comparison", "version": 1, "mode": self.mode, "rule": self.rule, "verdict": self.verdict,
            "exit_code": self.exit_code, "a": list(self.a), "b": list(self.b), "diff": self.diff, "notes": list(self.notes),
            "alpha": self.thresholds.alpha, "margin": self.thresholds.margin, "metrics": [one.as_json() for one in self.judgements],
        }  # fmt: skip


def compare(
    a: Sequence[Trace], b: Sequence[Trace], thresholds: Thresholds | None = None, *, only: Sequence[str] = (), parts: bool = False
) -> Comparison:
    """Two sides. only: names or patterns (`steal.*`) of the metrics that count; parts: sets also by vCPU, function, table.

    Errors: InputError where the traces cannot be compared (with the reason) or a pattern names nothing; TraceDamaged.
    """
    thresholds = thresholds or Thresholds()
    sides = [identity(trace) for trace in a], [identity(trace) for trace in b]
    mode, rule, notes = _plan(*sides)
    left_out = _left_out(*sides, notes)
    values = [[values_of(metrics_of(trace)) for trace in side] for side in (a, b)]
    names = _ordered([one for side in values for one in side])
    names = [one for one in names if one.name not in left_out and (parts or mode != "sets" or one.of is None)]
    names = _chosen(names, only, thresholds, notes)
    samples = [Sample(one, *(tuple(_value(run, one) for run in side) for side in values)) for one in names]
    judgements = _judged(mode, samples, thresholds, notes)
    verdict = "inconclusive" if mode == "single" else whole(judgements)
    diff = _diff_command(*sides) if verdict != "same" and mode != "single" else None
    left, right = (tuple(one.path for one in side) for side in sides)
    return Comparison(mode, rule, left, right, verdict, tuple(judgements), tuple(notes), diff, thresholds)


def compare_exactly(
    a: Sequence[Metric],
    b: Sequence[Metric],
    thresholds: Thresholds | None = None,
    *,
    names: tuple[str, str],
    rule: str,
    title: str,
) -> Comparison:
    """Kept metrics against new ones of the same scenario (`tracekit baseline check`). names: what the sides are called.

    What either side does not have at all (made by another version) is noted, not compared.
    """
    thresholds = thresholds or Thresholds()
    both = values_of(a), values_of(b)
    known = {one.name for one in a} & {one.name for one in b}
    notes = [
        f"not compared, as only {where} has it: {name}"
        for side, where in ((a, names[0]), (b, names[1]))
        for name in dict.fromkeys(one.name for one in side)
        if name not in known
    ]
    chosen = _chosen([one for one in _ordered(both) if one.name in known], (), thresholds, notes)
    judgements = [judge_exactly(one, _value(both[0], one), _value(both[1], one), thresholds) for one in chosen]
    verdict = whole(judgements)
    return Comparison("exact", rule, names[:1], names[1:], verdict, tuple(judgements), tuple(notes), None, thresholds, title)


def expand(texts: Sequence[str], what: str) -> list[Path]:
    """Traces that paths name: a trace, a folder of `*.tkt`, or a pattern. Errors: InputError where there is none."""
    out: list[Path] = []
    for text in texts:
        path = Path(text)
        if path.is_dir() and not (path / MANIFEST).is_file():
            found = sorted(path.glob("*.tkt"))
            if not found:
                raise InputError(f"{what}: {text}: no trace, and no folder of *.tkt")
        elif not path.exists() and glob.has_magic(text):
            found = sorted(Path(one) for one in glob.glob(text))
            if not found:
                raise InputError(f"{what}: no trace matches {text!r}")
        else:
            found = [path]
        out += [one for one in found if one not in out]
    return out


def _plan(a: list[Identity], b: list[Identity]) -> tuple[Mode, str, list[str]]:
    """Which of the three ways, in words, and what is to be noted. Errors: InputError where there is none."""
    for side, name in ((a, "first"), (b, "second")):
        if not side:
            raise InputError(f"the {name} side has no trace")
    _check_whole([*a, *b])
    counts = {one.vcpus for one in (*a, *b)}
    if len(counts) > 1:
        told = ", ".join(f"{one.path} has {one.vcpus}" for one in (a[0], next(o for o in (*a, *b) if o.vcpus != a[0].vcpus)))
        raise InputError(
            f"guests with different numbers of vCPUs cannot be compared: {told}; neither totals nor vCPUs correspond"
        )
    between = hypervisors(a[0], b[0])
    notes = [f"the hypervisors differ: {between}"] if between else []
    apart = differing(a[0], b[0])
    if len(a) == len(b) == 1:
        if not apart:
            return "exact", "same scenario and seed: runs are exact, any difference is real", notes
        return "single", f"one run each, and they differ in {'; '.join(apart)}: give sets of runs with several seeds", notes
    for side, name in ((a, "first"), (b, "second")):
        _check_set(side, name)
    apart = differing(replace(a[0], seed=0), replace(b[0], seed=0))
    if apart:
        notes.append(f"the sides differ in {'; '.join(apart)}")
    return "sets", f"sets of {len(a)} and {len(b)} runs: distributions", notes


def _check_whole(runs: list[Identity]) -> None:
    """A recovered trace ends where its recording broke off: only one that ends at the same place compares with it."""
    cut = [one for one in runs if one.recovered_at is not None]
    if cut and (len(runs) != 2 or len({one.recovered_at for one in runs}) != 1):
        raise InputError(
            f"{cut[0].path}: recovered, it ends at position {cut[0].recovered_at} where its recording broke off; "
            "its totals cannot be compared: record it anew (replaying gives no more than is there)"
        )


def _check_set(side: list[Identity], name: str) -> None:
    """One scenario and hypervisor, and no run twice."""
    seeds: dict[int, str] = {}
    for one in side:
        told = differing(replace(side[0], seed=0), replace(one, seed=0))
        told += [text for text in (hypervisors(side[0], one),) if text]
        if told:
            raise InputError(f"the {name} side mixes scenarios: {side[0].path} and {one.path} differ in {'; '.join(told)}")
        if one.seed in seeds:
            raise InputError(f"the {name} side has a run twice: {seeds[one.seed]} and {one.path} have seed {one.seed}")
        seeds[one.seed] = one.path


def _left_out(a: list[Identity], b: list[Identity], notes: list[str]) -> set[str]:
    """Metrics that have no meaning across the sides."""
    out: set[str] = set()
    if a[0].guest != b[0].guest:
        out |= {kind.name for kind in CATALOGUE.values() if kind.is_of_guest}
        notes.append(f"the guests differ: not compared are {', '.join(sorted(out))}")
    if len({str(one.capture) for one in (*a, *b)}) > 1:
        out |= {"trace.rows", "trace.bytes"}
        notes.append("the captures differ: the sizes of traces are not compared")
    return out


def _ordered(runs: Sequence[Mapping[str, Metric]]) -> list[Metric]:
    """Every metric that some run has, in the catalogue's order."""
    every: dict[str, Metric] = {}
    for run in runs:
        for key, one in run.items():
            every.setdefault(key, one)
    order = {name: index for index, name in enumerate(CATALOGUE)}
    return sorted(every.values(), key=lambda one: order[one.name])


def _chosen(names: list[Metric], only: Sequence[str], thresholds: Thresholds, notes: list[str]) -> list[Metric]:
    """Without what is ignored, and with what is asked for."""
    ignored = sorted(rule.key for rule in thresholds.rules.values() if rule.is_ignored)
    for key in ignored:
        notes.append(f"not compared: {key} ({thresholds.rules[key].reason})")
    names = [one for one in names if not ((rule := thresholds.of(one.key)) and rule.is_ignored)]
    if not only:
        return names
    for pattern in only:
        if not any(_matches(one, pattern) for one in names):
            looks = near(pattern)
            raise InputError(f"no metric {pattern!r}{'; did you mean ' + ', '.join(looks) + '?' if looks else ''}")
    return [one for one in names if any(_matches(one, pattern) for pattern in only)]


def _matches(metric: Metric, pattern: str) -> bool:
    return metric.key == pattern or fnmatch.fnmatchcase(metric.name, pattern)


def _value(run: Mapping[str, Metric], metric: Metric) -> Any:
    return run[metric.key].value if metric.key in run else absent(metric)


def _judged(mode: Mode, samples: list[Sample], thresholds: Thresholds, notes: list[str]) -> list[Judgement]:
    if mode == "exact":
        return [judge_exactly(one.metric, one.a[0], one.b[0], thresholds) for one in samples]
    if mode == "sets":
        varying = [one.metric.key for one in samples if one.is_varying_text]
        if varying:
            notes.append(f"not compared, as they vary from run to run within a side: {', '.join(varying)}")
        return judge_samples([one for one in samples if not one.is_varying_text], thresholds)
    return [
        Judgement(
            one.metric.name, one.metric.of, one.metric.unit, one.metric.better, "inconclusive", Side(1, one.a[0]), Side(1, one.b[0]),
            "one run each",
        )
        for one in samples
    ]  # fmt: skip


def _diff_command(a: list[Identity], b: list[Identity]) -> str | None:
    """Shows where a run of each side part: the first pair with one seed, if there is one."""
    for one in a:
        for other in b:
            if one.seed == other.seed and one.conditions == other.conditions and one.path != other.path:
                return f"tracekit diff {shlex.quote(one.path)} {shlex.quote(other.path)}"
    return None
