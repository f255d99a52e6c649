"""The total arrives byte by byte."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.hypervisor.fault import Fault, Store


class TornUpdate(Fault):
    """A reader on another CPU can see a total of which only some bytes are new."""

    name = "torn-update"
    models = "bug 4: a copy instead of one store (arm64 KVM series v1 and v2; v7 cover letter, kvmarm 5de8986d)"
    invariant = "M3"

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """Eight stores of a byte."""
        return [(ipa + n, 1, value >> 8 * n & 0xFF) for n in range(8)]
