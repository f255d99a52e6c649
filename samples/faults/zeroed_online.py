"""A vCPU that comes back begins at 0."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class ZeroedOnline(Fault):
    """The host starts the count again when a vCPU is powered on, before the guest asks; the guest keeps the last total it saw."""

    name = "zeroed-online"
    models = "hazard 8.1a and bug 43: zero at CPU online against a cursor that is kept (stable 62208707b466)"
    invariant = "L1"
    needs = "online"

    def __init__(self) -> None:
        self._powered_on: set[int] = set()

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """The next update is the first of a new life."""
        if kind == "online" and vcpu is not None:
            self._powered_on.add(vcpu)

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """From 0."""
        if vcpu in self._powered_on:
            self._powered_on.remove(vcpu)
            self.kit.acts(vcpu)
            return delta_ns
        return base_ns + delta_ns
