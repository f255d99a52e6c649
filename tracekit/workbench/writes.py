"""Who wrote to an address, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tracekit.formats.reader import Trace
from tracekit.replay.who_wrote import Answer, Write

Names = Callable[[int | None], str | None]  # the symbol of a pc, None where it has none
_COLUMNS = ("position", "vtime_ns", "vcpu", "pc", "ipa", "size", "value", "origin", "cause", "row")
_HEX = frozenset({"pc", "ipa", "value"})


def as_dict(trace: Trace, answer: Answer, names: Names | None = None) -> dict[str, Any]:
    """The answer for programs. names: each write also has its pc's symbol."""
    writes = [write.as_dict() for write in answer.writes]
    if names is not None:
        writes = [{**write, "symbol": names(write["pc"])} for write in writes]
    return {
        "trace": str(trace.path),
        "ipa": answer.ipa,
        "size": answer.size,
        "before": answer.before,
        "writes": writes,
        "is_all": answer.is_all,
        "initial": answer.initial,
        "replayed": [list(stretch) for stretch in answer.replayed],
    }


def lines(trace: Trace, answer: Answer, names: Names | None = None) -> Iterator[str]:
    """The answer for people: a table, what no write accounts for, and the command that shows the newest write's proof."""
    where = f"{answer.ipa:#x}" if answer.size == 1 else f"{answer.ipa:#x} to {answer.ipa + answer.size - 1:#x}"
    if answer.writes:
        texts = [_COLUMNS, *(tuple(_cell(write, name) for name in _COLUMNS) for write in answer.writes)]
        if names is not None:
            symbols = ["symbol", *(names(write.pc) or "-" for write in answer.writes)]
            texts = [(*row, symbol) for row, symbol in zip(texts, symbols, strict=True)]
        widths = [max(len(row[index]) for row in texts) for index in range(len(texts[0]))]
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
