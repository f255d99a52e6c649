"""Peak memory of recording a guest that fills all its RAM: python tests/benchmarks/record_memory.py [--ram 256] [--capture writes]."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from guests import RAM_BASE, stores


def main() -> None:
    """Print the peak and what lies beyond the guest's RAM, in MiB."""
    parser = argparse.ArgumentParser(description="Peak memory of recording a guest that fills all its RAM, without checkpoints.")
    parser.add_argument("--ram", type=int, default=256, help="MiB")
    parser.add_argument("--capture", default="thin", choices=["thin", "writes", "full"])
    arguments = parser.parse_args()
    ram, capture = arguments.ram, ["--capture", arguments.capture, "--no-checkpoints"]
    with tempfile.TemporaryDirectory() as folder:
        guest = Path(folder) / "touch"
        guest.write_bytes(stores(1, (ram - 3) << 20, RAM_BASE + (1 << 20)))  # all but the first MiB and the last two
        command = [sys.executable, "-m", "tracekit.cli", "record", str(guest), "--format", "flat", "--ram", f"{ram}M"]
        process = subprocess.Popen([*command, *capture, "-o", str(Path(folder) / "touch.tkt")], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"recording failed with exit code {process.returncode}")
    peak = usage.ru_maxrss / 1024
    print(f"peak {peak:.0f} MiB: {ram} MiB of guest RAM and {peak - ram:.0f} MiB beyond it")


if __name__ == "__main__":
    main()
