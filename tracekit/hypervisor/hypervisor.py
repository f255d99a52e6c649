"""Who answers which call. Source: arch/arm64/kvm/hypercalls.c, pvtime.md 1.12."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.hypervisor import pvtime, smccc
from tracekit.hypervisor.config import PV_STRUCTURE_SIZE, HypervisorConfig
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.psci import Psci
from tracekit.hypervisor.pvtime import GuestMemory, PvEvent, PvTime, PvTimeState
from tracekit.hypervisor.smccc import Hypercall, Outcome, result


class Hypervisor:
    """SMCCC dispatch over PSCI and stolen time. It never moves a vCPU itself: effects go back to the caller."""

    def __init__(
        self,
        config: HypervisorConfig,
        vcpu_count: int,
        memory: GuestMemory,
        run_delay_ns: Callable[[int], int],
        observe: Callable[[PvEvent], None],
        is_online: Callable[[int], bool],
    ) -> None:
        self._profile = PROFILES[config.profile]
        self._psci = Psci(vcpu_count, is_online)
        bases: tuple[int | None, ...] = tuple(
            config.pv_base + PV_STRUCTURE_SIZE * vcpu if config.pv_time else None for vcpu in range(vcpu_count)
        )
        self._offers_pv_time = config.pv_time
        self._pvtime = PvTime(self._profile, bases, memory, run_delay_ns, observe)

    def call(self, call: Hypercall) -> Outcome:
        """Answer a call: X0..X3 and an effect."""
        if call.conduit == "smc" and (call.immediate or not self._profile.smc_reaches_hypercalls):
            return result(-1)
        match call.function_id:
            case smccc.VERSION:
                return result(smccc.VERSION_1_1)
            case smccc.ARCH_FEATURES:
                return self._arch_features(call)
            case pvtime.FEATURES:
                return self._pvtime.features(call)
            case pvtime.ST:
                return self._pvtime.stolen_time(call)
            case smccc.VENDOR_HYP_CALL_UID:
                return Outcome(smccc.KVM_UID)
            case smccc.VENDOR_HYP_KVM_FEATURES:
                return result(1)  # bit 0: this call itself; no PTP
        if smccc.owner_of(call.function_id) == 4 and call.function_id & 0xFFFF < 0x20:
            return self._psci.call(call)
        return result(-1)

    def _arch_features(self, call: Hypercall) -> Outcome:
        """Only PV_TIME_FEATURES is listed, whether or not an IPA was set; PV_TIME_ST has no case (pvtime.md 1.12)."""
        return result(0 if call.x[1] & 0xFFFF_FFFF == pvtime.FEATURES else -1)

    def publish(self, vcpu: int) -> None:
        """Before guest entry after a wait."""
        self._pvtime.publish(vcpu)

    @staticmethod
    def name(function_id: int) -> str | None:
        """The function's name, None if it has none here."""
        return smccc.NAMES.get(function_id)

    def save(self) -> PvTimeState:
        """What must survive a snapshot beside guest memory."""
        return self._pvtime.save()

    def restore(self, state: PvTimeState) -> None:
        """Continue from a snapshot."""
        self._pvtime.restore(state)
