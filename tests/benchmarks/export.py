"""Time, rows per second and peak memory of `tracekit export` to each format: python tests/benchmarks/export.py [--rows 1000000].

The trace is that of analyze_schedule.py: so many rows of `schedule`, and half as many of `pvtime` and `memory_writes`. Rows per second are those
of the tables that the format shows, over CPU time without start-up (which is measured with a trace of a few rows).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from analyze_schedule import make

FORMATS = ("perfetto", "chrome", "parquet", "csv")
TIMELINES = ("perfetto", "chrome")


@dataclass(frozen=True, slots=True)
class Measured:
    """One export."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    size: int
    counts: dict[str, int]


def measure(trace: Path, to: str, output: Path) -> Measured:
    """Export in a process of its own."""
    command = [sys.executable, "-m", "tracekit.cli", "export", str(trace), "--to", to, "-o", str(output), "--force", "--json"]
    start = os.times().elapsed
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"export failed with exit code {process.returncode}")
    done = json.loads(told)
    return Measured(
        usage.ru_utime + usage.ru_stime, os.times().elapsed - start, usage.ru_maxrss / 1024, done["bytes"], done["counts"]
    )


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(description="Time and peak memory of `tracekit export`.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of `schedule`")
    parser.add_argument("--keep", type=Path, help="make the trace here and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        long, short = options.keep or Path(folder) / "long.tkt", Path(folder) / "short.tkt"
        if not long.exists():
            make(long, options.rows)
        make(short, 100)
        for to in FORMATS:
            begin, whole = (measure(trace, to, Path(folder) / f"out.{to}") for trace in (short, long))
            rows = options.rows * 3 // 2 if to in TIMELINES else options.rows * 2
            cpu_s = whole.cpu_s - begin.cpu_s
            drawn = f", {sum(whole.counts.values()):,} drawn" if to in TIMELINES else ""
            print(
                f"{to:<9} {rows:,} rows{drawn}: CPU {cpu_s:5.1f} s + {begin.cpu_s:.1f} s to start, wall {whole.wall_s:5.1f} s, "
                f"{rows / cpu_s:10,.0f} rows/s, peak {whole.peak_mib:,.0f} MiB (to start {begin.peak_mib:,.0f}), {whole.size / 2**20:,.1f} MiB"
            )


if __name__ == "__main__":
    main()
