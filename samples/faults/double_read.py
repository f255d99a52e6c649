"""run_delay is read twice."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class DoubleRead(Fault):
    """A preemption of 1 us that ends between the two reads is in what the cursor remembers, but not in the total."""

    name = "double-read"
    models = "bug 9: one read for the total, another for the cursor (arm64 KVM v5.5 to v5.9; kvmarm a75dcbe9, 5feb28b6)"
    invariant = "S4"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """The first read came before the last microsecond of the wait."""
        return base_ns + max(0, delta_ns - 1_000)
