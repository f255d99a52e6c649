"""What a timeline consists of, and who draws it. Times are virtual, in ns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tracekit.formats.reader import Trace


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the host. vcpu: which one it is, if it is one."""

    number: int
    kind: str
    name: str
    vcpu: int | None


@dataclass(frozen=True, slots=True)
class Scene:
    """Who plays. pcpus, vcpus: how many the manifest speaks of."""

    run: str
    digest: str
    policy: str
    pcpus: int
    vcpus: int
    threads: tuple[Thread, ...]
    end_ns: int


# A thread runs on a physical CPU: pcpu, thread, start_ns, end_ns, event and reason of the row that ends it (None where the trace ends), and
# position and sequence of the row that begins it.
Occupancy = tuple[int, int, int, int, str | None, str | None, int, int]
# A thread wants to run from now on: the physical CPU that it waits for, thread, vtime_ns.
Waking = tuple[int, int, int]
# A vCPU is in a state (`timeline.intervals`): vcpu, state, start_ns, end_ns; event, reason, pcpu, position, sequence of the row that begins
# it; flow_out of a run that others cut short, which is flow_in of the run with which it resumes.
Slice = tuple[int, str, int, int, str | None, str | None, int | None, int, int, int | None, int | None]
# A counter of a vCPU has a new value: vcpu, counter, vtime_ns, value in ns.
Sample = tuple[int, str, int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of instants: where it stands and which arguments it has. hexadecimal: arguments that are addresses and the like."""

    name: str
    columns: tuple[str, ...]
    hexadecimal: frozenset[str] = frozenset()


# true: what the policy counts since PV_TIME_ST; told: what stands in memory; error: told - true, at guest entries.
COUNTERS = {"true": "stolen time, true", "told": "stolen time, told", "error": "stolen time, error"}


class Painter(Protocol):
    """Draws what it is given, in the order in which it is given. Intervals have a length, and those of a CPU or vCPU follow each other."""

    def begin(self, scene: Scene) -> None: ...
    def occupancies(self, rows: Sequence[Occupancy], wakings: Sequence[Waking]) -> None: ...
    def slices(self, rows: Sequence[Slice]) -> None: ...
    def samples(self, rows: Sequence[Sample]) -> None: ...

    def instants(self, kind: Kind, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows (vcpu or None, vtime_ns, position, sequence, then the kind's columns)."""

    def close(self) -> None: ...


def scene_of(trace: Trace, run: str, policy: str) -> Scene:
    """From the manifest; the n-th vCPU thread is vCPU n."""
    manifest = trace.manifest
    threads = []
    vcpus = 0
    for one in manifest["threads"]:
        is_vcpu = one["kind"] == "vcpu"
        name = str(one.get("name", f"{one['kind']}{one['thread']}"))
        threads.append(Thread(int(one["thread"]), str(one["kind"]), name, vcpus if is_vcpu else None))
        vcpus += is_vcpu
    host = manifest.get("scenario", {}).get("host", {})
    pcpus = int(host.get("pcpus", 0)) if isinstance(host, dict) else 0
    count = int(manifest.get("machine", {}).get("vcpus", 0)) or vcpus
    return Scene(run, str(manifest["digest"]), policy, pcpus, count, tuple(threads), int(manifest["end"]["vtime_ns"]))
