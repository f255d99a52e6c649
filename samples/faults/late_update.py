"""The total is one guest entry late."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class LateUpdate(Fault):
    """Each update stores what was true at the entry before."""

    name = "late-update"
    models = (
        "a policy error: the delay is read before the vCPU is scheduled out, not when it is scheduled in (docs/pvtime.md 2.6)"
    )
    invariant = "S4"

    def __init__(self) -> None:
        self._last_ns: dict[int, int] = {}

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """As it was last time."""
        before_ns = self._last_ns.get(vcpu, ns)
        self._last_ns[vcpu] = ns
        return before_ns
