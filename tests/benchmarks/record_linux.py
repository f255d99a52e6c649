"""What recording costs: python tests/benchmarks/record_linux.py [--rounds 5] [--json].

Debian's boot on 1 vCPU, CPU time (user + sys) of whole processes, taken side by side in rounds: tracekit recording; the same run
unrecorded; QEMU's own record mode (`qemu-system-aarch64 -icount shift=0,rr=record`, Debian's package) on the same kernel and
initramfs. Ratios are medians of the rounds' ratios. Peak memory is the process's greatest resident set.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SAMPLE = REPOSITORY / "samples" / "linux"
RAM_MIB = 512
UNRECORDED = """
import sys
from pathlib import Path
from tracekit.recorder.record import load_guest
from tracekit.recorder.scenario import Scenario
from tracekit.recorder.session import Recording
scenario = Scenario(image=sys.argv[1], initrd=sys.argv[2], max_vtime_ns=30_000_000_000)
end = Recording(scenario, load_guest(scenario), None).run()
assert end.reason.value == "power_off", end
"""


def load(name: str) -> Any:
    """A script of the Linux sample as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(command: list[str]) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of a process and its children; it must end well."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description="What recording a Linux boot costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    fetch = load("fetch")
    kernel = str(fetch.fetch("cloud", fetch.default_cache()))
    with tempfile.TemporaryDirectory() as folder:
        initrd, trace, log = (str(Path(folder) / name) for name in ("initramfs.cpio", "boot.tkt", "replay.bin"))
        Path(initrd).write_bytes(load("initramfs").initramfs((SAMPLE / "init").read_bytes()))
        tracekit = [sys.executable, "-m", "tracekit.cli"]
        jobs = {
            "record": [*tracekit, "record", kernel, "--initrd", initrd, "-o", trace, "--force", "--max-vtime", "30s"],
            "unrecorded": [sys.executable, "-c", UNRECORDED, kernel, initrd],
            "replay": [*tracekit, "replay", trace],
        }
        if shutil.which("qemu-system-aarch64"):
            jobs["qemu rr=record"] = [
                "qemu-system-aarch64", "-M", "virt,gic-version=2", "-cpu", "cortex-a53", "-m", str(RAM_MIB), "-display", "none",
                "-monitor", "none", "-serial", "null", "-net", "none", "-icount", f"shift=0,rr=record,rrfile={log}", "-kernel", kernel,
                "-initrd", initrd, "-append", "earlycon=pl011,0x09000000 console=ttyAMA0", "-no-reboot",
            ]  # fmt: skip
        else:
            print("QEMU MISSING: install Debian's qemu-system-arm for the comparison", file=sys.stderr)
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        peak: dict[str, float] = dict.fromkeys(jobs, 0.0)
        for _ in range(arguments.rounds):
            for name, command in jobs.items():
                cpu, memory = measure(command)
                seconds[name].append(cpu)
                peak[name] = max(peak[name], memory)
        size = sum(path.stat().st_size for path in Path(trace).rglob("*") if path.is_file() and path.suffix != ".zst")
        position = json.loads(subprocess.run([*tracekit, "info", trace, "--json"], capture_output=True, check=True).stdout)[
            "end"
        ]["position"]

    def ratio(name: str, base: str) -> float | None:
        if name not in seconds or base not in seconds:
            return None
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))

    result = {
        "rounds": arguments.rounds,
        "instructions": position,
        "cpu_seconds_median": {name: statistics.median(values) for name, values in seconds.items()},
        "cpu_seconds_spread": {name: [min(values), max(values)] for name, values in seconds.items()},
        "record / qemu rr=record": ratio("record", "qemu rr=record"),
        "record / unrecorded": ratio("record", "unrecorded"),
        "replay / record": ratio("replay", "record"),
        "peak_mib_beyond_ram": {name: peak[name] - RAM_MIB for name in peak},
        "trace_bytes_without_images": size,
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for key, value in result.items():
        print(f"{key:<28} {value}")


if __name__ == "__main__":
    main()
