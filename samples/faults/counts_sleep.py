"""Waiting for an interrupt is counted as stolen."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class CountsSleep(Fault):
    """Found by S4."""

    name = "counts-sleep"
    models = "Waiting for an interrupt is counted as stolen"
    invariant = "S4"

    def __init__(self) -> None:
        self._sleeps: dict[int, int] = {}

    def left(self, vcpu: int, reason: str) -> None:
        """Each sleep adds 10 us."""
        if reason == "block":
            self._sleeps[vcpu] = self._sleeps.get(vcpu, 0) + 10_000

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """The thread's wait and its sleeps."""
        return ns + self._sleeps.get(vcpu, 0)
