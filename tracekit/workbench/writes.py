"""Who wrote to an address, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tracekit.formats.reader import Trace
from tracekit.replay.who_wrote import Answer, Write

_COLUMNS = ("position", "vtime_ns", "vcpu", "pc", "ipa", "size", "value", "origin", "cause", "row")
_HEX = frozenset({"pc", "ipa", "value"})


def as_dict(trace: Trace, answer: Answer) -> dict[str, Any]:
    """The answer for programs."""
    return {
        "trace": str(trace.path),
        "ipa": answer.ipa,
        "size": answer.size,
        "before": answer.before,
        "writes": [write.as_dict() for write in answer.writes],
        "is_all": answer.is_all,
        "initial": answer.initial,
        "replayed": [list(stretch) for stretch in answer.replayed],
    }


def lines(trace: Trace, answer: Answer) -> Iterator[str]:
    """The answer for people: a table, what no write accounts for, and the command that shows the newest write's proof."""
    where = f"{answer.ipa:#x}" if answer.size == 1 else f"{answer.ipa:#x} to {answer.ipa + answer.size - 1:#x}"
    if answer.writes:
        texts = [_COLUMNS, *(tuple(_cell(write, name) for name in _COLUMNS) for write in answer.writes)]
        widths = [max(len(row[index]) for row in texts) for index in range(len(_COLUMNS))]
        for row in texts:
            yield "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    else:
        yield f"{trace.path}: no write to {where} before position {answer.before:,}"
    if answer.initial is not None:
        yield answer.initial
    if answer.writes:
        yield f"proof: {answer.writes[0].command}"


def _cell(write: Write, name: str) -> str:
    value = getattr(write, name)
    if value is None:
        return "replayed" if name == "row" else "-"
    if name == "row" and write.table != "memory_writes":
        return f"{write.table} {value}"
    return f"{value:#x}" if name in _HEX else str(value)
