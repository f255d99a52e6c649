"""Bug 41: stolen time is rounded up at each update (Xen 2006; xen d90f68966f)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class RoundingUp(Fault):
    """Found by S4."""

    name = "rounding-up"
    models = "Bug 41: stolen time is rounded up at each update (Xen 2006; xen d90f68966f)"
    invariant = "S4"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """To whole microseconds."""
        return base_ns + -(-delta_ns // 1_000) * 1_000
