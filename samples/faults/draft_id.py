"""Bug 2: PV_TIME_ST has the draft's id (arm64 KVM v1 to v5; kvmarm 6c51cd0f)."""

from __future__ import annotations

from dataclasses import replace

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall


class DraftId(Fault):
    """Found by H1."""

    name = "draft-id"
    models = "Bug 2: PV_TIME_ST has the draft's id (arm64 KVM v1 to v5; kvmarm 6c51cd0f)"
    invariant = "H1"

    def reaches(self, call: Hypercall) -> Hypercall:
        """0xC5000022 works, 0xC5000021 does not, as a call and as an argument."""
        swap = {0xC500_0021: 0xC500_0022, 0xC500_0022: 0xC500_0021}
        function = swap.get(call.function_id, call.function_id)
        argument = swap.get(call.x[1] & 0xFFFF_FFFF, call.x[1]) if function == 0xC500_0020 else call.x[1]
        return replace(call, x=(function, argument, *call.x[2:]))
