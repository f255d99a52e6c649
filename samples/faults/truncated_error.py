"""Minus one in 32 bits."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import NOT_SUPPORTED, Hypercall, Outcome, result


class TruncatedError(Fault):
    """The VMM sets no address, nobody looks, and PV_TIME_ST fails with 0x00000000FFFFFFFF: an address to the guest."""

    name = "truncated-error"
    models = "bug 1: int, widened as u32 (arm64 KVM series v1 to v3; kvmarm 875cfd22, 514cc4f7)"
    invariant = "H1"

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """None is set."""
        return (None,) * len(bases)

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """PV_TIME_FEATURES says yes, and what fails says so in 32 bits."""
        if call.function_id == 0xC500_0020 and call.x[1] & 0xFFFF_FFFF in (0xC500_0020, 0xC500_0021):
            return result(0)
        if call.function_id >> 24 == 0xC5 and outcome.ret[0] == NOT_SUPPORTED:
            return result(outcome.ret[0] & 0xFFFF_FFFF)
        return outcome
