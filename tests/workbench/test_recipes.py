"""docs/recipes.md: twenty questions, each with at most three lines; every block runs, and its answer is checked another way."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support import REPOSITORY, rows

import tracekit
from tracekit.replay.stops import Reason

TEXT = (REPOSITORY / "docs" / "recipes.md").read_text()
RUN: dict[str, Any] = {"vcpus": 2, "neighbours": ["50%:2ms"], "capture": "writes"}


def recipes() -> list[tuple[int, str, str]]:
    """(number, question, code)."""
    found = re.findall(r"^### (\d+)\. ([^\n]+)\n\n```python\n(.*?)```$", TEXT, re.MULTILINE | re.DOTALL)
    return [(int(number), question, code) for number, question, code in found]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's first block defines, in a folder with its traces."""
    folder, before = tmp_path_factory.mktemp("recipes"), Path.cwd()
    (folder / "runs").mkdir()
    tracekit.record("steal", folder / "run.tkt", **RUN).close()
    tracekit.record("steal", folder / "bug.tkt", faults=["late-update"], **RUN).close()
    for seed in range(3):
        host = {"policy": "chaos", "neighbours": ["50%:2ms"]}
        tracekit.record("steal", folder / "runs" / f"seed{seed}.tkt", seed=seed, vcpus=2, **host).close()
    (first,) = re.findall(r"opened:\n\n```python\n(.*?)```$", TEXT, re.MULTILINE | re.DOTALL)
    out: dict[str, Any] = {}
    os.chdir(folder)
    try:
        exec(first, out)  # noqa: S102 (the page's own code is what is tested)
        yield out
    finally:
        os.chdir(before)


def table(names: dict[str, Any], name: str, of: str = "t") -> list[dict[str, Any]]:
    """Rows by the plain reader."""
    return rows(names[of].path, name)


CHECKS: dict[int, Callable[[Any, dict[str, Any]], bool]] = {
    1: lambda a, n: set(a["name"]) <= {"vcpu0", "neighbour0", "wake-up latency"} and 0 < a["wait_ns"].sum() <= 6_000_000,
    2: lambda a, n: a["run_ns"].sum() == n["t"].steal()["run_ns"].sum(),
    3: lambda a, n: a["ns"].item() == (n["t"].intervals().filter(kind="wait").select(pl.col("end_ns") - pl.col("start_ns")).max().item()),
    4: lambda a, n: a["wakes"].sum() == sum(1 for row in table(n, "schedule") if row["event"] == "wake" and row["vcpu"] is not None),
    5: lambda a, n: 0 < a.height < len(table(n, "schedule")),
    6: lambda a, n: a["true_ns"].to_list() == a["told_ns"].to_list() and a["stolen_ns"].min() > 0 and a["error_ns"].sum() == 0,
    7: lambda a, n: a.height == 1 and a["error_ns"].item() == a["told_ns"].item() - a["true_ns"].item() != 0,
    8: lambda a, n: a.height == 5 and a["age_ns"].is_sorted(descending=True) and a["age_ns"][0] == n["t"].steal()["age_ns"].max(),
    9: lambda a, n: "S4" in a["invariant"] and all(one.startswith("tracekit dump bug.tkt") for one in a["command"]),
    10: lambda a, n: a["step_ns"].drop_nulls().min() >= 0 and a.height == n["t"].publications().height,
    11: lambda a, n: a["calls"].sum() == len(table(n, "hypercalls")) and a.filter(function="PV_TIME_ST")["failures"].item() == 0,
    12: lambda a, n: a["calls"].sum() == sum(row["function"].startswith("PSCI") for row in table(n, "hypercalls")),
    13: lambda a, n: a.rows() == [last_store(n)] and a["cause"].item() == "pvtime",
    14: lambda a, n: a["stores"].is_sorted(descending=True) and a.height == 5 and a.rows() == most_stores(n, a["pc"]),
    15: lambda a, n: set(a["intid"]) == {row["intid"] for row in table(n, "interrupts") if row["event"] == "take"} and a["wait_ns"].min() >= 0,
    16: lambda a, n: "".join(a["text"]) == n["t"].console_text() and a["text"][-1] == "PASS\n",
    17: lambda a, n: a[0] is not None and a[0].table in ("memory_writes", "pvtime", "schedule", "memory_reads", "directives"),
    18: lambda a, n: a.is_empty(),  # a late update is no other answer
    19: lambda a, n: a[0] == "worse" and "steal.error_ns" in [name for name, _, _ in a[1]],
    20: lambda a, n: sorted(a["seed"]) == [0, 1, 2] and a["stolen_ns"].is_sorted(descending=True),
}  # fmt: skip


def last_store(names: dict[str, Any]) -> tuple[Any, ...]:
    """By the plain reader: the last store to vCPU 0's total."""
    place = names["t"].manifest["machine"]["pv_structures"][0] + 8
    row = [one for one in table(names, "memory_writes") if one["ipa"] == place][-1]
    return tuple(row[name] for name in ("position", "origin", "cause", "value", "pc"))


def most_stores(names: dict[str, Any], places: Iterable[int]) -> list[tuple[int, int, int]]:
    """By the plain reader: (pc, stores, bytes) of some places in the code, of the recipe's run."""
    made = [row for row in rows(Path("whole.tkt"), "memory_writes") if row["origin"] == "guest"]
    sizes = {pc: [row["size"] for row in made if row["pc"] == pc] for pc in places}
    return [(pc, len(some), sum(some)) for pc, some in sizes.items()]


def test_there_are_twenty() -> None:
    """Numbered, each a question, each at most three lines, each with a check."""
    found = recipes()
    assert [number for number, _, _ in found] == list(range(1, 21)) == list(CHECKS)
    assert all(question.endswith("?") and len(code.strip().split("\n")) <= 3 for _, question, code in found)


@pytest.mark.parametrize(
    ("number", "code"), [(number, code) for number, _, code in recipes()], ids=[str(one[0]) for one in recipes()]
)
def test_recipe(names: dict[str, Any], number: int, code: str) -> None:
    """It runs as it stands on the page, without a warning of a thin table, and says what is so."""
    scope = dict(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, scope)  # noqa: S102 (the page's own code is what is tested)
    assert CHECKS[number](scope["answer"], names), scope["answer"]


def test_inside_a_run(names: dict[str, Any]) -> None:
    """The block that walks through a run: it finds the last store that the table has, and what stands in memory then."""
    (code,) = re.findall(r"^## Standing inside a run\n.*?```python\n(.*?)```$", TEXT, re.MULTILINE | re.DOTALL)
    scope = dict(names)
    exec(code, scope)  # noqa: S102 (the page's own code is what is tested)
    cause, value, told, reason, events = scope["answer"]
    assert (cause, value) == (last_store(names)[2], last_store(names)[3]) and told == value
    assert reason in (Reason.BREAKPOINT, Reason.END) and {event.table for event in events} <= {"schedule"}
    assert len(scope["code"]) == 4 and scope["registers"]["pc"] > 0
