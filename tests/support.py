"""What several tests use: bundled guests, short recordings, the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.host.config import HostConfig, Neighbour
from tracekit.recorder.record import Recorded, record
from tracekit.recorder.scenario import Scenario
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.workbench.demo import bundled_guest

REPOSITORY = Path(__file__).resolve().parent.parent
GUESTS = ("hello", "steal", "spinlock", "timer", "faults", "memory", "lse", "accounting")


def scenario(guest: str, **changes: Any) -> Scenario:
    """A bundled guest with two vCPUs where it uses them, on a small board."""
    base = Scenario(image=str(bundled_guest(guest)), vcpus=2, ram=16 << 20, max_vtime_ns=5_000_000_000)
    if guest == "lse":
        base = replace(base, cpu="max")
    return replace(base, **changes)


def busy_host(policy: str = "round-robin", pcpus: int = 1, **changes: Any) -> HostConfig:
    """A host with a neighbour that takes half of a physical CPU."""
    return HostConfig(pcpus=pcpus, policy=policy, neighbours=(Neighbour("neighbour0", 500_000, 2_000_000),), **changes)


def recorded(path: Path, guest: str, **changes: Any) -> Recorded:
    """Record a bundled guest."""
    return record(scenario(guest, **changes), path)


def replayed(path: Path, **options: Any) -> Result:
    """Replay a trace."""
    trace = Trace.open(path, verify="all")
    session = Replay(trace, ReplayOptions(**options))
    try:
        return session.run()
    finally:
        session.board.close()


def console(path: Path) -> str:
    """Everything that was printed."""
    return b"".join(row[4] for row in Trace.open(path).rows("console")).decode()


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    """A table's rows by column name."""
    names = [column.name for column in TABLES[table].columns]
    return [dict(zip(names, row, strict=True)) for row in Trace.open(path).rows(table)]


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a trace folder."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def tracekit(*arguments: object, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "tracekit.cli", *(str(one) for one in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def environment(**changes: str) -> dict[str, str]:
    """The environment with some variables changed."""
    return {**os.environ, **changes}
