"""Traces become a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tracekit.analyzers.report.content import content_of
from tracekit.analyzers.report.differences import differences_of
from tracekit.analyzers.report.page import render
from tracekit.formats.reader import Trace


def page_of(
    paths: Sequence[Path | str], *, from_ns: int | None = None, to_ns: int | None = None, policy: str | None = None
) -> str:
    """One trace or two as one HTML page. from_ns, to_ns: what the timeline shows.

    Errors: InputError (also where the extra `report` is missing), and what opening and reading a trace raises.
    """
    traces: list[Trace] = []
    try:
        for path in paths:
            traces.append(Trace.open(path))
        contents = [content_of(one, from_ns=from_ns, to_ns=to_ns, policy=policy) for one in traces]
        return render(contents, differences_of(*traces) if len(traces) == 2 else None)
    finally:
        for one in traces:
            one.close()
