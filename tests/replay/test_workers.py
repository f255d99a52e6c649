"""Worker processes: answers in order; none of them outlives what it works for; balance that decides nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tracekit.formats.checkpoints import Entry
from tracekit.replay import timings
from tracekit.replay.shares import Share, balanced, deal
from tracekit.replay.workers import WorkerLost, workers


def test_answers_in_order() -> None:
    """Whichever is done first."""
    with workers(3) as crew:
        for delay in (0.2, 0.0, 0.1):
            crew.submit(_slowly, delay)
        assert list(crew.answers()) == [0.2, 0.0, 0.1]


def _slowly(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_worker_that_dies() -> None:
    """One line, whatever killed it."""
    with pytest.raises(WorkerLost, match="ended without an answer"), workers(2) as crew:
        crew.submit(os._exit, 9)
        crew.submit(_slowly, 60.0)
        list(crew.answers())


def test_nobody_waits_for_what_is_not_wanted() -> None:
    """Left early, the others are ended, not awaited."""
    with workers(2) as crew:
        crew.submit(_slowly, 0.0)
        crew.submit(_slowly, 600.0)
        assert next(crew.answers()) == 0.0
        crew.abandon()


SCRIPT = r"""
import os, sys, time
from tracekit.replay.workers import tell_progress, workers

def work(number):
    os.write(1, b"%d\n" % os.getpid())
    while True:
        tell_progress(number, 1)
        time.sleep(0.05)

with workers(2) as crew:
    for number in range(2):
        crew.submit(work, number)
    list(crew.answers())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(number: signal.Signals) -> None:
    """Ctrl-C, which a terminal sends to all of them, or the parent's death."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stderr is not None
    children = [int(process.stdout.readline()) for _ in range(2)]
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)  # also waits for the workers, who hold the pipes
    assert errors.count("Traceback") <= 1, errors
    while any(_is_alive(child) for child in children):  # they have let go of the pipes, and are ending
        time.sleep(0.02)


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- balance --------------------------------------------------------------------------------------------------------------------


def entries(count: int) -> list[Entry]:
    """Checkpoints every 1000 instructions."""
    return [Entry(1000 * (n + 1), 0, 0, "", 0, 0) for n in range(count)]


def test_ranges_are_balanced() -> None:
    """In order, without gap, at most as many as asked for, and the greatest cost is the least possible (by trying all cuts)."""
    chosen = random.Random(3)
    for _ in range(60):
        costs = [chosen.randrange(100) / 10 for _ in range(chosen.randrange(1, 9))]
        count = chosen.randrange(1, 5)
        found = balanced(costs, count, 0.5)
        assert [n for part in found for n in part] == list(range(len(costs))) and len(found) <= count
        best = min(greatest(cuts) for cuts in all_cuts(costs, count))
        assert greatest([costs[part.start : part.stop] for part in found]) <= best + 1e-6


def greatest(parts: list[list[float]]) -> float:
    """The longest part; all but the first have to start."""
    return max(sum(part) + (0.5 if n else 0.0) for n, part in enumerate(parts))


def all_cuts(costs: list[float], count: int) -> list[list[list[float]]]:
    """Every way to cut into at most `count` neighbouring parts."""
    out = [[costs]]
    if count > 1:
        out += [[costs[:n], *rest] for n in range(1, len(costs)) for rest in all_cuts(costs[n:], count - 1)]
    return out


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares meet at checkpoints; the last goes to the end."""
    monkeypatch.setenv(timings.FOLDER_VARIABLE, "")
    assert deal([], "k", None, 5000, 4) == [Share(None, None)]
    for first, end, count in ((None, 9999, 3), (2, 9999, 2), (None, 3000, 2), (4, 5500, 3), (8, 9999, 2)):
        shares = deal(entries(9), "k", first, end, count)
        assert shares[0].start == first and shares[-1].stop is None and len(shares) <= count
        assert all(one.stop == other.start for one, other in pairwise(shares))
        assert all(one.stop is None or 1000 * (one.stop + 1) < end for one in shares)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"seconds":[1,2]}',
        b'{"seconds":[NaN,1,2]}',
        b'{"seconds":[-1,1,2]}',
        b'{"seconds":["1",1,2]}',
        b'{"seconds":[1e999,1,2]}',
        b"[" * 60_000,
    ],
)
def test_timings_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """A cache that says nonsense is none, and is written anew."""
    monkeypatch.setenv(timings.FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "k.json").write_bytes(content)
    assert timings.load("k", 3) is None
    timings.keep("k", 3, {0: 1.0, 1: 2.0, 2: 3.0})
    assert timings.load("k", 3) == (1.0, 2.0, 3.0)


def test_timings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of each; nothing where not all is known; no folder, a file in its place, or none at all is no error."""
    monkeypatch.setenv(timings.FOLDER_VARIABLE, str(tmp_path / "a" / "b"))
    timings.keep("k", 3, {0: 1.0})
    assert timings.load("k", 3) is None
    timings.keep("k", 3, {0: 1.0, 1: 2.0, 2: 3.0})
    timings.keep("k", 3, {1: 5.0, 2: 0.5})
    assert timings.load("k", 3) == (1.0, 2.0, 0.5) and timings.load("k", 4) is None
    assert json.loads((tmp_path / "a" / "b" / "k.json").read_text()) == {"seconds": [1.0, 2.0, 0.5]}
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file" / "x"), ""):
        monkeypatch.setenv(timings.FOLDER_VARIABLE, place)
        timings.keep("k", 1, {0: 1.0})
        assert timings.load("k", 1) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_something_else_in_the_place_of_timings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """A pipe is not waited for; a folder stays, and nothing is left beside it."""
    monkeypatch.setenv(timings.FOLDER_VARIABLE, str(tmp_path))
    make(tmp_path / "k.json")
    assert timings.load("k", 1) is None
    timings.keep("k", 1, {0: 1.0})
    assert timings.load("k", 1) == (None if make is os.mkdir else (1.0,))
    assert [one.name for one in tmp_path.iterdir()] == ["k.json"]
