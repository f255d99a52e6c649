"""Time and peak memory of `tracekit query`: python tests/benchmarks/query.py [--rows 10000000] [--runs 200].

Start-up is what a query of an empty range costs; the ranges are counted beyond it. The same range by scan_ipc, which reads every batch, is the
measure of what the manifest's ranges save.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analyze_schedule import STEP, make

ROUNDS = 5
SCAN = """
import sys, polars as pl
position = pl.col("position")
print(pl.scan_ipc(sys.argv[1] + "/schedule.arrow").filter(position.is_between(int(sys.argv[2]), int(sys.argv[3]))).collect().height)
"""


def measured(*command: object) -> tuple[float, float]:
    """Least seconds of some rounds, and the greatest peak in MiB."""
    seconds, peaks = [], []
    for _ in range(ROUNDS):
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"a query failed with exit code {process.returncode}")
        seconds.append(time.monotonic() - start)
        peaks.append(usage.ru_maxrss / 1024)
    return min(seconds), max(peaks)


def main() -> None:
    """Print seconds beyond start-up, rows a second, and peak memory."""
    parser = argparse.ArgumentParser(description="Time and peak memory of `tracekit query`.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of `schedule`")
    parser.add_argument("--runs", type=int, default=200, help="traces that are asked together")
    parser.add_argument("--keep", type=Path, help="make the trace here and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "long.tkt"
        if not path.exists():
            make(path, options.rows)
        query = ("-m", "tracekit.cli", "query")
        start_up, peak = measured(*query, path, "SELECT * FROM schedule WHERE position < 0")
        print(f"{'start-up':<34} {start_up:6.3f} s{'':>30} peak {peak:5,.0f} MiB")
        middle = options.rows // 4 * STEP
        count = "SELECT event, count(*) AS n FROM schedule"
        for name, text in (
            ("200 rows at a position", f"SELECT * FROM schedule WHERE position BETWEEN {middle} AND {middle + 100 * STEP}"),
            (
                "1 % of the positions, grouped",
                f"{count} WHERE position BETWEEN {middle} AND {middle + options.rows // 200 * STEP} GROUP BY event",
            ),
            ("every row, grouped", f"{count} GROUP BY event"),
            ("every row and its wait, grouped", "SELECT vcpu, max(stolen_ns) AS n FROM pvtime GROUP BY vcpu"),
        ):
            seconds, peak = measured(*query, path, text)
            beyond = max(seconds - start_up, 1e-3)
            print(f"{name:<34} {seconds:6.3f} s, {beyond:6.3f} s beyond start-up   peak {peak:5,.0f} MiB")
        scan, peak = measured("-c", SCAN, path, middle, middle + 100 * STEP)
        print(f"{'the 200 rows by scan_ipc':<34} {scan:6.3f} s{'':>30} peak {peak:5,.0f} MiB")
        small = Path(folder) / "small.tkt"
        make(small, min(options.rows, 20_000))
        many = Path(folder) / "many"
        for number in (1, options.runs):
            many.mkdir(exist_ok=True)
            for index in range(number):
                if not (many / f"run{index:04}.tkt").exists():
                    shutil.copytree(small, many / f"run{index:04}.tkt")
            seconds, peak = measured(*query, f"{many}/*.tkt", f"{count} GROUP BY event")
            print(f"{f'{number} runs of 20,000 rows, grouped':<34} {seconds:6.3f} s{'':>30} peak {peak:5,.0f} MiB")


if __name__ == "__main__":
    main()
