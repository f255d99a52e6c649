"""Bugs 23, 24, 29 and 37: updates go on to an old address (x86 KVM 2021; 901d3765fa80, 8b79feffeca2)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class OldAddress(Fault):
    """Found by L5."""

    name = "old-address"
    models = "Bugs 23, 24, 29 and 37: updates go on to an old address (x86 KVM 2021; 901d3765fa80, 8b79feffeca2)"
    invariant = "L5"

    def target(self, vcpu: int, ipa: int) -> int:
        """The structure that the next vCPU number would have."""
        return ipa + 64 * self.kit.vcpu_count
