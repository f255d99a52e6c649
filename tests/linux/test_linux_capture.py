"""A thin recording of Debian's kernel becomes a thick one: byte for byte what a recording of that capture is, and in a window of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pytest
from debian import kernel_of
from support import files_of, replayed, tracekit

from tracekit.formats.reader import Trace
from tracekit.formats.tables import THICK_SEQUENCE
from tracekit.formats.verify import verify

INSTRUCTIONS = 60_000_000
WINDOW = (25_000_123, 27_000_321)


def table(path: Path, name: str) -> pa.Table:
    """All rows, by pyarrow."""
    return pa.ipc.open_file(str(path / f"{name}.arrow")).read_all()


def in_window(rows: pa.Table) -> pa.Table:
    """Those that a window adds."""
    position = rows["position"]
    mask = pc.and_(pc.greater_equal(position, WINDOW[0]), pc.less(position, WINDOW[1]))
    return rows.filter(pc.and_(mask, pc.greater_equal(rows["sequence"], THICK_SEQUENCE)))


@pytest.mark.slow
def test_a_boot(tmp_path: Path) -> None:
    """The first 60 M instructions of a boot."""
    kernel, made = kernel_of("cloud"), {}
    for level in ("thin", "writes", "full"):
        made[level] = tmp_path / f"{level}.tkt"
        options = ("--capture", level, "--ram", "256M", "--max-instructions", INSTRUCTIONS, "--checkpoint-every", "10M")
        assert tracekit("record", kernel, "-o", made[level], *options).returncode == 0
    assert len(Trace.open(made["thin"]).manifest["checkpoints"]) >= 4
    new, window = tmp_path / "new.tkt", tmp_path / "window.tkt"
    assert tracekit("replay", made["thin"], "--capture", "writes", "--jobs", 2, "-o", new).returncode == 0
    wanted = {name: data for name, data in files_of(made["writes"]).items() if name.endswith(".arrow")}
    assert {name: data for name, data in files_of(new).items() if name.endswith(".arrow")} == wanted
    options = ("--capture", "full", "--from", WINDOW[0], "--to", WINDOW[1])
    assert tracekit("replay", made["thin"], *options, "-o", window).returncode == 0
    for name in ("memory_writes", "memory_reads", "blocks"):
        rows = table(window, name)
        assert in_window(rows).num_rows > 100_000 and in_window(rows).equals(in_window(table(made["full"], name)))
        thin = rows.filter(pc.less(rows["sequence"], THICK_SEQUENCE))
        assert thin.equals(table(made["thin"], name)) and thin.num_rows + in_window(rows).num_rows == rows.num_rows
    assert verify(window) == [] and replayed(window).is_identical
