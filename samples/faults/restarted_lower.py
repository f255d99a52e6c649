"""On a new host the count goes on from less."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class RestartedLower(Fault):
    """After a restore or a live migration the total is half of what it was: the new host counts from a life of its own."""

    name = "restarted-lower"
    models = (
        "bugs 31 and 32: a steal clock that restarts lower, a new domain (Xen guests, Linux 4.8 to 4.10; "
        "fix 5e25f5db6abb; x86/xen hibernation 2020)"
    )
    invariant = "L2"
    needs = "restore"

    def __init__(self) -> None:
        self._moved: set[int] = set()

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """The next update is the new host's first."""
        if kind == "restore" and vcpu is not None:
            self._moved.add(vcpu)

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """Half, and what was waited since."""
        if vcpu in self._moved:
            self._moved.remove(vcpu)
            self.kit.acts(vcpu)
            base_ns //= 2
        return base_ns + delta_ns
