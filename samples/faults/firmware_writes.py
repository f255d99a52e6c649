"""Somebody else stores to the structure."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class FirmwareWrites(Fault):
    """Now and then the field grows by 10 us while the guest runs (a host store of cause `fault`), and the next update builds on it."""

    name = "firmware-writes"
    models = "hazard 8.1d: firmware writes the field and makes a new base (docs/pvtime.md 2.6)"
    invariant = "S5"

    def __init__(self) -> None:
        self._entries = 0

    def entered(self, vcpu: int) -> None:
        """20 us after every fourth guest entry."""
        self._entries += 1
        if self._entries % 4 == 0:
            self.kit.call_at(vcpu, self.kit.now_ns() + 20_000)

    def due(self, vcpu: int) -> None:
        """Ten microseconds more."""
        base = self.kit.base(vcpu)
        if base is not None:
            self.kit.acts(vcpu)
            self.kit.store(base + 8, 8, self.kit.read(base + 8, 8) + 10_000)
