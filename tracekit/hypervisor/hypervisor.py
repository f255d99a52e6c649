"""Who answers which call. Source: arch/arm64/kvm/hypercalls.c, docs/pvtime.md 1.12."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracekit.hypervisor import pvtime, smccc
from tracekit.hypervisor.attributes import UserPointer, VcpuAttributes
from tracekit.hypervisor.config import HypervisorConfig
from tracekit.hypervisor.fault import Fault, chain
from tracekit.hypervisor.guest_access import GuestAccess
from tracekit.hypervisor.kit import FaultKit, Moments
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.psci import Psci
from tracekit.hypervisor.pvtime import PvEvent, PvTime
from tracekit.hypervisor.slots import BackingMemory, MemorySlots
from tracekit.hypervisor.smccc import Hypercall, Outcome, result

NOT_REQUIRED = -2


class Hypervisor:
    """SMCCC dispatch over PSCI and stolen time. It never moves a vCPU itself: effects go back to the caller."""

    def __init__(
        self,
        config: HypervisorConfig,
        vcpu_count: int,
        memory: BackingMemory,
        clock_ns: Callable[[int, str], int],
        observe: Callable[[PvEvent], None],
        is_online: Callable[[int], bool],
        moments: Moments,
        faults: Sequence[Fault] = (),
    ) -> None:
        self._config = config
        self.profile = PROFILES[config.profile]
        self.vcpu_count = vcpu_count
        self._psci = Psci(vcpu_count, is_online)
        self._clock_ns = clock_ns
        self.faults = chain(list(faults))
        self.slots = MemorySlots()
        access = GuestAccess(memory, self.slots)
        self.pvtime = PvTime(self.profile, vcpu_count, access, self.clock_ns, observe, config.publication, self.faults)
        is_offered = config.sched_info or not self.profile.knows_sched_info
        self.attributes = VcpuAttributes(self.pvtime, self.slots, is_offered, self.profile.has_capability)
        for index, fault in enumerate(self.faults):
            fault.kit = FaultKit(self.pvtime, memory, self.clock_ns, moments, vcpu_count, index)

    def clock_ns(self, vcpu: int, which: str) -> int:
        """The host's clocks as its kernel accounts them: without sched_info no wait is ever counted (docs/pvtime.md 3.1)."""
        return 0 if which in ("wait", "yield") and not self._config.sched_info else self._clock_ns(vcpu, which)

    # --- set-up by the VMM -----------------------------------------------------------------------------------------------------

    def wanted_bases(self) -> tuple[int | None, ...]:
        """Where the VMM sends each vCPU's guest code in the end, faults included."""
        return tuple(places[-1] if places else None for places in self.placements())

    def placements(self) -> tuple[tuple[int, ...], ...]:
        """Every address that the VMM sets for each vCPU, in its order."""
        return placements(self._config, self.vcpu_count, self.faults)

    def set_base(self, vcpu: int, ipa: int) -> int:
        """KVM_SET_DEVICE_ATTR of the structure's IPA: 0 or a negative errno."""
        if all(fault.checks_bases() for fault in self.faults):
            return self.attributes.set(vcpu, UserPointer(ipa))
        self.pvtime.set_base(vcpu, ipa)
        return 0

    # --- calls --------------------------------------------------------------------------------------------------------------------

    def call(self, call: Hypercall) -> Outcome:
        """Answer a call: X0..X3 and an effect."""
        for fault in self.faults:
            call = fault.reaches(call)
        outcome = self._answer(call)
        for fault in self.faults:
            outcome = fault.answer(call, outcome)
        return outcome

    def _answer(self, call: Hypercall) -> Outcome:
        function = call.function_id
        if call.conduit == "smc" and (call.immediate or self.profile.smc != "dispatched"):
            return result(-1)
        if function in self._config.denied:
            return result(-1)
        match function:
            case smccc.VERSION:
                return result(smccc.VERSION_1_1)
            case smccc.ARCH_FEATURES:
                return self._arch_features(call)
            case pvtime.FEATURES if self._offers_pv_time:
                return self.pvtime.features(call)
            case pvtime.ST if self._offers_pv_time:
                return self.pvtime.stolen_time(call)
            case smccc.VENDOR_HYP_CALL_UID:
                return Outcome(smccc.KVM_UID)
            case smccc.VENDOR_HYP_KVM_FEATURES:
                return result(1)  # bit 0: this call itself; no PTP
        if function in self.profile.workarounds and call.conduit == "hvc":
            return result(smccc.SUCCESS)
        if smccc.owner_of(function) == 4 and function & 0xFFFF < 0x20:
            return self._psci.call(call)
        return result(-1)

    @property
    def _offers_pv_time(self) -> bool:
        return bool(self._config.firmware_bitmap & 1)

    def _arch_features(self, call: Hypercall) -> Outcome:
        """PV_TIME_FEATURES is listed whether or not an IPA was set; PV_TIME_ST has no case (docs/pvtime.md 1.12)."""
        asked = call.x[1] & 0xFFFF_FFFF
        if asked == pvtime.FEATURES:
            return result(0 if self._offers_pv_time else -1)
        if asked in self.profile.workarounds:
            return result(NOT_REQUIRED)
        listed = asked in (smccc.VERSION, smccc.ARCH_FEATURES) and self.profile.lists_mandatory_calls
        return result(0 if listed else -1)

    # --- the vCPU thread's life -------------------------------------------------------------------------------------------------

    def publish(self, vcpu: int) -> None:
        """Before guest entry after a wait."""
        self.pvtime.publish(vcpu)
        for fault in self.faults:
            fault.entered(vcpu)

    def left(self, vcpu: int, reason: str) -> None:
        """The vCPU's thread has left its physical CPU."""
        for fault in self.faults:
            fault.left(vcpu, reason)

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """A directive was carried out; or migrate, online, offline of a vCPU's thread."""
        for fault in self.faults:
            fault.told(kind, vcpu, value)

    def due(self, vcpu: int) -> None:
        """A time has come that a fault asked for."""
        for fault in self.faults:
            fault.due(vcpu)

    @staticmethod
    def name(function_id: int) -> str | None:
        """The function's name, None if it has none here."""
        return smccc.NAMES.get(function_id)


def placements(config: HypervisorConfig, vcpu_count: int, faults: Sequence[Fault]) -> tuple[tuple[int, ...], ...]:
    """Every address that the VMM sets for each vCPU, in its order; () where it sets none. Errors: InputError."""
    bases = config.bases(vcpu_count)
    for fault in faults:
        bases = fault.bases(bases)
    out = []
    for vcpu, base in enumerate(bases):
        places: tuple[int, ...] = () if base is None else (base,)
        for fault in faults:
            places = tuple(ipa for place in places for ipa in fault.registrations(vcpu, place))
        out.append(places)
    return tuple(out)
