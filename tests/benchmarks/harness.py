"""Processes measured, side by side: CPU time, wall clock and peak memory of whole commands, in interleaved rounds.

This process must stay small: a child's peak that the kernel tells (`ru_maxrss`) begins with its parent's size. Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB_KIB = 1024
TIMEOUT_S = 600


class BenchmarkError(Exception):
    """A command that was to be measured ended badly; the text says which, and how."""


class NotAvailableError(Exception):
    """What a benchmark needs is not here; the text is the reason that the page shows."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and those that it waited for have used: CPU (user + sys) and wall in s, the greatest resident set in MiB."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    text: str = ""


Job = Callable[[], Usage]


def measure(command: Sequence[object], *, codes: Sequence[int] = (0,), timeout_s: float = TIMEOUT_S) -> Usage:
    """Run a command to its end. Errors: BenchmarkError for another exit code than `codes`, or after timeout_s."""
    words = [str(word) for word in command]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    alarm = threading.Timer(timeout_s, process.kill)
    alarm.start()
    told: dict[str, bytes] = {}

    def read_errors() -> None:
        assert process.stderr is not None
        told["stderr"] = process.stderr.read()

    reader = threading.Thread(target=read_errors)
    reader.start()
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    alarm.cancel()
    reader.join()
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        last = (told["stderr"].decode("utf-8", "replace").strip().splitlines() or ["nothing said"])[-1]
        raise BenchmarkError(f"exit code {process.returncode}: {' '.join(words)[:300]}: {last}")
    return Usage(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / MIB_KIB, out.decode("utf-8", "replace"))


def job(command: Sequence[object], **options: object) -> Job:
    """A command to be measured later."""
    return lambda: measure(command, **options)  # type: ignore[arg-type]


def interleaved(jobs: Mapping[str, Job], rounds: int) -> dict[str, list[Usage]]:
    """Every job once in each round; odd rounds run them backwards, so that nobody always follows the same one."""
    used: dict[str, list[Usage]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name in list(jobs) if number % 2 == 0 else reversed(list(jobs)):
            used[name].append(jobs[name]())
    return used


def ratios(used: Mapping[str, list[Usage]], name: str, base: str, by: str = "cpu_s") -> list[float]:
    """A job against another, round by round."""
    return [getattr(a, by) / getattr(b, by) for a, b in zip(used[name], used[base], strict=True)]


def median_of(used: Sequence[Usage], by: str = "cpu_s") -> float:
    """The median of one quantity."""
    return statistics.median(getattr(one, by) for one in used)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def tables_bytes(trace: Path) -> int:
    """A trace without its images and its checkpoints: tables, journal, manifest."""
    return sum(
        file.stat().st_size
        for file in trace.rglob("*")
        if file.is_file() and file.relative_to(trace).parts[0] not in ("images", "checkpoints")
    )
