"""An update is dropped, the next one catches up."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class SkippedUpdate(Fault):
    """Every third guest entry finds the page not resident and does nothing."""

    name = "skipped-update"
    models = "bug 5: page faults disabled around the write (arm64 KVM series v2; kvmarm 667437af, aa7af7c2)"
    invariant = "S4"

    def __init__(self) -> None:
        self._count = 0

    def publishes(self, vcpu: int) -> bool:
        """Not every third time."""
        self._count += 1
        if self._count % 3 == 0:
            self.kit.acts(vcpu)
            return False
        return True
