"""What finding WFEs costs: python tests/benchmarks/wfe.py [--rounds 7] [--json].

Debian's boot, unrecorded, user CPU time of whole processes, with and without `yields_on_wfe`, taken in pairs whose order alternates.
WFEs are found but do not act: both runs are the same to the instruction, and what differs is the finding alone. On 1 vCPU none is
executed; 2 vCPUs on 2 pCPUs spin for 11 million of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).resolve().parent.parent.parent / "samples" / "linux"
BOOT = """
import sys
from tracekit.host.config import HostConfig
from tracekit.recorder.record import load_guest
from tracekit.recorder.scenario import Scenario
from tracekit.recorder.session import Recording
image, initrd, vcpus, pcpus, finds = sys.argv[1:]
host = HostConfig(pcpus=int(pcpus), yields_on_wfe=finds == "True")
scenario = Scenario(image=image, initrd=initrd, vcpus=int(vcpus), host=host, max_vtime_ns=30_000_000_000)
recording = Recording(scenario, load_guest(scenario), None)
engine = recording.board.engine
engine.stop_at_wfe(False)
engine.stop_at_wfe = lambda wanted: None
end = recording.run()
assert end.reason.value == "power_off", end
print(end.position, engine.state.wfe_sites)
"""


def load(name: str) -> Any:
    """A script of the Linux sample as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(command: list[str]) -> tuple[float, list[int]]:
    """User CPU seconds of a process, and the numbers that it prints."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return usage.ru_utime, [int(word) for word in text.split()]


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description="What finding WFEs costs on a Linux boot.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    fetch = load("fetch")
    kernel = str(fetch.fetch("cloud", fetch.default_cache()))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        initrd = Path(folder) / "initramfs.cpio"
        initrd.write_bytes(load("initramfs").initramfs((SAMPLE / "init").read_bytes()))
        for vcpus, pcpus in ((1, 1), (2, 1), (2, 2)):
            seconds: dict[bool, list[float]] = {False: [], True: []}
            ends: dict[bool, list[int]] = {}
            for number in range(arguments.rounds):
                for finds in (False, True) if number % 2 == 0 else (True, False):
                    cpu, ends[finds] = measure(
                        [sys.executable, "-c", BOOT, kernel, str(initrd), str(vcpus), str(pcpus), str(finds)]
                    )
                    seconds[finds].append(cpu)
            assert ends[False][0] == ends[True][0], ends
            ratios = sorted(on / off for on, off in zip(seconds[True], seconds[False], strict=True))
            results.append(
                {
                    "vcpus": vcpus,
                    "pcpus": pcpus,
                    "instructions": ends[True][0],
                    "wfe_sites": ends[True][1],
                    "off_s_median": round(statistics.median(seconds[False]), 3),
                    "on_s_median": round(statistics.median(seconds[True]), 3),
                    "off_s_min": round(min(seconds[False]), 3),
                    "on_s_min": round(min(seconds[True]), 3),
                    "ratio_median": round(statistics.median(ratios), 4),
                    "ratio_range": [round(ratios[0], 4), round(ratios[-1], 4)],
                }
            )
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for result in results:
        print("  ".join(f"{key} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
