"""A thin trace made thicker from Python. This room is entered only when something must be replayed."""

from __future__ import annotations

from pathlib import Path

from tracekit.formats.captures import LEVELS
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.replay.capture import capture, plan_of
from tracekit.replay.options import ReplayOptions
from tracekit.replay.windows import diverged


def captured(
    path: Path, level: str, from_position: int | None, to_position: int | None, output: str | Path | None, jobs: int, force: bool
) -> Path:
    """As TraceView.capture; gives the new trace's path. Errors: those of that method."""
    if level not in LEVELS:
        raise InputError(f"level = {level!r}: must be one of {', '.join(LEVELS)}")
    target = path.with_name(f"{path.name.removesuffix('.tkt')}.{level}.tkt") if output is None else Path(output)
    trace = Trace.open(path, verify="all")
    try:
        plan = plan_of(trace, level, from_position, to_position)
        result = capture(path, target, plan, ReplayOptions(), jobs=jobs, force=force)
        if result.divergence is not None:
            raise diverged(trace, result.divergence)
    finally:
        trace.close()
    return target
