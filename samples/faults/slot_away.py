"""The total stands still, then jumps."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SlotAway(Fault):
    """From the fourth guest entry on the structures cannot be read for 5 ms of host time; then one update catches up."""

    name = "slot-away"
    models = "hazard 8.1e: the slot goes after the address was set, and returns (docs/pvtime.md 3.5)"
    invariant = "S4"

    def __init__(self) -> None:
        self._entries = 0
        self._back_ns = 0

    def publishes(self, vcpu: int) -> bool:
        """Not while the page is away."""
        self._entries += 1
        if self._entries == 4:
            self._back_ns = self.kit.now_ns() + 5_000_000
        if self.kit.now_ns() < self._back_ns:
            self.kit.acts(vcpu)
            return False
        return True
