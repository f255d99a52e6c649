"""What a scenario may choose of the hypervisor."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError
from tracekit.hypervisor.profile import PROFILES

PV_BASE = 0x090A_0000
PV_STRUCTURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """profile: whose answers are given. pv_base: IPA of vCPU 0's stolen-time structure, the others' follow 64 bytes apart."""

    profile: str = "kvm"
    pv_time: bool = True
    pv_base: int = PV_BASE

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InputError(f"hypervisor.profile = {self.profile!r}: must be one of {', '.join(PROFILES)}")
        if not 0 <= self.pv_base < 1 << 48 or self.pv_base % PV_STRUCTURE_SIZE:
            raise InputError(f"hypervisor.pv_base = {self.pv_base:#x}: must be 64-byte aligned (pvtime.rst)")
