"""Bug 3: the structure is written in the guest's or host's big-endian order (kvmarm 5416a7bb)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class BigEndian(Fault):
    """Found by H3."""

    name = "big-endian"
    models = "Bug 3: the structure is written in the guest's or host's big-endian order (kvmarm 5416a7bb)"
    invariant = "H3"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """The total is kept and stored byte-swapped."""
        total = int.from_bytes(base_ns.to_bytes(8, "little"), "big") + delta_ns
        return int.from_bytes((total & (1 << 64) - 1).to_bytes(8, "big"), "little")
