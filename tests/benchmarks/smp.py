"""What further vCPUs cost: python tests/benchmarks/smp.py [--rounds 5] [--workload boot] [--curve 50us,200us,1ms] [--json].

Debian's boot is recorded on 1 vCPU, on 2 and 4 vCPUs that share one pCPU (slices of 3 ms), and on 2 and 4 that have one each. `boot` is the
sample's: half a second of burners, one on each vCPU, at its end; `busy` has 2 s of them; `bare` none, so that most vCPUs sleep or wait for
each other. The figure is CPU time (user + sys) of the whole process for each guest instruction, against 1 vCPU: boards are run side by side in
rounds, ratios are medians of the rounds' ratios. With --curve the boards with as many pCPUs are run for each quantum instead; instructions
beyond those of another quantum are what vCPUs spent waiting for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from guests import initrd, sample
from harness import measure

from tracekit.formats.reader import Trace

BOARDS = ((1, 1), (2, 1), (4, 1), (2, 2), (4, 4))
WORKLOADS = {"boot": "", "busy": "tracekit.readings=20 tracekit.interval=100", "bare": "tracekit.readings=0"}
TARGETS = {1: 1.3, 2: 1.6, 4: 1.6}  # by number of pCPUs
Job = tuple[int, int, str | None]  # vCPUs, pCPUs, quantum


def label(job: Job) -> str:
    """As the tables name it."""
    vcpus, pcpus, quantum = job
    return f"{vcpus} vCPU / {pcpus} pCPU" + (f", quantum {quantum}" if quantum else "")


def jobs_of(boards: list[tuple[int, int]], quanta: list[str]) -> list[Job]:
    """What is run in each round; 1 vCPU first."""
    if not quanta:
        return [(vcpus, pcpus, None) for vcpus, pcpus in boards]
    parallel = [(vcpus, pcpus) for vcpus, pcpus in boards if pcpus > 1]
    return [(1, 1, None), *((vcpus, pcpus, quantum) for vcpus, pcpus in parallel for quantum in quanta)]


def instructions_of(trace: Path) -> int:
    """How many a recording executed."""
    return int(Trace.open(trace).manifest["end"]["position"])


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description="What further vCPUs cost.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workload", choices=WORKLOADS, default="boot")
    parser.add_argument(
        "--boards", default=",".join(f"{vcpus}x{pcpus}" for vcpus, pcpus in BOARDS), help="vCPUs x pCPUs, with commas"
    )
    parser.add_argument("--curve", default="", help="quanta, with commas")
    parser.add_argument("--options", default="", help="further options of `tracekit record`, with blanks")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    boards = [(int(one.split("x")[0]), int(one.split("x")[1])) for one in arguments.boards.split(",")]
    jobs = jobs_of(boards, [one for one in arguments.curve.split(",") if one])
    fetch = sample("fetch")
    kernel = str(fetch.fetch("cloud", fetch.default_cache()))
    seconds: dict[str, list[float]] = {label(job): [] for job in jobs}
    instructions: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        archive, trace = Path(folder) / "initramfs.cpio", Path(folder) / "boot.tkt"
        archive.write_bytes(initrd())
        for _ in range(arguments.rounds):
            for job in jobs:
                vcpus, pcpus, quantum = job
                command = [
                    sys.executable, "-m", "tracekit.cli", "record", kernel, "--initrd", str(archive), "-o", str(trace), "--force", "--max-vtime", "30s",
                    "--vcpus", str(vcpus), "--pcpus", str(pcpus), "--slice", "3ms", *arguments.options.split(),
                ]  # fmt: skip
                if quantum:
                    command += ["--quantum", quantum]
                if WORKLOADS[arguments.workload]:
                    command += ["--append", WORKLOADS[arguments.workload]]
                seconds[label(job)].append(measure(command).cpu_s)
                instructions[label(job)] = instructions_of(trace)
    base = label((1, 1, None))

    def per_instruction(name: str) -> list[float]:
        """ns of CPU time for each guest instruction, in each round."""
        return [one * 1e9 / instructions[name] for one in seconds[name]]

    result = {
        name: {
            "instructions": instructions[name],
            "cpu_seconds_median": statistics.median(seconds[name]),
            "ns_for_each_instruction": statistics.median(per_instruction(name)),
            "against 1 vCPU": statistics.median(a / b for a, b in zip(per_instruction(name), per_instruction(base), strict=True))
            if base in seconds
            else None,
            "target": TARGETS[pcpus] if vcpus > 1 else None,
        }
        for name, (vcpus, pcpus, _) in ((label(job), job) for job in jobs)
    }
    if arguments.json:
        print(
            json.dumps(
                {"rounds": arguments.rounds, "workload": arguments.workload, "cores": os.cpu_count(), "boards": result}, indent=1
            )
        )
        return
    for name, one in result.items():
        print(
            f"{name:<36} "
            + "  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in one.items())
        )


if __name__ == "__main__":
    main()
