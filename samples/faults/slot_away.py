"""The total stands still, then jumps."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SlotAway(Fault):
    """Of every 20 ms of host time the structures cannot be read from the sixth to the tenth; the update after that catches up."""

    name = "slot-away"
    models = "hazard 8.1e: the slot goes after the address was set, and returns (docs/pvtime.md 3.5)"
    invariant = "S4"

    def publishes(self, vcpu: int) -> bool:
        """Not while the page is away."""
        if 5_000_000 <= self.kit.now_ns() % 20_000_000 < 10_000_000:
            self.kit.acts(vcpu)
            return False
        return True
