"""Names of the code in a divergence's report. Nothing is loaded where a replay is identical."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracekit.formats.errors import TracekitError
from tracekit.formats.reader import Trace
from tracekit.replay.divergence import Result

Namer = Callable[[Any], str | None]


def no_names(pc: Any) -> str | None:
    """The namer where nothing is named."""
    return None


def namer_for(trace: Trace, result: Result, extra: Path | None, tell: Callable[[str], None]) -> Namer:
    """Gives the symbol of a pc, None where it has none. A wrong `extra` is told and costs the names, never the report."""
    if result.divergence is None:
        return no_names
    from tracekit.symbols.symbols import Symbols

    try:
        symbols = Symbols.for_trace(trace, extra)
    except TracekitError as error:
        tell(f"no symbols: {error}")
        return no_names
    if symbols.is_empty and (symbols.is_kernel or extra is not None):
        tell(f"no symbols: {symbols.how}")

    def name(pc: Any) -> str | None:
        try:
            return symbols.text(pc) if isinstance(pc, int) else None
        except TracekitError:
            found = symbols.name(pc)  # damaged debug information: the name alone
            return None if found is None else str(found)

    return name
