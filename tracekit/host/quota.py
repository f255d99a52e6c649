"""CPU bandwidth: how much of each period a thread may run, as a CPU cgroup of its own. As the kernel: kernel/sched/fair.c, CFS bandwidth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """What a thread may still run in the present period. Periods begin at multiples of period_ns; nothing is saved up, debts are kept."""

    quota_ns: int
    period_ns: int
    left_ns: int
    period: int = 0

    @property
    def refill_ns(self) -> int:
        """When the next period begins."""
        return (self.period + 1) * self.period_ns

    def refill(self, now_ns: int) -> None:
        """Begin the periods up to now_ns."""
        passed = now_ns // self.period_ns - self.period
        if passed > 0:
            self.period += passed
            self.left_ns = min(self.quota_ns, self.left_ns + passed * self.quota_ns)

    def charge(self, begin_ns: int, now_ns: int) -> None:
        """The thread ran from begin_ns to now_ns."""
        self.left_ns -= now_ns - begin_ns
        self.refill(now_ns)

    def check_ns(self, now_ns: int) -> int:
        """When a thread that runs from now_ns on has to be looked at again."""
        return min(now_ns + self.left_ns, self.refill_ns)
