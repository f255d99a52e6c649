"""Offered, and always 0."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class NoAccounting(Fault):
    """The host's kernel does not account run_delay, and stolen time is offered all the same."""

    name = "no-accounting"
    models = "bug 11: delay accounting is off (arm64 KVM v5.5 to v5.7; kvmarm 018710b3, fix a25e91028ac2)"
    invariant = "S4"

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """Nobody counts."""
        return 0
