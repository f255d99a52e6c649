"""One structure for all."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SharedStructure(Fault):
    """All vCPUs (two or more) have the first one's address: each adds to the others' total."""

    name = "shared-structure"
    models = "hazard 8.1c: the host does not object to one address set twice (kvmarm 66fa26e5)"
    invariant = "M2"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Everybody gets the first vCPU's."""
        return (bases[0],) * len(bases)
