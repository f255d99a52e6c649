"""Updates go to where the structure was."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class OldAddress(Fault):
    """The VMM sets an address, then another; the kernel goes on storing to the first one, whose translation it kept."""

    name = "old-address"
    models = "bugs 23 and 24: a cache that compares the slots' generation, not the address (x86 KVM 2021; fix 901d3765fa80)"
    invariant = "L5"

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def registrations(self, vcpu: int, ipa: int) -> tuple[int, ...]:
        """The second place is 32 KiB further."""
        self._first[vcpu] = ipa
        return ipa, ipa + 0x8000

    def checks_bases(self) -> bool:
        """KVM on arm64 would refuse the second address (EEXIST)."""
        return False

    def target(self, vcpu: int, ipa: int) -> int:
        """The first."""
        return self._first[vcpu]
