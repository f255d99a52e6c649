"""Structures on 16-byte boundaries."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class Misaligned(Fault):
    """Each lies 16 bytes further than it should."""

    name = "misaligned"
    models = "bugs 17 and 19: 16 instead of 64 bytes, and no check (GH firecracker#5139; riscv fix fa9681ed5c6a)"
    invariant = "M1"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Off by 16."""
        return tuple(None if base is None else base + 16 for base in bases)

    def checks_bases(self) -> bool:
        """Nobody looks."""
        return False
