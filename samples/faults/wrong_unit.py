"""Bug 44: units of a quarter of a nanosecond are passed where ns are expected (s390 up to v5.11; d54cb7d54877)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class WrongUnit(Fault):
    """Found by U1."""

    name = "wrong-unit"
    models = "Bug 44: units of a quarter of a nanosecond are passed where ns are expected (s390 up to v5.11; d54cb7d54877)"
    invariant = "U1"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """About four times too much."""
        return base_ns + 4 * delta_ns
