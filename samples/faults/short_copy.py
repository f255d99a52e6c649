"""Bug 42: the copy has the wrong size (Xen 32-on-64 2007; xen cf71bfc68e)."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class ShortCopy(Fault):
    """Found by M3."""

    name = "short-copy"
    models = "Bug 42: the copy has the wrong size (Xen 32-on-64 2007; xen cf71bfc68e)"
    invariant = "M3"

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """Only the low half arrives."""
        return [(ipa, 4, value & 0xFFFF_FFFF)]
