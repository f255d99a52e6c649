"""Recording, replaying and comparing from Python: what the commands do, in one call each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tracekit.analyzers.compare import Comparison, expand
from tracekit.analyzers.compare import compare as compare_traces
from tracekit.analyzers.diff import diff as diff_traces
from tracekit.analyzers.difference import Difference
from tracekit.analyzers.thresholds import Thresholds, read_thresholds
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.recorder.record import record as record_scenario
from tracekit.recorder.scenario import SECTIONS, Scenario, read_scenario, scenario_of
from tracekit.replay.capture import capture as write_captured
from tracekit.replay.capture import plan_of
from tracekit.replay.options import ReplayOptions
from tracekit.replay.verify import verify
from tracekit.workbench.demo import bundled_guest
from tracekit.workbench.many import ManyView
from tracekit.workbench.trace import TraceView
from tracekit.workbench.walking import ENGINES, Replayed

Runs = str | Path | TraceView | ManyView | Iterable[str | Path | TraceView]
# Keywords of `record` that a scenario file has in a section: name: (section, key).
_KEYWORDS: dict[str, tuple[str, str]] = {
    **{key: (section, key) for section in ("guest", "time", "host", "hypervisor", "limits") for key in SECTIONS[section]},
    "capture": ("capture", "level"), "watch": ("capture", "watch"), "engine": ("engine", "mode"),
    **{key: ("capture", key) for key in ("checkpoints", "checkpoint_every")},
}  # fmt: skip


def record(
    guest: str | Path | Scenario | Mapping[str, Any], output: str | Path, *, force: bool = False, **options: Any
) -> TraceView:
    """Record a guest into a new trace, and open it; how the run ended stands in its `manifest["end"]`.

    guest: a guest's file, the name of a bundled guest (`steal`), a scenario file (.toml), a scenario as a dict of the same form, or a
    Scenario. options: keys of a scenario file without their section (vcpus=2, ram="64M", pcpus=1, neighbours=["50%:2ms"],
    faults=["wrong-unit"], max_vtime="5s", capture="writes", watch=["0x40100000:64"], seed=7); they go before what the file or dict says.
    force: replace an existing trace once the new one is whole.
    Errors: InputError naming the key; DiskError, TraceExistsError.
    """
    recorded = record_scenario(configured(guest, options), Path(output), force=force)
    return TraceView(Trace.open(recorded.path))


def configured(guest: str | Path | Scenario | Mapping[str, Any], options: Mapping[str, Any]) -> Scenario:
    """The scenario that `record` runs. Errors: InputError."""
    document = _document(options)
    if isinstance(guest, Scenario):
        base = guest
    elif isinstance(guest, Mapping):
        base = scenario_of(guest, Path())
    elif Path(guest).suffix == ".toml":
        base = read_scenario(Path(guest))
    else:
        base = Scenario(image=str(guest_file(guest)))
    if not base.image and "image" not in document.get("guest", {}):
        raise InputError("guest.image is missing: which guest?")
    return scenario_of(document, Path(), base)


def guest_file(guest: str | Path) -> Path:
    """A guest's file; a bare name that is no file here may be that of a bundled guest."""
    path = Path(guest)
    if not path.is_file() and len(path.parts) == 1 and bundled_guest(str(guest)).is_file():
        return bundled_guest(str(guest))
    return path


def _document(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords as a scenario document. Errors: InputError."""
    out: dict[str, Any] = {}
    for name, value in options.items():
        if name in ("seed", "inputs"):
            out[name] = value
        elif name in _KEYWORDS:
            section, key = _KEYWORDS[name]
            out.setdefault(section, {})[key] = list(value) if isinstance(value, tuple) else value
        else:
            raise InputError(f"{name}: no such option of a run; there are seed, inputs, {', '.join(_KEYWORDS)}")
    return out


def replay(
    trace: str | Path | TraceView,
    *,
    from_position: int | None = None,
    to_position: int | None = None,
    jobs: int = 1,
    executor: Executor | None = None,
    capture: str | None = None,
    output: str | Path | None = None,
    force: bool = False,
    engine: str = "fast",
) -> Replayed:
    """Replay a trace from its own content and compare everything that happens; `is_identical` says whether all of it agreed.

    from_position: begin at the last checkpoint at or before it. to_position: stop there. jobs: verify the stretches between checkpoints in
    so many processes, or tasks of `executor`, which is left running; the result is the same. capture, output: write a new trace with
    what is captured on the way (thin, writes or full; default: as recorded) between these positions. engine: "fast", "exact" (only what Unicorn documents) or
    "safe" (every store checked for changed code). A divergence is the result's, not an exception. `session()` of the
    result stands inside the run, as tracekit.session(path) does at once.
    Errors: TraceError where the trace cannot be used, InputError, DiskError, TraceExistsError.
    """
    _one_of("capture", capture, (None, "thin", "writes", "full"))
    _one_of("engine", engine, ENGINES)
    options = ReplayOptions(capture=capture, mode=engine, to_position=to_position, from_position=from_position)
    opened = Trace.open(trace.place if isinstance(trace, TraceView) else trace, verify="lazy" if output is None else "all")
    try:
        if output is None:
            result = verify(opened, options, jobs=jobs, executor=executor)
        else:
            plan = plan_of(opened, capture, from_position, to_position)
            result = write_captured(opened.path, Path(output), plan, options, jobs=jobs, executor=executor, force=force)
        return Replayed.of(result, opened.path.absolute(), engine)
    finally:
        opened.close()


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} = {value!r}: must be one of {', '.join(str(one) for one in allowed if one is not None)}")


def _listed(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def diff(
    a: str | Path | TraceView,
    b: str | Path | TraceView,
    *,
    ignore: str | Iterable[str] = (),
    tables: str | Iterable[str] | None = None,
) -> Difference:
    """Where two runs first differ, why, and what differs after it, event by event.

    ignore: a column that is not compared, or several. tables: only this, or these. Errors: InputError where they cannot be compared; TraceError.
    """
    with ExitStack() as stack:
        mine, theirs = _traces(a, "a", stack), _traces(b, "b", stack)
        for side, name in ((mine, "a"), (theirs, "b")):
            if len(side) != 1:
                raise InputError(f"{name}: {len(side)} traces; diff takes one on each side, compare takes sets")
        return diff_traces(mine[0], theirs[0], ignore=_listed(ignore), tables=None if tables is None else _listed(tables))


def compare(
    a: Runs, b: Runs, *, thresholds: Thresholds | Path | str | None = None, only: str | Iterable[str] = (), parts: bool = False
) -> Comparison:
    """Whether the runs `b` are as good as the runs `a`: their metrics, and a verdict for each and for all.

    a, b: a path, a folder of traces, a pattern, a view, or several of them. thresholds: a value or a TOML file. only: a name or pattern of
    the metrics that count, or several. parts: sets also by vCPU, function, table. Errors: InputError where they cannot be compared; TraceError.
    """
    limits = read_thresholds(Path(thresholds)) if isinstance(thresholds, str | Path) else thresholds
    with ExitStack() as stack:
        mine, theirs = _traces(a, "a", stack), _traces(b, "b", stack)
        return compare_traces(mine, theirs, limits, only=_listed(only), parts=parts)


def _traces(runs: Runs, side: str, stack: ExitStack) -> list[Trace]:
    """The traces of a side; those that are opened here are closed with the stack. Errors: InputError, TraceError."""

    def opened(path: Path) -> Trace:
        trace = Trace.open(path)
        stack.callback(trace.close)
        return trace

    if isinstance(runs, ManyView):
        return [opened(path) for path in runs.paths]
    listed: list[str | Path | TraceView] = [runs] if isinstance(runs, str | Path | TraceView) else list(runs)
    out: list[Trace] = []
    for one in listed:
        out += [one.trace] if isinstance(one, TraceView) else [opened(path) for path in expand([str(one)], side)]
    return out
