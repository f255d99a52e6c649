"""Who answers which call. Source: arch/arm64/kvm/hypercalls.c, docs/pvtime.md 1.12."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracekit.hypervisor import pvtime, smccc
from tracekit.hypervisor.attributes import UserPointer, VcpuAttributes
from tracekit.hypervisor.config import HypervisorConfig
from tracekit.hypervisor.fault import Fault, chain
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.psci import Psci
from tracekit.hypervisor.pvtime import PvEvent, PvTime, PvTimeState
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
        faults: Sequence[Fault] = (),
    ) -> None:
        self._config = config
        self.profile = PROFILES[config.profile]
        self.vcpu_count = vcpu_count
        self._psci = Psci(vcpu_count, is_online)
        self._memory = memory
        self.clock_ns = clock_ns
        self.faults = chain(list(faults))
        self.slots = MemorySlots(memory)
        self.pvtime = PvTime(self.profile, vcpu_count, self.slots, clock_ns, observe, config.publication, self.faults)
        self.attributes = VcpuAttributes(self.pvtime)
        for fault in self.faults:
            fault.kit = self

    # --- set-up by the VMM -----------------------------------------------------------------------------------------------------

    def wanted_bases(self) -> tuple[int | None, ...]:
        """Where the VMM wants each vCPU's structure, faults included."""
        bases = self._config.bases(self.vcpu_count)
        for fault in self.faults:
            bases = fault.bases(bases)
        return bases

    def set_base(self, vcpu: int, ipa: int) -> int:
        """KVM_SET_DEVICE_ATTR of the structure's IPA: 0 or a negative errno."""
        if all(fault.registers_bases() for fault in self.faults):
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
        if function in self.profile.workarounds:
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
        """A directive was carried out."""
        for fault in self.faults:
            fault.told(kind, vcpu, value)

    # --- what faults may use ------------------------------------------------------------------------------------------------------

    def base(self, vcpu: int) -> int | None:
        """IPA of a vCPU's structure."""
        return self.pvtime.base(vcpu)

    def read(self, ipa: int, size: int) -> int:
        """Guest memory below the slots. Errors: GuestFault."""
        return self._memory.read(ipa, size)

    def store(self, ipa: int, size: int, value: int) -> None:
        """A host store below the slots, told as cause `fault`. Errors: GuestFault."""
        self._memory.store(ipa, size, value, "fault")

    @staticmethod
    def name(function_id: int) -> str | None:
        """The function's name, None if it has none here."""
        return smccc.NAMES.get(function_id)

    def save(self) -> PvTimeState:
        """What must survive a snapshot beside guest memory."""
        return self.pvtime.save()

    def restore(self, state: PvTimeState) -> None:
        """Continue from a snapshot."""
        self.pvtime.restore(state)
