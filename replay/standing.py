"""What a replay knows beside the board: the parts of its state that live in no register."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracekit.machine.state import MachineState

SNAPSHOTS_MAX = 64  # that one run keeps
Sgi = tuple[int, int, int, int]  # (at_ns, source, target, intid)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that a directive keeps: the machine, and the SGIs on their way then."""

    state: MachineState  # portable values and pages
    sgis: tuple[Sgi, ...]


@dataclass(slots=True)
class Standing:
    """Where a replay stands. loaded: the vCPU on a physical CPU; entering: the last `run` row (vCPU, ns), until the engine is needed for it.

    last_check: position of the last board `states` row that agreed. vtime_ns: the latest time seen.
    """

    sgis: list[Sgi] = field(default_factory=list)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    loaded: int | None = None
    entering: tuple[int, int] | None = None
    last_check: int = 0
    vtime_ns: int = 0

    def become(self, other: Standing) -> None:
        """Stand where another one does."""
        self.sgis, self.snapshots = list(other.sgis), dict(other.snapshots)
        self.loaded, self.entering = other.loaded, other.entering
        self.last_check, self.vtime_ns = other.last_check, other.vtime_ns

    def saw(self, ns: int) -> None:
        """A time of the run."""
        self.vtime_ns = max(self.vtime_ns, ns)
