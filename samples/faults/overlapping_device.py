"""Structures on a device."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class OverlappingDevice(Fault):
    """They lie on the UART's registers: the host cannot store there, and the guest reads the device."""

    name = "overlapping-device"
    models = "bugs 15 and 16: a base taken for a size, and a hole that was none (kvmtool 6a1f699; kvmarm 1add08b0, 5b689361)"
    invariant = "M6"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """On the PL011."""
        return tuple(base and 0x0900_0000 + 64 * vcpu for vcpu, base in enumerate(bases))

    def checks_bases(self) -> bool:
        """Nobody looks."""
        return False
