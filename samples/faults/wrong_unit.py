"""Not nanoseconds."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class WrongUnit(Fault):
    """Units of 2^-12 microseconds are passed where nanoseconds are expected: 4.096 times as much."""

    name = "wrong-unit"
    models = "bug 44: cputime units taken for ns (s390 up to v5.11; fix d54cb7d54877)"
    invariant = "U1"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """1000 ns are 4096 units."""
        return base_ns + delta_ns * 4_096 // 1_000
