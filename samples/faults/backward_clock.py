"""The clock steps back."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class BackwardClock(Fault):
    """Every fourth reading of run_delay is an old one, as from the clock of a CPU that lags; the next is right again."""

    name = "backward-clock"
    models = "bugs 33 and 40: a clock that is set back, and skew between state changes (KVM-emulated Xen 2024; xen aa9c440212)"
    invariant = "S1"

    def __init__(self) -> None:
        self._readings_ns: dict[int, list[int]] = {}

    def clears(self, vcpu: int) -> bool:
        """Older readings belong to another count."""
        self._readings_ns[vcpu] = []
        return True

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """Three readings behind, every fourth time."""
        readings = self._readings_ns.setdefault(vcpu, [])
        readings.append(ns)
        if len(readings) % 4 == 0:
            self.kit.acts(vcpu)
            return readings[-4]
        return ns
