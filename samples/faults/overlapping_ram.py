"""Structures in the guest's own memory."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class OverlappingRam(Fault):
    """They lie in RAM that the device tree gives to the guest: both believe it theirs."""

    name = "overlapping-ram"
    models = "bugs 15 and 16: a region over what the guest was told is RAM (kvmtool 6a1f699; kvmarm 1add08b0)"
    invariant = "M6"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """64 KiB into RAM, below the usual place of an image."""
        return tuple(base and 0x4001_0000 + 64 * vcpu for vcpu, base in enumerate(bases))
