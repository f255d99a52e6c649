"""Bug 5: an update is dropped when the page is not resident (arm64 KVM v2; kvmarm 667437af)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SkippedUpdate(Fault):
    """Found by S4."""

    name = "skipped-update"
    models = "Bug 5: an update is dropped when the page is not resident (arm64 KVM v2; kvmarm 667437af)"
    invariant = "S4"

    def __init__(self) -> None:
        self._count = 0

    def publishes(self, vcpu: int) -> bool:
        """Every third update finds the page away; the next one catches up."""
        self._count += 1
        return self._count % 3 != 0
