"""Yes to the question, no to the call."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import Hypercall, Outcome, result


class FeaturesLie(Fault):
    """PV_TIME_FEATURES offers PV_TIME_ST, and PV_TIME_ST has no address to give."""

    name = "features-lie"
    models = "bug 8: nobody asks whether an address was set (arm64 KVM v5.5 to v5.9; kvmarm feaaf08b, b1b0b6b6)"
    invariant = "H2"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """None is set."""
        return (None,) * len(bases)

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """What there is, is offered."""
        is_asked = call.function_id == 0xC500_0020 and call.x[1] & 0xFFFF_FFFF in (0xC500_0020, 0xC500_0021)
        return result(0) if is_asked else outcome
