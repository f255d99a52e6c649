"""The host goes on storing for a kernel that is gone."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class AfterKexec(Fault):
    """After a kexec each guest entry also stores for vCPUs on which the new kernel has not asked for stolen time yet."""

    name = "after-kexec"
    models = (
        "bugs 29 and 37: areas not dropped at kexec, crash or soft reset (x86 8b79feffeca2, 3d6b84132d2a; "
        "xen 7ff56b7e4d, b80d4f8d2e)"
    )
    invariant = "L5"
    needs = "kexec"

    def __init__(self) -> None:
        self._forgotten: set[int] = set()

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """Nobody has asked yet."""
        if kind == "kexec":
            self._forgotten = set(range(self.kit.vcpu_count))

    def clears(self, vcpu: int) -> bool:
        """This one has."""
        self._forgotten.discard(vcpu)
        return True

    def entered(self, vcpu: int) -> None:
        """An update for each of the others."""
        for other in sorted(self._forgotten):
            base = self.kit.base(other)
            if base is not None:
                self.kit.acts(vcpu)
                self.kit.store(base + 8, 8, self.kit.clock_ns(other, "wait"))
