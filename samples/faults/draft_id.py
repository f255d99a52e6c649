"""The draft's number for PV_TIME_ST."""

from __future__ import annotations

from dataclasses import replace

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall


class DraftId(Fault):
    """0xC5000022 works and 0xC5000021 does not, as a call and as an argument: a guest by the specification finds nothing."""

    name = "draft-id"
    models = "bug 2: the id of the first draft (arm64 KVM series v1 to v5; kvmarm 6c51cd0f, 9328116b)"
    invariant = "H1"

    def reaches(self, call: Hypercall) -> Hypercall:
        """The two numbers change places."""
        swap = {0xC500_0021: 0xC500_0022, 0xC500_0022: 0xC500_0021}
        function = swap.get(call.function_id, call.function_id)
        argument = swap.get(call.x[1] & 0xFFFF_FFFF, call.x[1]) if function == 0xC500_0020 else call.x[1]
        return replace(call, x=(function, argument, *call.x[2:]))
