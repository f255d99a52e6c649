"""Each update is rounded up, what it remembers down."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class RoundingUp(Fault):
    """A wait is told in whole microseconds, more than it was, and the next update counts the odd nanoseconds again."""

    name = "rounding-up"
    models = "bug 41: both sides of the books are rounded (Xen and Linux 2006; xen d90f68966f)"
    invariant = "S4"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """Up."""
        return base_ns + -(-delta_ns // 1_000) * 1_000

    def cursor_ns(self, vcpu: int, ns: int) -> int:
        """Down."""
        return ns // 1_000 * 1_000
