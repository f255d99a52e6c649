"""The demo: a bundled guest on a contended host, recorded, replayed, and its stolen time checked against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from tracekit.analyzers.steal import per_vcpu
from tracekit.formats.reader import Trace
from tracekit.host.config import HostConfig, Neighbour
from tracekit.recorder.record import Recorded, record
from tracekit.recorder.scenario import Scenario
from tracekit.replay.divergence import Result
from tracekit.replay.session import Replay


@dataclass(frozen=True, slots=True)
class VcpuSteal:
    """One line of the report; times in ns."""

    vcpu: int
    reads: int
    told_ns: int
    true_ns: int
    error_ns: int


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo shows."""

    recorded: Recorded
    console: str
    result: Result
    steal: tuple[VcpuSteal, ...]


def bundled_guest(name: str) -> Path:
    """The prebuilt ELF of a bundled guest (sources: samples/guests)."""
    with as_file(files("tracekit.workbench") / "guests" / f"{name}.elf") as path:
        return path


def demo_scenario() -> Scenario:
    """Two vCPUs and a neighbour share one physical CPU; every guest write is captured."""
    return Scenario(
        image=str(bundled_guest("steal")),
        vcpus=2,
        ram=64 << 20,
        host=HostConfig(pcpus=1, policy="fair", neighbours=(Neighbour("neighbour0", 300_000),)),
        capture="writes",
    )


def run(path: Path, *, force: bool = False, tell: Callable[[str], None] = lambda text: None) -> Demo:
    """Record, replay, analyse. Errors: TracekitError."""
    tell("recording the bundled guest `steal`: 2 vCPUs and a neighbour on 1 pCPU")
    recorded = record(demo_scenario(), path, force=force)
    tell("replaying it from the trace alone")
    trace = Trace.open(path, verify="all")
    result = Replay(trace).run()
    console = b"".join(row[4] for row in trace.rows("console")).decode("utf-8", "replace")
    rows = per_vcpu(trace).select("vcpu", "reads", "read_ns", "read_true_ns", "read_error_ns").rows()
    steal = tuple(VcpuSteal(*(int(value) for value in row)) for row in rows if row[1])
    return Demo(recorded, console, result, steal)
