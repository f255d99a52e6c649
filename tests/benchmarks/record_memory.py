"""Peak memory of recording a guest that touches all its RAM: python tests/benchmarks/record_memory.py [--ram 256]."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RAM_BASE = 0x4000_0000


def touching_guest(ram_mib: int) -> bytes:
    """Stores into each 4 KiB page from 1 MiB to 2 MiB before the end of RAM, then powers off."""
    first, last = RAM_BASE + (1 << 20), RAM_BASE + (ram_mib - 2 << 20)
    words = [
        0xD2A00000 | first >> 16 << 5,  # mov x0, #first
        0xD2A00001 | last >> 16 << 5,  # mov x1, #last
        0xF9000001,  # 1: str x1, [x0]
        0x91400400,  # add x0, x0, #0x1000
        0xEB01001F,  # cmp x0, x1
        0x54FFFFA3,  # b.lo 1b
        0x52800100,  # mov w0, #8
        0x72B08000,  # movk w0, #0x8400, lsl #16    PSCI SYSTEM_OFF
        0xD4000002,  # hvc #0
        0x14000000,  # b .
    ]
    return b"".join(word.to_bytes(4, "little") for word in words)


def main() -> None:
    """Print the peak and what lies beyond the guest's RAM, in MiB."""
    parser = argparse.ArgumentParser(description="Peak memory of recording a guest that touches all its RAM.")
    parser.add_argument("--ram", type=int, default=256, help="MiB")
    ram = parser.parse_args().ram
    with tempfile.TemporaryDirectory() as folder:
        guest = Path(folder) / "touch"
        guest.write_bytes(touching_guest(ram))
        command = [sys.executable, "-m", "tracekit.cli", "record", str(guest), "--format", "flat", "--ram", f"{ram}M"]
        process = subprocess.Popen([*command, "-o", str(Path(folder) / "touch.tkt")], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"recording failed with exit code {process.returncode}")
    peak = usage.ru_maxrss / 1024
    print(f"peak {peak:.0f} MiB: {ram} MiB of guest RAM and {peak - ram:.0f} MiB beyond it")


if __name__ == "__main__":
    main()
