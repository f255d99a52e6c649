"""Everything that a guest writes, from the native buffers to the tables: buffers that are swapped, lent and filled up to a batch's end."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, files_of, recorded, rows

from tracekit.formats.reader import Trace
from tracekit.formats.table_writer import TableWriter
from tracekit.formats.tables import BATCH_ROWS
from tracekit.machine.capture import CaptureBuffers

LIMIT = 1_260_000  # instructions, every sixth of which stores


def tables_of(path: Path) -> dict[str, bytes]:
    """Every table's bytes."""
    return {name: content for name, content in files_of(path).items() if name.endswith(".arrow")}


def test_every_store_of_a_loop(tmp_path: Path) -> None:
    """Several buffers full: each store once, in order, with its value and place; the slow reference agrees byte for byte."""
    recorded(tmp_path / "a.tkt", "stores", vcpus=1, ram=32 << 20, capture="full", max_instructions=LIMIT)
    stores = [row for row in rows(tmp_path / "a.tkt", "memory_writes") if row["size"] == 8 and row["value"] % 3 == 0][-200_000:]
    assert len(stores) == 200_000 > 3 * BATCH_ROWS
    for before, row in pairwise(stores):
        step = (row["position"] - before["position"], row["ipa"] - before["ipa"], row["value"] - before["value"])
        assert step == (6, 8, 3) and row["pc"] == before["pc"]
    options: dict[str, Any] = {"vcpus": 1, "ram": 32 << 20, "capture": "full", "max_instructions": LIMIT}
    recorded(tmp_path / "b.tkt", "stores", engine_counting="instruction", **options)
    assert tables_of(tmp_path / "a.tkt") == tables_of(tmp_path / "b.tkt")


@pytest.mark.parametrize("capture", ["writes", "full"])
def test_full_buffers_need_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capture: str) -> None:
    """Thin rows between thick ones move the batch's end; the buffer after them is full just there, so that later ones go as they are."""
    counts: list[tuple[int, int]] = []
    add = TableWriter.add_columns

    def watched(self: TableWriter, columns: Any, count: int, *, is_lent: bool) -> None:
        if is_lent and self.table == "memory_writes":
            counts.append((self._waiting, count))
        add(self, columns, count, is_lent=is_lent)

    monkeypatch.setattr(TableWriter, "add_columns", watched)
    host = busy_host(pcpus=1)
    recorded(tmp_path / "a.tkt", "stores", vcpus=1, ram=32 << 20, capture=capture, max_instructions=LIMIT, host=host)
    assert len(counts) >= 3 and all(waiting + count == BATCH_ROWS for waiting, count in counts)
    assert counts[-1] == (0, BATCH_ROWS)
    assert Trace.open(tmp_path / "a.tkt", verify="all").row_count("memory_writes") > 3 * BATCH_ROWS


def test_buffers_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the writer's queue can hold, however much is captured."""
    made: list[object] = []
    take = CaptureBuffers.take

    def counted(self: CaptureBuffers) -> Any:
        columns = take(self)
        if not any(columns is one for one in made):
            made.append(columns)
        return columns

    monkeypatch.setattr(CaptureBuffers, "take", counted)
    recorded(tmp_path / "a.tkt", "stores", vcpus=1, ram=32 << 20, capture="writes", max_instructions=6_000_000)
    assert Trace.open(tmp_path / "a.tkt").row_count("memory_writes") > 14 * BATCH_ROWS
    assert len(made) <= 7
