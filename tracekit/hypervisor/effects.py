"""What a hypercall asks of the board beyond its result registers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PowerOn:
    """Another vCPU starts at `entry` with X0 = context."""

    vcpu: int
    entry: int
    context: int


@dataclass(frozen=True, slots=True)
class PowerOff:
    """The caller stops; no result is seen."""


@dataclass(frozen=True, slots=True)
class Standby:
    """The caller waits for an interrupt, as WFI."""


@dataclass(frozen=True, slots=True)
class SystemOff:
    """The machine stops."""


@dataclass(frozen=True, slots=True)
class SystemReset:
    """The machine would start again."""


Effect = PowerOn | PowerOff | Standby | SystemOff | SystemReset
