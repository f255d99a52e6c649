"""What is measured of a trace: every metric by name, with its unit and which way is better."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tracekit.analyzers.invariants import INVARIANTS
from tracekit.formats.tables import TABLES

Better = Literal["lower", "higher", "none"]
Value = int | str | None
PERCENTILES = ("p50", "p90", "p99", "max")


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric's meaning. parts: what it is also given of, besides the whole run (vcpu, function, table, invariant).

    is_of_guest: its values belong to the guest's code; those of different guests cannot be compared. is_portable: equal on every installation.
    """

    name: str
    unit: str
    better: Better
    means: str
    parts: str | None = None
    is_of_guest: bool = False
    is_portable: bool = True


@dataclass(frozen=True, slots=True)
class Metric:
    """A value of one run. of: the part that it is of (`vcpu1`, `PV_TIME_ST`, `schedule`, `S4`), None for the whole run.

    value: a whole number in `unit`, a SHA-256, a word, or None where the run has no such value.
    """

    name: str
    of: str | None
    unit: str
    better: Better
    value: Value

    @property
    def key(self) -> str:
        """Its name within a run: `wait.p99_ns`, or `wait.p99_ns[vcpu1]` of a part."""
        return key_of(self.name, self.of)


def key_of(name: str, of: str | None) -> str:
    """`name` or `name[of]`."""
    return name if of is None else f"{name}[{of}]"


def name_of(key: str) -> str:
    """The metric of a key, without the part."""
    return key.partition("[")[0]


def _spread(name: str, better: Better, means: str) -> tuple[Kind, ...]:
    what = {"p50": "half of them", "p90": "90 % of them", "p99": "99 % of them", "max": "all of them"}
    return tuple(
        Kind(f"{name}.{percent}_ns", "ns", better, f"{means}: what {what[percent]} do not exceed", "vcpu")
        for percent in PERCENTILES
    )


_KINDS = (
    Kind("run.end", "word", "none", "how the run ended (`power_off`, `panic`, ...)"),
    Kind("run.powered_off", "bool", "higher", "1 where the guest powered off by itself"),
    Kind("findings", "count", "lower", "rows that break an invariant", "invariant"),
    Kind("steal.total_ns", "ns", "lower", "stolen time of the whole run by the policy's formula, from the schedule", "vcpu"),
    Kind("steal.true_ns", "ns", "none", "what the structures must hold at the end: since PV_TIME_ST, up to the last guest entry", "vcpu"),
    Kind("steal.told_ns", "ns", "none", "what they hold at the end", "vcpu"),
    Kind("steal.read_ns", "ns", "none", "stolen time as the guest last read it", "vcpu"),
    Kind("steal.accounted_ns", "ns", "none", "stolen time in the guest's last `/proc/stat` (10 ms steps)", "vcpu"),
    Kind("steal.error_ns", "ns", "lower", "greatest difference of told and true at a guest entry", "vcpu"),
    Kind("steal.read_error_ns", "ns", "lower", "greatest difference of read and true in a vCPU's own reads", "vcpu"),
    Kind("steal.read_age_ns", "ns", "lower", "greatest age of what a vCPU's own read saw", "vcpu"),
    Kind("steal.entries", "count", "none", "guest entries at which the structure was due", "vcpu"),
    Kind("steal.missing", "count", "lower", "guest entries without the update that was due", "vcpu"),
    Kind("steal.reads", "count", "none", "reads of the own structure", "vcpu", is_of_guest=True),
    Kind("console.sha256", "sha256", "none", "the console's bytes, all vCPUs together in the trace's order", is_of_guest=True),
    Kind("run.instructions", "instructions", "lower", "instructions up to the guest's power-off", is_of_guest=True),
    Kind("run.vtime_ns", "ns", "lower", "virtual time up to the guest's power-off", is_of_guest=True),
    Kind("life.run_ns", "ns", "none", "time on a physical CPU", "vcpu"),
    Kind("life.wait_ns", "ns", "lower", "time in which the vCPU could have run and waited", "vcpu"),
    Kind("life.block_ns", "ns", "none", "time asleep, paused, suspended or off", "vcpu"),
    *_spread("run", "none", "lengths of the stays on a physical CPU"),
    *_spread("wait", "lower", "lengths of the waits"),
    *_spread("wakeup", "lower", "time from a wake-up to the run that follows"),
    Kind("sched.preemptions", "count", "lower", "times that the host took the physical CPU away", "vcpu"),
    Kind("sched.migrations", "count", "lower", "moves to another physical CPU", "vcpu"),
    Kind("sched.wakeups", "count", "none", "wake-ups", "vcpu"),
    Kind("hypercalls.count", "count", "none", "hypercalls", "function", is_of_guest=True),
    Kind("hypercalls.refused", "count", "lower", "hypercalls answered by NOT_SUPPORTED (-1)", "function", is_of_guest=True),
    Kind("hypercalls.cost_ns", "ns", "lower", "what the host's model charged for them (`exit_cost`)", "function", is_of_guest=True),
    Kind("trace.rows", "count", "none", "rows", "table"),
    Kind("trace.bytes", "bytes", "lower", "size on disk; depends on the zstd that wrote it", "table", is_portable=False),
)  # fmt: skip
CATALOGUE: dict[str, Kind] = {kind.name: kind for kind in _KINDS}


def metric(name: str, value: Value, of: str | None = None) -> Metric:
    """A metric of the catalogue with its value."""
    kind = CATALOGUE[name]
    assert of is None or kind.parts is not None, name
    return Metric(name, of, kind.unit, kind.better, value)


def is_known(key: str) -> bool:
    """Whether a metric of this key can be there: of a vCPU, table or invariant that can be; functions also by number."""
    name, bracket, part = key.partition("[")
    kind = CATALOGUE.get(name)
    if kind is None or not bracket:
        return kind is not None
    if not part.endswith("]") or len(part) < 2:
        return False
    part = part[:-1]
    allowed = {"vcpu": part.startswith("vcpu") and part[4:].isdecimal(), "table": part in TABLES, "invariant": part in INVARIANTS}
    return allowed.get(kind.parts or "", kind.parts == "function")


def near(key: str, others: Iterable[str] = ()) -> list[str]:
    """Up to three known names that look like a key."""
    return difflib.get_close_matches(name_of(key), [*CATALOGUE, *others], n=3, cutoff=0.5)
