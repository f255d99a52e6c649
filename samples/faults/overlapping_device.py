"""Bugs 15 and 16: the region lies on a device (kvmtool 6a1f699; kvmarm 1add08b0)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class OverlappingDevice(Fault):
    """Found by M6."""

    name = "overlapping-device"
    models = "Bugs 15 and 16: the region lies on a device (kvmtool 6a1f699; kvmarm 1add08b0)"
    invariant = "M6"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """On the UART."""
        return tuple(base and 0x0900_0000 + 64 * n for n, base in enumerate(bases))

    def checks_bases(self) -> bool:
        """Nobody checks."""
        return False
