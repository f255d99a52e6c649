"""The stream of a trace's rows: begun anywhere it is the rest of the whole one, with the same view back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import busy_host, recorded

from tracekit.formats.reader import Trace
from tracekit.formats.tables import THICK_SEQUENCE
from tracekit.formats.thick import ThickComparison
from tracekit.replay.divergence import Event
from tracekit.replay.events import EventStream, last_board_check


def drained(stream: EventStream) -> list[Event]:
    """Everything that is left."""
    out = []
    while stream.peek() is not None:
        out.append(stream.take())
    return out


@pytest.mark.parametrize("capture", ["thin", "full"])
def test_a_stream_begun_anywhere(tmp_path: Path, capture: str) -> None:
    """What follows, and the ten events before, are those of the stream from the beginning."""
    recorded(tmp_path / "a.tkt", "timer", host=busy_host("fair", pcpus=2), capture=capture, max_instructions=150_000)
    trace = Trace.open(tmp_path / "a.tkt")
    whole = drained(EventStream(trace))
    assert len(whole) > 100 and [one.row[:2] for one in whole] == sorted(one.row[:2] for one in whole)
    chosen = random.Random(5)
    for n in [1, 9, 10, 11, 12, len(whole) - 1, *(chosen.randrange(1, len(whole)) for _ in range(12))]:
        stream = EventStream(trace, whole[n].row[:2])
        assert stream.before() == tuple(whole[max(0, n - 10) : n]), n
        assert drained(stream) == whole[n:], n
        assert stream.taken == len(whole) - n
        checks = [one.row[0] for one in whole[:n] if one.table == "states" and one.row[4] == "board"]
        assert last_board_check(trace, whole[n].row[:2]) == (checks[-1] if checks else 0)


def test_an_open_console_row(tmp_path: Path) -> None:
    """A row that is being printed at the start has been taken; it is no event that agreed until it is whole."""
    recorded(tmp_path / "a.tkt", "hello")
    trace = Trace.open(tmp_path / "a.tkt")
    whole = drained(EventStream(trace))
    n = next(index for index, one in enumerate(whole) if one.table == "console" and index > 10)
    stream = EventStream(trace, whole[n + 1].row[:2], whole[n].row[:2])
    assert stream.printed() == whole[n] and stream.before() == tuple(whole[n - 10 : n])
    stream.end_print()
    assert stream.printed() is None and stream.before() == tuple(whole[n - 9 : n + 1])
    assert EventStream(trace, whole[n + 1].row[:2], (1, 1)).printed() is None
    assert EventStream(trace, whole[n].row[:2]).printed() is None


def test_thick_rows_from_a_position(tmp_path: Path) -> None:
    """The comparison starts at the first thick row of the instruction, and says what is left before another."""
    recorded(tmp_path / "a.tkt", "memory", capture="writes", max_instructions=50_000)
    trace = Trace.open(tmp_path / "a.tkt")
    thick = [row for row in trace.rows("memory_writes") if row[1] >= THICK_SEQUENCE]
    row = thick[len(thick) // 2]
    first = next(one for one in thick if one[0] == row[0])
    assert ThickComparison(trace, "memory_writes", row[0]).rest() == first
    assert ThickComparison(trace, "memory_writes", row[0]).rest(row[0]) is None
    assert ThickComparison(trace, "memory_writes", row[0]).rest(row[0] + 1) == first
    assert ThickComparison(trace, "memory_writes", thick[-1][0] + 1).rest() is None
