"""What a scenario may choose of the hypervisor."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PUBLICATIONS
from tracekit.hypervisor.smccc import owner_of

PV_BASE = 0x090A_0000
PV_STRUCTURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """profile: whose answers are given. publication: which of the thread's times count as stolen.

    pv_base: IPA of vCPU 0's stolen-time structure, the others' follow 64 bytes apart; pv_bases instead names each. denied: function ids
    that the SMCCC filter refuses. firmware_bitmap: KVM_REG_ARM_STD_HYP_BMAP, bit 0 is PV time. sched_info: whether the host's kernel
    accounts run_delay (docs/pvtime.md 3.1). faults: names or FILE.py:Class.
    """

    profile: str = "kvm"
    pv_time: bool = True
    pv_base: int = PV_BASE
    pv_bases: tuple[int, ...] = ()
    publication: str = "kvm"
    denied: tuple[int, ...] = ()
    firmware_bitmap: int = 1
    sched_info: bool = True
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InputError(f"hypervisor.profile = {self.profile!r}: must be one of {', '.join(PROFILES)}")
        if self.publication not in PUBLICATIONS:
            raise InputError(f"hypervisor.publication = {self.publication!r}: must be one of {', '.join(PUBLICATIONS)}")
        for key, base in (("pv_base", self.pv_base), *(("pv_bases", one) for one in self.pv_bases)):
            if isinstance(base, bool) or not isinstance(base, int) or not 0 <= base < 1 << 48 or base % PV_STRUCTURE_SIZE:
                raise InputError(f"hypervisor.{key} = {base!r}: must be a 64-byte aligned address (pvtime.rst)")
        profile = PROFILES[self.profile]
        if self.firmware_bitmap not in (0, 1):
            raise InputError(f"hypervisor.firmware_bitmap = {self.firmware_bitmap!r}: unknown bits (EINVAL); must be 0 or 1")
        if self.firmware_bitmap != 1 and not profile.has_firmware_bitmap:
            raise InputError(f"hypervisor.firmware_bitmap: {self.profile} has no firmware bitmap (Linux v6.0 and later)")
        if self.denied and not profile.has_filter:
            raise InputError(f"hypervisor.denied: {self.profile} has no SMCCC filter (Linux v6.4 and later)")
        if not self.sched_info and not profile.may_lack_sched_info:
            raise InputError(f"hypervisor.sched_info: {self.profile} always accounts run_delay (Linux v5.14 and later)")
        for function in self.denied:
            if isinstance(function, bool) or not isinstance(function, int) or not 1 << 31 <= function < 1 << 32:
                raise InputError(f"hypervisor.denied = {function!r}: must be the id of a fast call, for example 0xC5000021")
            if owner_of(function) == 0:
                raise InputError(f"hypervisor.denied = {function:#x}: the architecture's own calls cannot be filtered (EEXIST)")

    def reserved(self, vcpu_count: int, ram: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """(ipa, size) of the 4 KiB pages of RAM [begin, end) in which structures lie, neighbours joined. Errors: InputError."""
        pages = sorted({base >> 12 for base in self.bases(vcpu_count) if base is not None and ram[0] <= base < ram[1]})
        joined: list[tuple[int, int]] = []
        for page in pages:
            if joined and sum(joined[-1]) == page << 12:
                joined[-1] = (joined[-1][0], joined[-1][1] + 4096)
            else:
                joined.append((page << 12, 4096))
        return tuple(joined)

    def bases(self, vcpu_count: int) -> tuple[int | None, ...]:
        """IPA of each vCPU's structure. Errors: InputError."""
        if not self.pv_time:
            return (None,) * vcpu_count
        if self.pv_bases and len(self.pv_bases) != vcpu_count:
            raise InputError(f"hypervisor.pv_bases: {len(self.pv_bases)} addresses for {vcpu_count} vCPUs")
        return self.pv_bases or tuple(self.pv_base + PV_STRUCTURE_SIZE * vcpu for vcpu in range(vcpu_count))
