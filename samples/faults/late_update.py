"""The total is stored one guest entry late."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class LateUpdate(Fault):
    """Found by S4."""

    name = "late-update"
    models = "The total is stored one guest entry late"
    invariant = "S4"

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """What was true at the entry before."""
        before = self._last.get(vcpu, ns)
        self._last[vcpu] = ns
        return before
