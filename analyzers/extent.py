"""How far two traces can be compared: to the earlier end where one of them was cut short, and in the tables and rows that both have."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.analyzers.pairing import Limits, Place
from tracekit.formats.arrow import rows_of
from tracekit.formats.captures import told
from tracekit.formats.reader import Trace

EARLY = {
    "limit_vtime": "its limit of virtual time",
    "limit_instructions": "its limit of instructions",
    "interrupted": "it was interrupted",
    "recovered": "it was recovered",
}
CONSOLE_ROW_BYTES = 256


@dataclass(frozen=True, slots=True)
class Extent:
    """end: only rows before this (position, sequence); None: all. cut: the traces that end there. is_thin: only rows of thin capture."""

    end: Place | None
    cut: tuple[Trace, ...]
    is_thin: bool
    notes: tuple[str, ...]

    def limits(self, table: str) -> Limits:
        """Which rows of a table are compared: none that the end of a recording may have cut short. Errors: TraceDamaged."""
        end = self.end
        for trace in self.cut:
            last = _open_row(trace, table)
            end = end if last is None or end is None else min(end, last)
        return Limits(end, self.is_thin)


def extent_of(a: Trace, b: Trace) -> Extent:
    """What two traces have in common."""
    notes = []
    captures = [told(trace.manifest) for trace in (a, b)]
    is_thin = captures[0] != captures[1]
    if is_thin:
        notes.append(f"A was captured {captures[0]}, B {captures[1]}: only the rows of a thin capture are compared")
    ends = [int(trace.manifest["end"]["position"]) for trace in (a, b)]
    early = [_early(trace) for trace in (a, b)]
    is_alike = ends[0] == ends[1] and early[0] == early[1] != EARLY["recovered"]
    cuts = [(end, trace) for end, why, trace in zip(ends, early, (a, b), strict=True) if why is not None and end == min(ends)]
    if is_alike or not cuts:
        return Extent(None, (), is_thin, tuple(notes))
    for name, end, why in zip("AB", ends, early, strict=True):
        if why is not None:
            notes.append(f"{name} ends early, at position {end:,}: {why}")
    notes.append(f"compared up to their common end, before position {min(ends):,}")
    return Extent((min(ends), 0), tuple(trace for _, trace in cuts), is_thin, tuple(notes))


def _early(trace: Trace) -> str | None:
    reason = "recovered" if trace.manifest.get("recovered") is not None else str(trace.manifest["end"].get("reason"))
    return EARLY.get(reason)


def _open_row(trace: Trace, table: str) -> Place | None:
    """The last row of a table, where its event went on when the recording ended."""
    batches = trace.manifest["tables"][table]["batches"]
    if table not in ("console", "blocks") or not batches:
        return None
    last = batches[-1]
    if table == "console":
        batch = trace.batch(table, len(batches) - 1)
        data = next(iter(rows_of(batch.slice(batch.num_rows - 1))))[4]
        if data.endswith(b"\n") or len(data) >= CONSOLE_ROW_BYTES:
            return None
    return int(last["position"][1]), int(last["sequence"][1])
