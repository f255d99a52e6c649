"""Sleep counts as stolen."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class CountsWfi(Fault):
    """The time from WFI until something wakes the vCPU is added to what it waited."""

    name = "counts-wfi"
    models = "a policy error: BLOCK taken for WAIT (docs/pvtime.md 5.4); Xen's runstate keeps the two apart (6.4)"
    invariant = "S4"

    counted = "block"

    def __init__(self) -> None:
        self._counted_ns: dict[int, int] = {}
        self._since_ns: dict[int, tuple[int, int]] = {}  # now, accumulated wait

    def left(self, vcpu: int, reason: str) -> None:
        """A piece of the vCPU's life that counts begins, or ends in another."""
        self._close(vcpu)
        if reason == self.counted:
            self._since_ns[vcpu] = self.kit.now_ns(), self.kit.clock_ns(vcpu, "wait")

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """The wait, and all pieces."""
        self._close(vcpu)
        return ns + self._counted_ns.get(vcpu, 0)

    def _close(self, vcpu: int) -> None:
        if vcpu in self._since_ns:
            begin_ns, wait_ns = self._since_ns.pop(vcpu)
            piece_ns = self.kit.now_ns() - begin_ns - (self.kit.clock_ns(vcpu, "wait") - wait_ns)
            self._counted_ns[vcpu] = self._counted_ns.get(vcpu, 0) + piece_ns
