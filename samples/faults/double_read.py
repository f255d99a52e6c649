"""Bug 9: run_delay is read twice; what passes between the reads is lost (arm64 KVM v5.5 to v5.9; kvmarm a75dcbe9)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class DoubleRead(Fault):
    """Found by S4."""

    name = "double-read"
    models = "Bug 9: run_delay is read twice; what passes between the reads is lost (arm64 KVM v5.5 to v5.9; kvmarm a75dcbe9)"
    invariant = "S4"

    def cursor_ns(self, vcpu: int, ns: int) -> int:
        """The second read comes after a preemption of 1 us."""
        return ns + 1_000
