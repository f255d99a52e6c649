"""Baselines: the metrics of named scenarios as small files beside the user's code. Spec: docs/analysis.md "baselines".

A baseline is `NAME.json` for the scenario `NAME.toml`: JSON with sorted keys, one metric a line, so that a change reads well in a review.
Values that depend on an installation (bytes on disk) are not in it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracekit.analyzers.compare import Comparison, compare_exactly
from tracekit.analyzers.identity import identity
from tracekit.analyzers.metric import CATALOGUE, Metric, metric, name_of
from tracekit.analyzers.metrics import metrics
from tracekit.analyzers.thresholds import NAME as THRESHOLDS
from tracekit.analyzers.thresholds import Thresholds, read_thresholds
from tracekit.formats.errors import DiskError, InputError
from tracekit.formats.reader import Trace
from tracekit.formats.units import plain
from tracekit.recorder.record import record
from tracekit.recorder.scenario import read_scenario

FORMAT, VERSION = "tracekit-baseline", 1
BYTES_MAX = 4 << 20
NUMBER_END = 1 << 96  # sums of nanoseconds and bytes are far below
_KEY = re.compile(r"([a-z0-9_.]+)(?:\[(\w+)\])?")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is kept of a scenario's run. scenario: its file, relative to the baseline's folder where it can be; guest: its images by hash."""

    scenario: str
    guest: tuple[tuple[str, str], ...]
    metrics: tuple[Metric, ...]

    def text(self) -> str:
        """The file's content."""
        document = {
            "format": FORMAT, "version": VERSION, "scenario": self.scenario, "guest": dict(self.guest),
            "metrics": {one.key: one.value for one in self.metrics},
        }  # fmt: skip
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Checked:
    """A baseline's outcome. trace: where the new run was kept, None if it was not; is_updated: the file now holds the new metrics."""

    name: str
    comparison: Comparison
    trace: Path | None
    is_updated: bool


def of_trace(trace: Trace, scenario: str = "") -> Baseline:
    """What is kept of a run. Errors: TraceDamaged."""
    kept = tuple(one for one in metrics(trace) if CATALOGUE[one.name].is_portable)
    return Baseline(scenario, tuple((role, sha256) for role, sha256 in identity(trace).guest), kept)


def read_baseline(path: Path) -> Baseline:
    """A baseline's file. Errors: InputError."""
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
        document = json.loads(raw) if len(raw) <= BYTES_MAX else None
    except OSError as error:
        raise InputError(f"cannot read the baseline {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no baseline, as it is no JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path}: no baseline (`tracekit baseline save` makes them)")
    if document.get("version") != VERSION:
        raise InputError(f"{path}: a baseline of version {document.get('version')!r}; this tracekit reads {VERSION}")
    values, guest, scenario = document.get("metrics"), document.get("guest"), document.get("scenario")
    if not isinstance(values, dict) or not isinstance(guest, dict) or not isinstance(scenario, str):
        raise InputError(f"{path}: a baseline has scenario, guest and metrics")
    if plain(scenario) != scenario or "\0" in scenario:
        raise InputError(f"{path}: scenario = {scenario!r}: no file can have that name")
    if not values:
        raise InputError(
            f"{path}: a baseline without a metric; nothing would be checked (`tracekit baseline check --update` renews it)"
        )
    kept = tuple(_metric(path, key, value) for key, value in values.items())
    return Baseline(scenario, tuple((str(role), str(sha256)) for role, sha256 in guest.items()), kept)


def _metric(path: Path, key: str, value: Any) -> Metric:
    match = _KEY.fullmatch(key)
    if match is None or name_of(key) not in CATALOGUE or (match[2] is not None and CATALOGUE[match[1]].parts is None):
        raise InputError(f"{path}: this tracekit has no metric {key!r}; `tracekit baseline check --update` renews the file")
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise InputError(f"{path}: {key} = {value!r}: a whole number, text or null is needed")
    if isinstance(value, int) and abs(value) >= NUMBER_END:
        raise InputError(f"{path}: {key}: a number of {len(str(value))} digits; no metric is that large")
    if isinstance(value, str):
        value = plain(value)
    return metric(match[1], value, match[2])


def save(folder: Path, scenario: Path, trace: Path, *, force: bool = False) -> Path:
    """Record a scenario into `trace` and keep its metrics. Errors: InputError where the name is taken, and those of recording."""
    target = folder / f"{scenario.stem}.json"
    told = _relative(scenario, folder)
    if target.exists() and not force:
        kept = read_baseline(target)
        if kept.scenario != told:
            raise InputError(
                f"{target}: belongs to the scenario {kept.scenario}, not {told}; scenarios of one folder need different names"
            )
    write(target, _recorded(scenario, trace, told))
    return target


def write(target: Path, baseline: Baseline) -> None:
    """Write a file whole or not at all. Errors: DiskError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_text(baseline.text(), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error.strerror}") from None


def names_in(folder: Path) -> list[str]:
    """The baselines of a folder. Errors: InputError where there is none."""
    names = sorted(path.stem for path in folder.glob("*.json"))
    if not names:
        raise InputError(f"{folder}: no baseline in it (`tracekit baseline save {folder} SCENARIO.toml` makes one)")
    return names


def check(
    folder: Path,
    names: Sequence[str],
    traces: Path,
    *,
    thresholds: Path | None = None,
    is_updating: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Checked]:
    """Record each baseline's scenario anew into `traces` and compare exactly. names: none means all.

    thresholds: default the folder's thresholds.toml. Errors: InputError, and those of recording.
    """
    rules = rules_of(folder, thresholds)
    known = names_in(folder)
    for name in names:
        if name not in known:
            raise InputError(f"{folder}: no baseline {name!r}; there are {', '.join(known)}")
    try:
        traces.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot keep traces in {traces}: {error.strerror}") from None
    out = []
    for name in names or known:
        target = folder / f"{name}.json"
        trace = traces / f"{name}.tkt"
        scenario = _scenario_of(target, is_updating)
        tell(f"recording {scenario}")
        new = _recorded(folder / scenario, trace, scenario)
        comparison = (
            against(target, new, rules, trace) if not is_updating or _is_readable(target) else _nothing(target, new, trace)
        )
        is_updated = is_updating and target.read_text(encoding="utf-8") != new.text()
        if is_updated:
            write(target, new)
        out.append(Checked(name, comparison, trace, is_updated))
    return out


def rules_of(folder: Path, thresholds: Path | None = None) -> Thresholds:
    """The thresholds that hold for a folder's baselines. Errors: InputError."""
    if thresholds is not None:
        return read_thresholds(thresholds)
    return read_thresholds(folder / THRESHOLDS) if (folder / THRESHOLDS).exists() else Thresholds()


def against(target: Path, new: Baseline, rules: Thresholds, trace: Path) -> Comparison:
    """A kept baseline against a new run's. Errors: InputError."""
    kept = read_baseline(target)
    rule = "the same scenario recorded anew: runs are exact, any difference is real"
    if kept.guest != new.guest:
        rule += "; the guest's images are not those of the baseline"
    return _compared(target, kept.metrics, new.metrics, rules, trace, rule)


def _compared(
    target: Path, kept: Sequence[Metric], new: Sequence[Metric], rules: Thresholds, trace: Path, rule: str
) -> Comparison:
    title = f"tracekit baseline {target.stem}"
    done = compare_exactly(kept, new, rules, names=(str(target), str(trace)), rule=rule, title=title)
    if done.verdict == "same":
        return done
    scenario = shlex.quote((target.parent / _scenario_of(target, True)).as_posix())
    return replace(done, notes=(*done.notes, f"the run again: tracekit record --scenario {scenario} -o {target.stem}.tkt"))


def _nothing(target: Path, new: Baseline, trace: Path) -> Comparison:
    """What --update makes of a file that this version cannot compare."""
    return _compared(target, new.metrics, new.metrics, Thresholds(), trace, "the baseline could not be compared, and is renewed")


def _is_readable(target: Path) -> bool:
    try:
        read_baseline(target)
    except InputError:
        return False
    return True


def _scenario_of(target: Path, is_updating: bool) -> str:
    """The scenario that a file names; with --update also of one whose metrics this version does not know."""
    if is_updating:
        try:
            scenario = json.loads(target.read_text(encoding="utf-8"))["scenario"]
            if isinstance(scenario, str) and plain(scenario) == scenario and "\0" not in scenario:
                return scenario
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
    return read_baseline(target).scenario


def _recorded(scenario: Path, trace: Path, told: str) -> Baseline:
    record(read_scenario(scenario), trace, force=True)
    opened = Trace.open(trace)
    try:
        return of_trace(opened, told)
    finally:
        opened.close()


def _relative(scenario: Path, folder: Path) -> str:
    """From the baseline's folder, with slashes; absolute where there is no such way (another drive)."""
    try:
        return Path(os.path.relpath(scenario.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return scenario.resolve().as_posix()
