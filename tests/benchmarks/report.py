"""Time, memory and size of `tracekit report` on a long schedule, and how fast a browser shows it: python tests/benchmarks/report.py [--rows 1000000].

The trace is the one of analyze_schedule.py: vCPUs take turns on one physical CPU; with --ragged the turns differ in length, as real ones do.
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

import analyze_schedule as long

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from browser import CHROMIUM, Browser

FRAMES = """(async () => { const times = []; for (let one = 0; one < 20; one++) { const start = performance.now(); zoom(one % 2 ? 1.1 : 0.8);
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); times.push(performance.now() - start); }
  times.sort((a, b) => a - b); return times[10]; })()"""


def ragged(path: Path, rows: int) -> None:
    """Four vCPUs in turns of 1 us to 3 ms on one physical CPU; nobody asked for stolen time."""
    writer = long.TraceWriter(path, {**long.manifest(rows), "threads": long.manifest(rows)["threads"]})
    chance, now = random.Random(4), 0
    run, preempt, slice_ = (
        long.code("schedule.event", "run"),
        long.code("schedule.event", "preempt"),
        long.code("schedule.reason", "slice"),
    )
    for vcpu in range(long.VCPUS):
        writer.append("schedule", (0, vcpu, 0, vcpu, vcpu, "online", 0, None, "start"))
    count, who = rows // 2, 0
    for first in range(0, count, long.TURNS_AT_ONCE):
        turns = min(long.TURNS_AT_ONCE, count - first)
        times, vcpus = array("Q"), array("H")
        for _ in range(turns):
            times.append(now)
            vcpus.append(who)
            now += int(chance.lognormvariate(12, 1.2)) + 1000
            times.append(now)
            vcpus.append(who)
            who = (who + chance.randint(1, long.VCPUS - 1)) % long.VCPUS
        columns = {
            "position": array("Q", (1000 + one for one in times)), "sequence": array("I", (10, 9)) * turns, "vtime_ns": times, "vcpu": vcpus,
            "thread": array("I", vcpus), "event": bytes((run, preempt)) * turns, "pcpu": array("H", bytes(4 * turns)), "from_pcpu": None,
            "reason": bytes([slice_]) * (2 * turns),
        }  # fmt: skip
        writer.extend("schedule", columns, 2 * turns)
    writer.close({"reason": "power_off", "detail": None, "position": now + 2000, "sequence": 0, "vtime_ns": now})


def measure(trace: Path, page: Path) -> None:
    """Print what one report takes."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tracekit.cli", "report", str(trace), "-o", str(page), "--force"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"report failed with exit code {process.returncode}")
    seconds, peak = time.monotonic() - start, usage.ru_maxrss / 1024
    print(
        f"report   {seconds:6.1f} s, CPU {usage.ru_utime + usage.ru_stime:6.1f} s, peak {peak:,.0f} MiB, page {page.stat().st_size:,} bytes"
    )
    if CHROMIUM is None:
        print("browser  none here")
        return
    with Browser(1440, 900) as browser:
        drawn = browser.open(page)
        first = browser.run("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        frame = browser.run(FRAMES)
        assert browser.said == [], browser.said
    print(
        f"browser  first paint {first or 0:,.0f} ms, every plot drawn {drawn:,.0f} ms, a zoom {frame:,.0f} ms (median; software rendering)"
    )


def main() -> None:
    """Both kinds of schedule."""
    parser = argparse.ArgumentParser(description="Time, memory and size of `tracekit report` on a long schedule.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of `schedule`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("equal turns", long.make), ("ragged turns", ragged)):
            trace = Path(folder) / f"{name.split()[0]}.tkt"
            make(trace, options.rows)
            print(f"{name}, {options.rows:,} rows of schedule")
            measure(trace, Path(folder) / "page.html")


if __name__ == "__main__":
    main()
