"""Bug 4: the total is copied byte by byte (arm64 KVM v1 and v2; v7 cover letter)."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class TornUpdate(Fault):
    """Found by M3."""

    name = "torn-update"
    models = "Bug 4: the total is copied byte by byte (arm64 KVM v1 and v2; v7 cover letter)"
    invariant = "M3"

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """Eight stores of a byte."""
        return [(ipa + n, 1, value >> 8 * n & 0xFF) for n in range(8)]
