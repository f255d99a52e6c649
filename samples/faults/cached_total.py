"""The kernel's own total overwrites the restored one."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class CachedTotal(Fault):
    """The running total is the kernel's; on a new host it starts at 0 and goes over the one that came with the guest's memory."""

    name = "cached-total"
    models = "bug 10: a total beside guest memory (arm64 KVM v5.5 to v5.9; kvmarm c37321ee, fix 53f985584e3c)"
    invariant = "L2"
    needs = "restore"

    def __init__(self) -> None:
        self._total_ns: dict[int, int] = {}

    def clears(self, vcpu: int) -> bool:
        """A new count."""
        self._total_ns[vcpu] = 0
        return True

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """A new host knows of no total."""
        if kind == "restore":
            self._total_ns.clear()

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """What stands in memory is never read."""
        self._total_ns[vcpu] = self._total_ns.get(vcpu, 0) + delta_ns
        return self._total_ns[vcpu]
