"""The benchmark suite itself: every line of the page has its figures, pages are made from stored results, a theme runs. Nothing here fails by the clock."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

HERE = REPOSITORY / "tests" / "benchmarks"
STORED = REPOSITORY / "docs" / "performance.json"
# Targets of the issue that the suite was built for: (line, what holds, how many figures hold it).
TARGETS = {
    "boot": [1.0, 1.15], "checkpoints": [1.15], "smp_one": [1.3, 1.3], "smp_many": [1.6, 1.6], "unrecorded": [1.03], "replay": [1.1],
    "jobs": [1.8], "log": [0.0004], "capture": [5e6], "seek": [1.0, 1.0], "query": [100.0, 100.0], "memory": [150.0] * 4, "help": [1.2],
    "hello": [3.0],
}  # fmt: skip


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's modules find each other as when one of them is run."""
    monkeypatch.syspath_prepend(str(HERE))


def module(name: str) -> Any:
    """One of the suite's."""
    return importlib.import_module(name)


def results(**figures: dict[str, Any]) -> dict[str, Any]:
    """Stored results with these figures."""
    conditions = {
        "date": "2026-11-25 01:00 UTC", "commit": "0123456789ab", "cpu": "A processor", "cores": 2, "memory_gib": 8.0, "kernel": "Linux 6",
        "versions": {"python": "3.11.2", "unicorn": "2.1.4"}, "qemu": "QEMU 7", "guest_kernel": "vmlinuz-6", "environment": "fresh",
        "rounds": 3, "quick": False,
    }  # fmt: skip
    theme = {"load_before": [0.1, 0, 0], "load_after": [1.0, 0, 0], "seconds": 60.0, "date": "2026-11-25 01:00 UTC"}
    return {"conditions": conditions, "themes": {"startup": theme}, "figures": figures}


def told(measured: float | None, **more: Any) -> dict[str, Any]:
    """A figure as it is stored."""
    values = [] if measured is None else [measured - 0.25, measured, measured + 0.5]
    return {"measured": measured, "values": values, "command": "tracekit x", "note": "", "unavailable": None, **more}


def test_every_line_has_its_targets() -> None:
    """No line of the page without a figure; the targets are the issue's; growth is held too."""
    figures = module("figures")
    assert len(figures.BY_KEY) == len(figures.FIGURES)
    held: dict[str, list[float]] = {line: [] for line in figures.LINES}
    for figure in figures.FIGURES:
        assert figure.theme in figures.THEMES
        if figure.target is not None:
            held[figure.line].append(figure.target)
    grown = held.pop("growth")
    assert {line: sorted(found) for line, found in held.items()} == TARGETS
    assert len(grown) == 6


def test_every_theme_has_a_module() -> None:
    """Each can be run, and says how."""
    for theme, name in module("figures").THEMES.items():
        assert callable(module(name).run)
        assert f"python tests/benchmarks/{name}.py" in module(name).__doc__, theme


def test_the_page_says_what_is_met_and_missed() -> None:
    """Verdicts in both directions, the profile and the reason of a miss, what could not be measured."""
    text = module("page").page(
        results(
            help=told(1.0),
            hello=told(3.5, profile=[["Python", 60.5], ["host kernel", 39.5]]),
            replay_jobs=told(1.5, no_profile="perf is not here"),
            capture_store=told(6e6),
            query_last=told(None, unavailable="`tracekit` knows no who-wrote"),
        )
    )
    lines = text.splitlines()
    assert "| CPU time | <= 1.20 | 1.00 | 0.75 to 1.50 | met |" in lines
    assert "| CPU time | <= 3.00 | 3.50 | 3.25 to 4.00 | **MISSED** |" in lines
    assert "| times faster than QEMU rr=replay | >= 1.80 | 1.50 | 1.25 to 2.00 | **MISSED** |" in lines
    assert any("| >= 5.00 M/s | 6.00 M/s |" in line and line.endswith("| met |") for line in lines)
    assert any(
        line.startswith("| tracekit who-wrote: who wrote it last") and line.endswith("| not available |") for line in lines
    )
    assert "2 met, 2 missed, 1 not available" in text
    assert "| Python | 60.5 |" in lines and "No profile: perf is not here." in lines
    assert "  Not available: `tracekit` knows no who-wrote." in lines
    assert "A processor" in text and "unicorn 2.1.4" in text and "0.1 to 1" in text


def test_a_page_without_misses_has_no_such_section() -> None:
    """Nothing to explain."""
    assert "Where a target is missed" not in module("page").page(results(help=told(1.0)))


def test_later_results_replace_earlier_ones() -> None:
    """--update: the union, in the page's order."""
    both = module("run").joined(results(help=told(1.0), query_last=told(50.0)), results(boot_fast=told(0.9), help=told(1.1)))
    assert list(both["figures"]) == ["boot_fast", "query_last", "help"]
    assert both["figures"]["help"]["measured"] == 1.1


def test_explanations_name_figures() -> None:
    """Keys are figures that have a target; texts hold nothing that looks measured."""
    import tomllib

    figures = module("figures")
    for key, text in tomllib.loads((HERE / "explanations.toml").read_text()).items():
        assert figures.BY_KEY[key].target is not None
        assert text.strip() and not re.search(r"\d(\.\d+)? ?(%|x|s|ms|MB|MiB|ns)\b|%", text)


def test_the_committed_page_is_what_the_results_give() -> None:
    """docs/performance.md is written by the command alone."""
    stored = json.loads(STORED.read_text())
    assert module("page").page(stored) == (REPOSITORY / "docs" / "performance.md").read_text()
    assert set(stored["figures"]) == set(module("figures").BY_KEY)


def test_percentiles_are_values() -> None:
    """The least value that the share does not exceed."""
    percentile = module("harness").percentile
    values = [float(one) for one in range(1, 41)]
    assert (percentile(values, 0.95), percentile(values, 0.5), percentile([7.0], 0.95)) == (38.0, 20.0, 7.0)


def test_measuring_tells_what_a_command_used() -> None:
    """CPU, wall, peak; a command that fails is named with what it said."""
    harness = module("harness")
    used = harness.measure([sys.executable, "-c", "b = bytes(100 << 20); print('done')"])
    assert used.text == "done\n" and used.cpu_s > 0 and used.wall_s > 0 and used.peak_mib > 100
    with pytest.raises(harness.BenchmarkError, match=r"exit code 3: .*: so it is"):
        harness.measure([sys.executable, "-c", "import sys; print('so it is', file=sys.stderr); sys.exit(3)"])


def test_rounds_are_interleaved() -> None:
    """Odd rounds run backwards."""
    order: list[str] = []
    usage = module("harness").Usage(1.0, 1.0, 1.0)

    def one(name: str) -> Any:
        return lambda: (order.append(name), usage)[1]

    module("harness").interleaved({"a": one("a"), "b": one("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_the_flat_guests_do_what_they_say(tmp_path: Path) -> None:
    """As many stores and instructions as the figures divide by."""
    from support import rows

    from tracekit.recorder.record import record
    from tracekit.recorder.scenario import Scenario

    guests = module("guests")
    cases = {
        "stores": (guests.stores(3, 4096), 1536, None),
        "scattered": (guests.scattered(500), 500, None),
        "compute": (guests.compute(1, True)[0], 8192, guests.compute_instructions(1) + 3),
    }
    for name, (program, writes, instructions) in cases.items():
        (tmp_path / name).write_bytes(program)
        scenario = Scenario(image=str(tmp_path / name), guest_format="flat", ram=64 << 20, capture="writes")
        end = record(scenario, tmp_path / f"{name}.tkt").end
        written = [row for row in rows(tmp_path / f"{name}.tkt", "memory_writes") if row["origin"] == "guest"]
        assert end.reason.value == "power_off" and len(written) == writes
        assert instructions is None or end.position == instructions
        if name == "scattered":
            assert len({row["ipa"] for row in written}) > 490


def test_a_theme_runs(tmp_path: Path) -> None:
    """The command, on this interpreter's tracekit: a table, JSON, a page."""
    words = ["--only", "startup", "--rounds", "1", "--no-profiles", "--json", tmp_path / "a.json", "--page", tmp_path / "a.md"]
    command = [sys.executable, HERE / "run.py", "--python", sys.executable, *words]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "a.json").read_text())
    assert set(stored["figures"]) == {"help", "hello"}
    assert all(told["measured"] > 0 and len(told["values"]) == 4 for told in stored["figures"].values())
    assert "`tracekit record tracekit/workbench/guests/hello.elf" in (tmp_path / "a.md").read_text()
    assert done.stdout.startswith("figure ")
