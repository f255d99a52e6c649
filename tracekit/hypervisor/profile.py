"""Whose behaviour is shown. The rows stand in docs/pvtime.md 1.12 and section 3."""

from __future__ import annotations

from dataclasses import dataclass

WORKAROUND_1, WORKAROUND_2, WORKAROUND_3 = 0x8000_8000, 0x8000_7FFF, 0x8000_3FFF


@dataclass(frozen=True, slots=True)
class Profile:
    """Where implementations differ.

    features_needs_ipa: PV_TIME_FEATURES says no while no IPA is set (v5.10 and later; before, bug 8).
    keeps_total: the running total is KVM's own and overwrites memory (before v5.10, bug 10).
    has_capability: KVM_CAP_STEAL_TIME exists (v5.10 and later).
    knows_sched_info: stolen time is hidden where the host's kernel does not account run_delay (before, bug 11).
    may_lack_sched_info: the kernel can be built without that accounting (before v5.14, which always has it).
    smc: `undefined` (the guest gets an exception), `refused` (X0 = -1) or `dispatched` like `hvc #0` (v6.4 and later).
    has_firmware_bitmap: the VMM may hide PV time with KVM_REG_ARM_STD_HYP_BMAP (v6.0 and later).
    has_filter: the VMM may deny function ids (v6.4 and later).
    lists_mandatory_calls: ARCH_FEATURES knows SMCCC_VERSION and itself (fix 7ef1b9e11dd7; before, bug 13).
    workarounds: ARCH_WORKAROUND ids that are known. The modelled cores need none, so ARCH_FEATURES says NOT_REQUIRED (-2); a call
    returns 0 all the same. Only HVC reaches them: KVM answers them in its exception vector, before the SMCCC handler (hyp-entry.S).

    In every profile run_delay is read once for an update. A faithful v5.5 to v5.9 reads it twice (bug 9), which only shows when a
    preemption falls between the two reads; in this model nothing does, so that the fault `double-read` shows it instead. In every profile
    the difference is lost when the store fails (bug 12).
    """

    name: str
    features_needs_ipa: bool = True
    keeps_total: bool = False
    has_capability: bool = True
    knows_sched_info: bool = True
    may_lack_sched_info: bool = False
    smc: str = "dispatched"
    has_firmware_bitmap: bool = True
    has_filter: bool = True
    lists_mandatory_calls: bool = False
    workarounds: tuple[int, ...] = (WORKAROUND_1, WORKAROUND_2, WORKAROUND_3)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "kvm-5.5",
            features_needs_ipa=False,
            keeps_total=True,
            has_capability=False,
            knows_sched_info=False,
            may_lack_sched_info=True,
            smc="undefined",
            has_firmware_bitmap=False,
            has_filter=False,
            workarounds=(WORKAROUND_1, WORKAROUND_2),
        ),
        Profile(
            "kvm-5.10",
            may_lack_sched_info=True,
            smc="refused",
            has_firmware_bitmap=False,
            has_filter=False,
            workarounds=(WORKAROUND_1, WORKAROUND_2),
        ),
        Profile("kvm-6.4"),
        Profile("kvm", lists_mandatory_calls=True),
    )
}
