"""Updates come with the tick."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class TickOnly(Fault):
    """Only the first guest entry after each tick of 4 ms updates the total."""

    name = "tick-only"
    models = "a policy error: the host's tick instead of each guest entry (docs/pvtime.md 3.6)"
    invariant = "S4"

    def __init__(self) -> None:
        self._tick: dict[int, int] = {}

    def publishes(self, vcpu: int) -> bool:
        """Once a tick."""
        tick = self.kit.now_ns() // 4_000_000
        is_first = self._tick.get(vcpu) != tick
        self._tick[vcpu] = tick
        return is_first
