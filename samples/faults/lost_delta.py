"""A store fails and its difference is gone."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class LostDelta(Fault):
    """Every third store faults after the cursor has moved: what was waited since the update before is never told."""

    name = "lost-delta"
    models = (
        "bug 12: the cursor advances before the store is known good (arm64 KVM up to 2026; "
        "kvmarm list, September 2026, title only)"
    )
    invariant = "S4"

    def __init__(self) -> None:
        self._count = 0

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """None, every third time."""
        self._count += 1
        if self._count % 3 == 0:
            self.kit.acts(vcpu)
            return []
        return [(ipa, 8, value)]
