"""The calling convention: ids, results, and the calls every owner answers. Spec: Arm DEN 0028 (SMCCC 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.hypervisor.effects import Effect

SUCCESS = 0
NOT_SUPPORTED = (1 << 64) - 1

VERSION = 0x8000_0000
ARCH_FEATURES = 0x8000_0001
VENDOR_HYP_CALL_UID = 0x8600_FF01
VERSION_1_1 = 0x1_0001
KVM_UID = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
VENDOR_HYP_KVM_FEATURES = 0x8600_0000

PSCI_NAMES = {
    0x8400_0000: "PSCI_VERSION",
    0x8400_0001: "PSCI_CPU_SUSPEND",
    0xC400_0001: "PSCI_CPU_SUSPEND",
    0x8400_0002: "PSCI_CPU_OFF",
    0x8400_0003: "PSCI_CPU_ON",
    0xC400_0003: "PSCI_CPU_ON",
    0x8400_0004: "PSCI_AFFINITY_INFO",
    0xC400_0004: "PSCI_AFFINITY_INFO",
    0x8400_0006: "PSCI_MIGRATE_INFO_TYPE",
    0x8400_0008: "PSCI_SYSTEM_OFF",
    0x8400_0009: "PSCI_SYSTEM_RESET",
    0x8400_000A: "PSCI_FEATURES",
    0x8400_000E: "PSCI_SYSTEM_SUSPEND",
    0xC400_000E: "PSCI_SYSTEM_SUSPEND",
    0x8400_0012: "PSCI_SYSTEM_RESET2",
    0xC400_0012: "PSCI_SYSTEM_RESET2",
}
NAMES = {
    VERSION: "SMCCC_VERSION",
    ARCH_FEATURES: "SMCCC_ARCH_FEATURES",
    0x8000_8000: "SMCCC_ARCH_WORKAROUND_1",
    0x8000_7FFF: "SMCCC_ARCH_WORKAROUND_2",
    0x8000_3FFF: "SMCCC_ARCH_WORKAROUND_3",
    0x8400_0050: "TRNG_VERSION",
    VENDOR_HYP_CALL_UID: "VENDOR_HYP_CALL_UID",
    VENDOR_HYP_KVM_FEATURES: "VENDOR_HYP_KVM_FEATURES",
    0x8600_0001: "VENDOR_HYP_KVM_PTP",
    0xC500_0020: "PV_TIME_FEATURES",
    0xC500_0021: "PV_TIME_ST",
    **PSCI_NAMES,
}


@dataclass(frozen=True, slots=True)
class Hypercall:
    """A call as the guest made it. x: X0..X17."""

    vcpu: int
    conduit: str
    immediate: int
    pc: int
    el: int
    x: tuple[int, ...]

    @property
    def function_id(self) -> int:
        """The id is W0 (pvtime.md 1.6)."""
        return self.x[0] & 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Outcome:
    """X0..X3 after the call, and what else must happen. Unused results are 0."""

    ret: tuple[int, int, int, int]
    effect: Effect | None = None


def result(x0: int, effect: Effect | None = None) -> Outcome:
    """A call with one result; negative numbers are 64-bit (pvtime.md 1.5)."""
    return Outcome((x0 & NOT_SUPPORTED, 0, 0, 0), effect)


def owner_of(function_id: int) -> int:
    """0 architecture, 4 standard secure (PSCI, TRNG), 5 standard hypervisor, 6 vendor hypervisor."""
    return function_id >> 24 & 0x3F
