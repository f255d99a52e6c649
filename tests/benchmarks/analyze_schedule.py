"""Time and peak memory of `tracekit analyze` and `tracekit compare` on a long schedule: python tests/benchmarks/analyze_schedule.py [--rows 10000000].

The trace is made, not recorded: vCPUs take turns on one physical CPU, every guest entry stores and publishes what was stolen, exactly.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from tracekit.formats.tables import DICTIONARIES
from tracekit.formats.writer import TraceWriter

VCPUS = 4
SLICE_NS, STEP = 1_000_000, 1_000  # of a turn: ns, instructions
BASE = 0x090A_0000
TURNS_AT_ONCE = 1 << 15  # two rows of `schedule` each


def code(dictionary: str, name: str) -> int:
    """Index of a name."""
    return DICTIONARIES[dictionary].index(name)


def manifest(turns: int) -> dict[str, Any]:
    """What an analysis needs of a trace's description."""
    return {
        "scenario": {"host": {"pcpus": 1}, "hypervisor": {"publication": "kvm"}},
        "machine": {
            "vcpus": VCPUS, "ram_base": 0x4000_0000, "ram_size": 1 << 20, "reserved": [], "segments": [],
            "pv_structures": [BASE + 64 * vcpu for vcpu in range(VCPUS)],
        },
        "threads": [{"thread": vcpu, "kind": "vcpu", "name": f"vcpu{vcpu}"} for vcpu in range(VCPUS)],
        "images": [],
    }  # fmt: skip


def begin(writer: TraceWriter) -> None:
    """Memory, structures, threads."""
    writer.append("directives", (0, 0, 0, None, "slot_add", BASE, 0x1_0000, None, 0))
    for vcpu in range(VCPUS):
        writer.append("directives", (0, 1 + vcpu, 0, vcpu, "attribute_set", BASE + 64 * vcpu, None, None, 0))
        writer.append("schedule", (0, 100 + vcpu, 0, vcpu, vcpu, "online", 0, None, "start"))
        position = vcpu * STEP + STEP // 2
        call = (0x4000_0000, 1, "hvc", 0, 0xC500_0021, "PV_TIME_ST", 0xC500_0021, *(0,) * 7, BASE + 64 * vcpu, 0, 0, 0, 0)
        writer.append("hypercalls", (STEP + position, 0, vcpu * SLICE_NS + STEP // 2, vcpu, *call))


def turns(writer: TraceWriter, first: int, count: int) -> None:
    """Turn i: vCPU i - 1 leaves, vCPU i enters and is told what it waited since its PV_TIME_ST, which is in its first turn."""
    ids = range(first, first + count)
    position = array("Q", (STEP + i * STEP for i in ids))
    vtime = array("Q", (i * SLICE_NS for i in ids))
    vcpu = array("H", (i % VCPUS for i in ids))
    told = array("Q", (i // VCPUS * (VCPUS - 1) * SLICE_NS for i in ids))
    run, preempt = code("schedule.event", "run"), code("schedule.event", "preempt")

    def pairs(kind: str, left: array[int], right: array[int]) -> array[int]:
        both = array(kind, bytes(2 * count * left.itemsize))
        both[0::2], both[1::2] = left, right
        return both

    before = array("H", ((i - 1) % VCPUS for i in ids))
    rows = {
        "position": pairs("Q", position, position), "sequence": array("I", (10, 11)) * count, "vtime_ns": pairs("Q", vtime, vtime),
        "vcpu": pairs("H", before, vcpu), "thread": array("I", pairs("H", before, vcpu)), "event": bytes((preempt, run)) * count,
        "pcpu": array("H", bytes(4 * count)), "from_pcpu": None, "reason": bytes([code("schedule.reason", "slice")]) * (2 * count),
    }  # fmt: skip
    cut = 1 if first == 0 else 0  # nobody leaves before the first turn
    writer.extend("schedule", {name: value and value[cut:] for name, value in rows.items()}, 2 * count - cut)
    ipa = array("Q", (BASE + 64 * one for one in vcpu))
    common = {"position": position, "vtime_ns": vtime, "vcpu": vcpu}
    writer.extend(
        "memory_writes",
        {
            **common, "sequence": array("I", (12,)) * count, "origin": bytes([code("memory.origin", "host")]) * count,
            "ipa": array("Q", (one + 8 for one in ipa)), "size": bytes((8,)) * count, "value": told, "pc": None,
            "cause": bytes([code("memory.cause", "pvtime")]) * count,
        },
        count,
    )  # fmt: skip
    writer.extend(
        "pvtime",
        {
            **common, "sequence": array("I", (13,)) * count, "event": bytes([code("pvtime.event", "publish")]) * count, "ipa": ipa,
            "stolen_ns": told, "revision": bytes(4 * count), "attributes": bytes(4 * count),
        },
        count,
    )  # fmt: skip


def make(path: Path, rows: int) -> None:
    """A trace of so many rows of `schedule`, and half as many of `pvtime` and `memory_writes`."""
    count = rows // 2
    writer = TraceWriter(path, manifest(count))
    begin(writer)
    for first in range(0, count, TURNS_AT_ONCE):
        turns(writer, first, min(TURNS_AT_ONCE, count - first))
    end = {"reason": "power_off", "detail": None, "position": STEP * (count + 1), "sequence": 0, "vtime_ns": count * SLICE_NS}
    writer.close(end)


def main() -> None:
    """Print seconds and peak memory of each analysis."""
    parser = argparse.ArgumentParser(
        description="Time and peak memory of `tracekit analyze` and `tracekit compare` on a long schedule."
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of `schedule`")
    parser.add_argument("--keep", type=Path, help="make the trace here and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "long.tkt"
        if not path.exists():
            start = time.monotonic()
            make(path, options.rows)
            print(f"made {options.rows:,} rows of schedule in {time.monotonic() - start:.1f} s")
        commands = [["analyze", str(path), *names] for names in (["invariants"], ["steal"], [], ["runtime"], ["hypercalls"])]
        for words in (*commands, ["compare", str(path), str(path)]):
            start = time.monotonic()
            command = [sys.executable, "-m", "tracekit.cli", *words, "--json"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"{words[0]} failed with exit code {process.returncode}")
            seconds, peak = time.monotonic() - start, usage.ru_maxrss / 1024
            told = " ".join([words[0], *(word for word in words[1:] if word != str(path))])
            print(f"{told:<20} {seconds:6.1f} s, CPU {usage.ru_utime + usage.ru_stime:6.1f} s, peak {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
