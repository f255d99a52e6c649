"""Loading a snapshot counts as stolen."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class RestoreJump(Fault):
    """The two seconds that the VMM took to load the guest are in the first total after a restore."""

    name = "restore-jump"
    models = "bug 18: load before the first run is counted (Firecracker CI; tolerance raised to 10 s, Firecracker bf0f43002)"
    invariant = "L2"
    needs = "restore"

    def __init__(self) -> None:
        self._extra_ns: dict[int, int] = {}

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """The new thread has waited longer than it has."""
        if kind == "restore" and vcpu is not None:
            self.kit.acts(vcpu)
            self._extra_ns[vcpu] = self._extra_ns.get(vcpu, 0) + 2_000_000_000

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """The thread's wait and the load."""
        return ns + self._extra_ns.get(vcpu, 0)
