"""A first divergence names its code; a replay that is identical loads no symbols."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guests_with_symbols import debug_guest
from support import recorded, rows, tracekit

from tracekit.formats.arrow import rows_of
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import TraceWriter


@pytest.fixture(scope="module")
def diverging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `steal` in which the third hypercall is said to have had another argument."""
    folder = tmp_path_factory.mktemp("divergence")
    recorded(folder / "run.tkt", "steal", max_instructions=100_000)
    trace = Trace.open(folder / "run.tkt")
    left = ("digest", "tables", "complete", "end", "images", "format", "checkpoints")
    writer = TraceWriter(folder / "bug.tkt", {key: value for key, value in trace.manifest.items() if key not in left})
    for image in trace.manifest["images"]:
        writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
    x1 = TABLES["hypercalls"].index("x1")
    for name in TABLES:
        number = 0
        for batch in trace.batches(name):
            for row in rows_of(batch):
                change = name == "hypercalls" and number == 2
                writer.append(name, (*row[:x1], row[x1] + 1, *row[x1 + 1 :]) if change else row)
                number += 1
    writer.close(trace.manifest["end"])
    debug_guest("steal", folder / "steal.elf")
    debug_guest("hello", folder / "hello.elf")
    return folder


def test_names_in_the_report(diverging: Path) -> None:
    """Text and JSON: the place, both events, and those before."""
    pc = rows(diverging / "bug.tkt", "hypercalls")[2]["pc"]
    done = tracekit("replay", diverging / "bug.tkt", "--symbols", diverging / "steal.elf")
    assert done.returncode == 1
    where = next(line for line in done.stdout.splitlines() if line.startswith("  where:"))
    assert f"pc {pc:#x} hvc (common/board.c:" in where
    assert sum("symbol=hvc" in line for line in done.stdout.splitlines()) >= 4
    done = tracekit("replay", diverging / "bug.tkt", "--symbols", diverging / "steal.elf", "--json")
    found: dict[str, Any] = json.loads(done.stdout)["divergence"]
    assert found["symbol"].startswith("hvc (")
    assert found["recorded"]["symbol"] == found["replayed"]["symbol"] == found["symbol"]
    assert all(event["symbol"].startswith("hvc (") for event in found["before"] if event["table"] == "hypercalls")


def test_a_wrong_file_costs_the_names_only(diverging: Path) -> None:
    """The verdict stays; without a file there are no names and no noise."""
    done = tracekit("replay", diverging / "bug.tkt", "--symbols", diverging / "hello.elf")
    assert done.returncode == 1 and "DIVERGED" in done.stdout and "symbol=" not in done.stdout
    assert "no symbols" in done.stderr and "not what the recorded guest has" in done.stderr
    plain = tracekit("replay", diverging / "bug.tkt")
    assert plain.returncode == 1 and plain.stdout == done.stdout and "symbols" not in plain.stderr
    assert json.loads(tracekit("replay", diverging / "bug.tkt", "--json").stdout)["divergence"]["symbol"] is None
    assert tracekit("replay", diverging / "bug.tkt", "--symbols", diverging / "missing.elf").returncode == 2


def test_no_symbols_where_they_are_not_needed(diverging: Path) -> None:
    """Help, dump without --symbols and an identical replay do not import the room."""
    for words in (["--help"], ["dump", "run.tkt", "hypercalls"], ["replay", "run.tkt", "--symbols", "steal.elf"]):
        code = (
            f"import sys; sys.argv = ['tracekit', *{words!r}]\n"
            "from tracekit.cli import main\n"
            "try: main()\n"
            "except SystemExit as stop: print(stop.code, [n for n in sys.modules if n.startswith('tracekit.symbols')], file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=diverging, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == "0 []", done.stderr
