"""Bug 13: ARCH_FEATURES denies calls that the specification makes mandatory (7ef1b9e11dd7)."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall, Outcome, result


class MissingFeatures(Fault):
    """Found by H1."""

    name = "missing-features"
    models = "Bug 13: ARCH_FEATURES denies calls that the specification makes mandatory (7ef1b9e11dd7)"
    invariant = "H1"

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """PV_TIME_FEATURES is offered, but ARCH_FEATURES says no."""
        if call.function_id == 0x8000_0001 and call.x[1] & 0xFFFF_FFFF in (0x8000_0000, 0x8000_0001, 0xC500_0020):
            return result(-1)
        return outcome
