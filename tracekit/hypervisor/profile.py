"""Whose behaviour is shown. One profile so far: the newest KVM; others differ in the rows of docs/pvtime.md 1.12."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Where implementations differ.

    features_needs_ipa: PV_TIME_FEATURES says no while no IPA is set (KVM v5.10 and later; before, bug 8).
    smc_reaches_hypercalls: `smc #0` is dispatched like `hvc #0` (KVM v6.4 and later).
    """

    name: str
    features_needs_ipa: bool = True
    smc_reaches_hypercalls: bool = True


PROFILES: dict[str, Profile] = {"kvm": Profile("kvm")}
