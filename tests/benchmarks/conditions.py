"""Under which conditions figures were measured: machine, versions, load."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import QEMU, Bench
from guests import REPOSITORY
from harness import NotAvailableError

PACKAGES = ("unicorn", "pyarrow", "polars", "click", "zstandard")


def _file(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _first(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout.strip().splitlines() or [""])[0] if done.returncode == 0 else ""


def load() -> list[float]:
    """Load averages of 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()]


def now() -> str:
    """UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def conditions(bench: Bench) -> dict[str, Any]:
    """Everything that the page's head says, but the duration and the loads of the themes."""
    model = re.search(r"^model name\s*:\s*(.+)$", _file("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _file("/proc/meminfo"), re.MULTILINE)
    ask = (
        "import importlib.metadata as m, sys\n"
        f"print(sys.version.split()[0], *(m.version(name) for name in {PACKAGES!r}), end=' ')\n"
        "try: print(m.version('numpy'))\nexcept m.PackageNotFoundError: print('none')"
    )
    versions = _first([str(bench.python), "-c", ask]).split()
    names = ("python", *PACKAGES, "numpy")
    try:
        guest = bench.kernel.name
    except NotAvailableError:
        guest = None
    return {
        "date": now(),
        "commit": _first(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]) or None,
        "cpu": model[1] if model else platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(int(memory[1]) / (1 << 20), 1) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "versions": dict(zip(names, versions, strict=False)),
        "qemu": _first([QEMU, "--version"]) if shutil.which(QEMU) else None,
        "guest_kernel": guest,
        "environment": "fresh" if bench.tracekit[0].endswith("tracekit") else "given",
        "rounds": bench.rounds,
        "quick": bench.quick,
    }
