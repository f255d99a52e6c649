"""Bugs 33 and 40: the clock behind the total steps back (KVM-emulated Xen; xen aa9c440212)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class BackwardClock(Fault):
    """Found by S1."""

    name = "backward-clock"
    models = "Bugs 33 and 40: the clock behind the total steps back (KVM-emulated Xen; xen aa9c440212)"
    invariant = "S1"

    def __init__(self) -> None:
        self._count = 0

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """Every fourth difference has the wrong sign."""
        self._count += 1
        return base_ns + delta_ns if self._count % 4 else base_ns - 1_000_000
