"""Bug 1: -1 is returned in 32 bits (arm64 KVM v1 to v3; kvmarm 514cc4f7)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall, Outcome


class TruncatedError(Fault):
    """Found by H1."""

    name = "truncated-error"
    models = "Bug 1: -1 is returned in 32 bits (arm64 KVM v1 to v3; kvmarm 514cc4f7)"
    invariant = "H1"

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """What int, widened as u32, makes of -1."""
        if call.function_id >> 24 == 0xC5 and outcome.ret[0] == (1 << 64) - 1:
            return Outcome((0xFFFF_FFFF, 0, 0, 0), outcome.effect)
        return outcome
