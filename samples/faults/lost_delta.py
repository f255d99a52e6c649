"""Bug 12: a store fails after the cursor has moved (arm64 KVM up to 2026; kvmarm list, September 2026)."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class LostDelta(Fault):
    """Found by S4."""

    name = "lost-delta"
    models = "Bug 12: a store fails after the cursor has moved (arm64 KVM up to 2026; kvmarm list, September 2026)"
    invariant = "S4"

    def __init__(self) -> None:
        self._count = 0

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """Every third store faults."""
        self._count += 1
        return [(ipa, 8, value)] if self._count % 3 else []
