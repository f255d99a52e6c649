"""What was waited on the old CPU is lost."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class LostMigration(Fault):
    """A thread that is moved while it waits starts its wait anew: the part on the old run queue is not in run_delay."""

    name = "lost-migration"
    models = "a host kernel without the dequeue half of run_delay (docs/pvtime.md 3.2; kernel/sched/stats.h, sched_info_dequeue)"
    invariant = "S4"
    needs = "migrate"

    def __init__(self) -> None:
        self._seen_ns: dict[int, int] = {}
        self._lost_ns: dict[int, int] = {}

    def left(self, vcpu: int, reason: str) -> None:
        """A wait may begin."""
        self._seen_ns[vcpu] = self.kit.clock_ns(vcpu, "wait")

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """What has been waited since is forgotten."""
        if kind == "migrate" and vcpu is not None:
            now_ns = self.kit.clock_ns(vcpu, "wait")
            self._lost_ns[vcpu] = self._lost_ns.get(vcpu, 0) + now_ns - self._seen_ns.get(vcpu, 0)
            self._seen_ns[vcpu] = now_ns

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """Without it."""
        return ns - self._lost_ns.get(vcpu, 0)
