"""The commands that name code: analyze, who-wrote, export and the report, on a run of a guest with symbols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from guests_with_symbols import debug_guest
from perfetto_reader import read
from support import recorded, rows, tracekit

from tracekit.analyzers.findings import Finding
from tracekit.analyzers.report import content
from tracekit.symbols.symbols import Symbols


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the stripped guest with all writes, and the guest with its symbols."""
    made = tmp_path_factory.mktemp("commands")
    recorded(made / "run.tkt", "steal", max_instructions=200_000, capture="writes")
    debug_guest("steal", made / "steal.elf")
    return made


def ran(*words: object) -> str:
    """A command's output."""
    done = tracekit(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_analyze(folder: Path) -> None:
    """Each place in the code has its name; --symbols alone belongs to places."""
    run, named = folder / "run.tkt", f"--symbols={folder / 'steal.elf'}"
    told = json.loads(ran("analyze", run, "hypercalls", "--by", "pc", named, "--json"))["hypercalls"]
    assert {one["symbol"].split(" ")[0].split("+")[0] for one in told} == {"hvc", "start_vcpus"}
    lines = ran("analyze", run, "hypercalls", "--by", "pc", named).splitlines()
    assert sum("hvc (common/board.c:" in line for line in lines) >= 3
    assert "symbol" not in ran("analyze", run, "hypercalls", "--by", "pc")
    assert tracekit("analyze", run, "hypercalls", named).returncode == 2


def test_who_wrote(folder: Path) -> None:
    """The guest's own store has a name, the host's has none."""
    write = next(row for row in rows(folder / "run.tkt", "memory_writes") if row["origin"] == "guest" and row["pc"] is not None)
    named = f"--symbols={folder / 'steal.elf'}"
    words = ("who-wrote", folder / "run.tkt", hex(write["ipa"]), "--before", write["position"] + 1, "--limit", 1, named)
    told = json.loads(ran(*words, "--json"))["writes"]
    assert len(told) == 1 and told[0]["pc"] == write["pc"] and told[0]["symbol"].startswith("main+0x4 (steal/steal.c:")
    assert told[0]["symbol"] in ran(*words)
    host = json.loads(ran("who-wrote", folder / "run.tkt", "pvtime:0", "--limit", 1, named, "--json"))["writes"]
    assert [one["symbol"] for one in host if one["origin"] == "host"] == [None]


def test_export(folder: Path) -> None:
    """Chrome's arguments and Perfetto's; tables as files have none."""
    named = f"--symbols={folder / 'steal.elf'}"
    ran("export", folder / "run.tkt", "--to", "chrome", "-o", folder / "a.json", named)
    events: list[dict[str, Any]] = json.loads((folder / "a.json").read_text())["traceEvents"]
    calls = [one["args"] for one in events if one.get("cat") == "hypercalls"]
    assert calls and all(one["symbol"].startswith(("hvc", "start_vcpus")) for one in calls)
    ran("export", folder / "run.tkt", "--to", "perfetto", "-o", folder / "a.pftrace", named)
    assert b"common/board.c:" in (folder / "a.pftrace").read_bytes()
    read(folder / "a.pftrace")
    assert tracekit("export", folder / "run.tkt", "--to", "csv", "-o", folder / "csv", named).returncode == 2
    ran("export", folder / "run.tkt", "--to", "chrome", "-o", folder / "b.json")
    assert "symbol" not in (folder / "b.json").read_text()


def test_a_reports_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding's row of code has its symbol behind the pc; nothing is loaded where no row has one."""
    finding = Finding("H1", "hypercalls", 1, 0, 1, 0, "a", "b", 1)
    with_pc = content.Shown(finding, (("position", 1), ("pc", 0xFFFF_8000_0801_0004), ("el", 1)))
    without = content.Shown(finding, (("position", 1), ("pc", None)))
    asked = []

    def for_trace(trace: Any) -> Any:
        asked.append(trace)
        return Known()

    class Known:
        is_empty = False

        def text(self, pc: int | None) -> str | None:
            return None if pc is None else "vectors+0x4"

    monkeypatch.setattr(Symbols, "for_trace", for_trace)
    trace: Any = object()
    assert content._named(trace, [without]) == [without] and not asked
    found = content._named(trace, [with_pc, without])
    assert found[0].row == (("position", 1), ("pc", 0xFFFF_8000_0801_0004), ("symbol", "vectors+0x4"), ("el", 1))
    assert dict(found[1].row)["symbol"] is None and asked == [trace]
