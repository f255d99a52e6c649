"""What a scenario may choose of the host."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError
from tracekit.formats.units import parse_duration_ns

POLICIES = ("round-robin", "fair", "chaos")
DIRECTIVES = ("pause", "resume", "migrate")
PCPUS_MAX = 16
NEIGHBOURS_MAX = 64
NICE_0_WEIGHT = 1024


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Modelled load: runs duty x period, sleeps the rest, again and again. duty in parts of a million; pcpu pins it."""

    name: str
    duty: int = 500_000
    period_ns: int = 10_000_000
    pcpu: int | None = None
    weight: int = NICE_0_WEIGHT

    @staticmethod
    def parse(text: str, index: int) -> Neighbour:
        """DUTY[:PERIOD][@PCPU], for example 50%, 25%:4ms, 100%@1. Errors: InputError."""
        rest, _, pin = text.partition("@")
        duty, _, period = rest.partition(":")
        try:
            number = duty.strip().removesuffix("%")
            whole, _, fraction = number.partition(".")
            parts = int(whole) * 10_000 + int((fraction + "0000")[:4])
            pcpu = int(pin) if pin else None
        except ValueError:
            raise InputError(f"host.neighbours = {text!r}: DUTY[:PERIOD][@PCPU] is needed, for example 50%:10ms@0") from None
        period_ns = parse_duration_ns(period) if period else 10_000_000
        return Neighbour(f"neighbour{index}", parts, period_ns, pcpu)

    @property
    def burst_ns(self) -> int:
        """CPU time of one burst."""
        return max(1, self.period_ns * self.duty // 1_000_000)

    @property
    def sleep_ns(self) -> int:
        """Sleep between two bursts; 0: it never sleeps."""
        return self.period_ns - self.burst_ns


@dataclass(frozen=True, slots=True)
class Directive:
    """Something done to a vCPU's thread at an exact virtual time: pause, resume, or migrate to `pcpu`."""

    at_ns: int
    kind: str
    vcpu: int
    pcpu: int | None = None


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Times in ns. quantum_ns: how far one physical CPU may run ahead of another that also runs a vCPU."""

    pcpus: int = 1
    policy: str = "round-robin"
    slice_ns: int = 3_000_000
    quantum_ns: int = 200_000
    wakeup_latency_ns: int = 0
    wakeup_granularity_ns: int = 1_000_000
    neighbours: tuple[Neighbour, ...] = ()
    directives: tuple[Directive, ...] = ()

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"host.policy = {self.policy!r}: must be one of {', '.join(POLICIES)}")
        for key, value, lowest, highest in (
            ("pcpus", self.pcpus, 1, PCPUS_MAX),
            ("slice", self.slice_ns, 1_000, 10**10),
            ("quantum", self.quantum_ns, 100, 10**9),
            ("wakeup_latency", self.wakeup_latency_ns, 0, 10**9),
            ("wakeup_granularity", self.wakeup_granularity_ns, 0, 10**9),
            ("neighbours", len(self.neighbours), 0, NEIGHBOURS_MAX),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise InputError(f"host.{key} = {value!r}: must be from {lowest} to {highest}")
        for one in self.neighbours:
            if not 0 < one.duty <= 1_000_000 or not 1_000 <= one.period_ns <= 10**10 or not 1 <= one.weight <= 1 << 20:
                raise InputError(
                    f"host.neighbours: {one.name}: duty must be above 0% and at most 100%, period from 1us to 10s, weight from 1"
                )
            if one.pcpu is not None and not 0 <= one.pcpu < self.pcpus:
                raise InputError(f"host.neighbours: {one.name}: there is no pCPU {one.pcpu}; the host has {self.pcpus}")
        for directive in self.directives:
            if directive.kind not in DIRECTIVES:
                raise InputError(f"host.directives.kind = {directive.kind!r}: must be one of {', '.join(DIRECTIVES)}")
            needs = directive.kind == "migrate"
            if needs != (directive.pcpu is not None) or (needs and not 0 <= (directive.pcpu or 0) < self.pcpus):
                raise InputError("host.directives.pcpu: migrate needs an existing pCPU, the others have none")
