"""Bug 8: PV_TIME_FEATURES says yes, PV_TIME_ST says no (arm64 KVM v5.5 to v5.9; kvmarm feaaf08b)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall, Outcome, result


class FeaturesLie(Fault):
    """Found by H2."""

    name = "features-lie"
    models = "Bug 8: PV_TIME_FEATURES says yes, PV_TIME_ST says no (arm64 KVM v5.5 to v5.9; kvmarm feaaf08b)"
    invariant = "H2"

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """ST has no address to give."""
        return result(-1) if call.function_id == 0xC500_0021 else outcome
