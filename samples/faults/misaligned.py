"""Bugs 17 and 19: structures are 16-byte aligned (GH firecracker#5139; riscv fa9681ed5c6a)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class Misaligned(Fault):
    """Found by M1."""

    name = "misaligned"
    models = "Bugs 17 and 19: structures are 16-byte aligned (GH firecracker#5139; riscv fa9681ed5c6a)"
    invariant = "M1"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Sixteen bytes further than they should be."""
        return tuple(base and base + 16 for base in bases)

    def checks_bases(self) -> bool:
        """Nobody checks."""
        return False
