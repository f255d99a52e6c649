"""Hazard 8.1c: all vCPUs have the same IPA; the host does not object (kvmarm 66fa26e5)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SharedStructure(Fault):
    """Found by M2."""

    name = "shared-structure"
    models = "Hazard 8.1c: all vCPUs have the same IPA; the host does not object (kvmarm 66fa26e5)"
    invariant = "M2"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Everybody gets the first vCPU's."""
        return (bases[0],) * len(bases)
