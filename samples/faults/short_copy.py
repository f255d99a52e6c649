"""Half of the total arrives."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class ShortCopy(Fault):
    """Only the low four bytes are stored."""

    name = "short-copy"
    models = "bug 42: a copy of the wrong size (Xen 32-on-64 2007; xen cf71bfc68e)"
    invariant = "M3"

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """The low half."""
        return [(ipa, 4, value & 0xFFFF_FFFF)]
