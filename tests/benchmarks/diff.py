"""Time and peak memory of `tracekit diff` on two long traces: python tests/benchmarks/diff.py [--rows 10000000].

The traces are made, not recorded (as in analyze_schedule.py): rows of `schedule`, and half as many of `memory_writes` and of `pvtime`. B differs
from A in nothing; in one row in the middle; by 212 instructions and ns from the middle on; in every total told from there on; in everything
(vCPUs take turns in another order).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from analyze_schedule import BASE, SLICE_NS, STEP, TURNS_AT_ONCE, VCPUS, begin, manifest, turns

from tracekit.formats.writer import TraceWriter

SHIFT = 212
KINDS = ("nothing", "one row", "shifted", "all told", "all")


class Bent:
    """A writer that writes something else from a turn on."""

    def __init__(self, writer: TraceWriter, kind: str, turns: int) -> None:
        self._writer, self._kind = writer, kind
        self._from = STEP + turns // 2 * STEP
        self._random = random.Random(1)

    def extend(self, table: str, columns: dict[str, Any], count: int) -> None:
        """As TraceWriter.extend."""
        late = [n for n, position in enumerate(columns["position"]) if position >= self._from]
        if (
            self._kind == "one row"
            and table == "memory_writes"
            and columns["position"][0] <= self._from <= columns["position"][-1]
        ):
            columns = {**columns, "value": array("Q", columns["value"])}
            columns["value"][late[0]] += 1
        if self._kind == "shifted":
            for name in ("position", "vtime_ns"):
                moved = array("Q", columns[name])
                for n in late:
                    moved[n] += SHIFT
                columns = {**columns, name: moved}
        if self._kind == "all told" and table != "schedule":
            name = "value" if table == "memory_writes" else "stolen_ns"
            told = array("Q", columns[name])
            for n in late:
                told[n] += 1
            columns = {**columns, name: told}
        if self._kind == "all":
            vcpus = array("H", (self._random.randrange(VCPUS) for _ in range(count)))
            columns = {**columns, "vcpu": vcpus}
            if table == "schedule":
                columns["thread"] = array("I", vcpus)
            else:
                base = 8 if table == "memory_writes" else 0
                columns["ipa"] = array("Q", (BASE + 64 * vcpu + base for vcpu in vcpus))
        self._writer.extend(table, columns, count)


def make(path: Path, rows: int, kind: str) -> None:
    """A trace of so many rows of `schedule` that differs by its kind."""
    count = rows // 2
    writer = TraceWriter(path, manifest(count))
    begin(writer)
    bent: Any = Bent(writer, kind, count)
    for first in range(0, count, TURNS_AT_ONCE):
        turns(bent, first, min(TURNS_AT_ONCE, count - first))
    end = {
        "reason": "power_off",
        "detail": None,
        "position": STEP * (count + 2),
        "sequence": 0,
        "vtime_ns": count * SLICE_NS + SHIFT,
    }
    writer.close(end)


def main() -> None:
    """Print seconds and peak memory of each comparison."""
    parser = argparse.ArgumentParser(description="Time and peak memory of `tracekit diff` on two long traces.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of `schedule`")
    parser.add_argument("--keep", type=Path, help="make the traces in this folder and keep them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            path = place / f"{kind.replace(' ', '_')}.tkt"
            if not path.exists():
                make(path, options.rows, kind)
            start = time.monotonic()
            command = [sys.executable, "-m", "tracekit.cli", "diff", str(place / "nothing.tkt"), str(path), "--json"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != (kind != "nothing"):
                sys.exit(f"diff failed with exit code {process.returncode}")
            seconds, peak = time.monotonic() - start, usage.ru_maxrss / 1024
            print(f"{kind:<10} {seconds:6.1f} s, CPU {usage.ru_utime + usage.ru_stime:6.1f} s, peak {peak:,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
