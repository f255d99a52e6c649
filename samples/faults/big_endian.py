"""The total the wrong way round."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class BigEndian(Fault):
    """It is kept and stored most significant byte first."""

    name = "big-endian"
    models = "bug 3: byte order left open, a big-endian side would take its own (kvmarm 5416a7bb)"
    invariant = "H3"

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """Swapped, added to, swapped."""
        total = int.from_bytes(base_ns.to_bytes(8, "little"), "big") + delta_ns
        return int.from_bytes((total & (1 << 64) - 1).to_bytes(8, "big"), "little")
