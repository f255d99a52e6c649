"""The count begins at another thread's wait."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class WrongThread(Fault):
    """PV_TIME_ST remembers the run_delay of the VMM's main thread, a second more; updates subtract it from the vCPU thread's."""

    name = "wrong-thread"
    models = (
        "bug 28 and hazard 8.1b: run_delay of a thread that is not the vCPU's (x86 KVM and QEMU 2015; "
        "Launchpad 1494350, Debian 785557)"
    )
    invariant = "S2"

    def begin_ns(self, vcpu: int, ns: int) -> int:
        """The main thread's."""
        return ns + 1_000_000_000
