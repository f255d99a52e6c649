"""Standing inside a recorded run from Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.walk import Walk
from tracekit.workbench.trace import TraceView

ENGINES = ("fast", "exact", "safe")


def session(trace: str | Path | TraceView, *, engine: str = "fast") -> Walk:
    """Open a recorded run to stand inside of, at its beginning: step both ways, run to breakpoints, look at registers and memory.

    A context manager; nothing is replayed beyond what is walked, and nothing is changed. engine: as for `replay`.
    Errors: TraceError where the trace cannot be used, InputError for another engine.
    """
    if engine not in ENGINES:
        raise InputError(f"engine = {engine!r}: must be one of {', '.join(ENGINES)}")
    opened = Trace.open(trace.place if isinstance(trace, TraceView) else trace, verify="lazy")
    try:
        return Walk(opened, ReplayOptions(mode=engine), owns_trace=True)
    except BaseException:
        opened.close()
        raise


@dataclass(frozen=True, slots=True)
class Replayed(Result):
    """What `tracekit.replay` found, and of which trace. Fields of Result; path; engine."""

    path: Path = Path()
    engine: str = "fast"

    @classmethod
    def of(cls, result: Result, path: Path, engine: str) -> Self:
        """A result with the place of its trace."""
        found = result.divergence, result.position, result.vtime_ns, result.events, result.is_whole, result.warnings
        return cls(*found, from_position=result.from_position, path=path, engine=engine)

    def session(self) -> Walk:
        """Stand inside the run that was replayed. Whoever does not want it verified first asks for tracekit.session(path)."""
        return session(self.path, engine=self.engine)
