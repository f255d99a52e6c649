"""Bug 11: delay accounting is off and run_delay stays 0 (arm64 KVM v5.5 to v5.7; a25e91028ac2)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class NoAccounting(Fault):
    """Found by S4."""

    name = "no-accounting"
    models = "Bug 11: delay accounting is off and run_delay stays 0 (arm64 KVM v5.5 to v5.7; a25e91028ac2)"
    invariant = "S4"

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """Advertised, yet always 0."""
        return 0
