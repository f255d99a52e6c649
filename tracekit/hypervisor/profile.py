"""Whose behaviour is shown. The rows stand in docs/pvtime.md 1.12 and section 3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Where implementations differ.

    features_needs_ipa: PV_TIME_FEATURES says no while no IPA is set (v5.10 and later; before, bug 8).
    keeps_total: the running total is KVM's own and overwrites memory (before v5.10, bug 10).
    smc: `undefined` (the guest gets an exception), `refused` (X0 = -1) or `dispatched` like `hvc #0` (v6.4 and later).
    has_firmware_bitmap: the VMM may hide PV time with KVM_REG_ARM_STD_HYP_BMAP (v6.0 and later).
    has_filter: the VMM may deny function ids (v6.4 and later).
    lists_mandatory_calls: ARCH_FEATURES knows SMCCC_VERSION and itself (fix 7ef1b9e11dd7; before, bug 13).
    workarounds: ARCH_WORKAROUND ids that are known; the modelled cores need none, so ARCH_FEATURES says NOT_REQUIRED.
    """

    name: str
    features_needs_ipa: bool = True
    keeps_total: bool = False
    smc: str = "dispatched"
    has_firmware_bitmap: bool = True
    has_filter: bool = True
    lists_mandatory_calls: bool = False
    workarounds: tuple[int, ...] = (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "kvm-5.5",
            features_needs_ipa=False,
            keeps_total=True,
            smc="undefined",
            has_firmware_bitmap=False,
            has_filter=False,
            workarounds=(0x8000_8000, 0x8000_7FFF),
        ),
        Profile("kvm-5.10", smc="refused", has_firmware_bitmap=False, has_filter=False, workarounds=(0x8000_8000, 0x8000_7FFF)),
        Profile("kvm-6.4"),
        Profile("kvm", lists_mandatory_calls=True),
    )
}
