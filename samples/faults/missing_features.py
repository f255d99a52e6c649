"""ARCH_FEATURES does not know what is there."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall, Outcome, result


class MissingFeatures(Fault):
    """It denies SMCCC_VERSION, itself and PV_TIME_FEATURES, which all answer: a guest that asks first finds nothing."""

    name = "missing-features"
    models = "bug 13: cases are missing (arm64 KVM up to September 2026; fix 7ef1b9e11dd7)"
    invariant = "H1"

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """No to the three."""
        is_asked = call.function_id == 0x8000_0001 and call.x[1] & 0xFFFF_FFFF in (0x8000_0000, 0x8000_0001, 0xC500_0020)
        return result(-1) if is_asked else outcome
