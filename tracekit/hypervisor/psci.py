"""PSCI 1.1 as KVM offers it. Spec: Arm DEN 0022; as KVM: arch/arm64/kvm/psci.c."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.hypervisor.effects import PowerOff, PowerOn, Standby, SystemOff, SystemReset
from tracekit.hypervisor.smccc import NOT_SUPPORTED, VERSION, Hypercall, Outcome, result

VERSION_1_1 = 0x1_0001
INVALID_PARAMETERS, ALREADY_ON = -2, -4
MIGRATE_NOT_NEEDED = 2
ON, OFF = 0, 1

OFFERED = frozenset(
    {
        0x8400_0000, 0x8400_0001, 0xC400_0001, 0x8400_0002, 0x8400_0003, 0xC400_0003, 0x8400_0004, 0xC400_0004,
        0x8400_0006, 0x8400_0008, 0x8400_0009, 0x8400_000A,
    }
)  # fmt: skip
_AFFINITY_MASK = 0xFF_00FF_FFFF


class Psci:
    """Power calls. is_online(vcpu) tells who is on."""

    def __init__(self, vcpu_count: int, is_online: Callable[[int], bool]) -> None:
        self._count = vcpu_count
        self._is_online = is_online

    def call(self, call: Hypercall) -> Outcome:
        """Answer one PSCI call; 32-bit ids use the low halves of their arguments."""
        function = call.function_id
        mask = NOT_SUPPORTED if function >> 30 & 1 else 0xFFFF_FFFF
        x1, x2, x3 = (value & mask for value in call.x[1:4])
        match function & 0xBFFF_FFFF:
            case 0x8400_0000:
                return result(VERSION_1_1)
            case 0x8400_0001:
                return result(0, Standby())
            case 0x8400_0002:
                return result(0, PowerOff())
            case 0x8400_0003:
                return self._cpu_on(x1, x2, x3)
            case 0x8400_0004:
                return self._affinity_info(x1, x2)
            case 0x8400_0006:
                return result(MIGRATE_NOT_NEEDED)
            case 0x8400_0008:
                return result(0, SystemOff())
            case 0x8400_0009:
                return result(0, SystemReset())
            case 0x8400_000A:
                asked = x1 & 0xFFFF_FFFF
                return result(0 if asked in OFFERED or asked == VERSION else -1)
        return result(-1)

    def _vcpu(self, mpidr: int) -> int | None:
        affinity = mpidr & _AFFINITY_MASK
        return affinity if affinity < self._count else None

    def _cpu_on(self, mpidr: int, entry: int, context: int) -> Outcome:
        vcpu = self._vcpu(mpidr)
        if vcpu is None or mpidr & ~_AFFINITY_MASK:
            return result(INVALID_PARAMETERS)
        if self._is_online(vcpu):
            return result(ALREADY_ON)
        return result(0, PowerOn(vcpu, entry, context))

    def _affinity_info(self, mpidr: int, lowest_level: int) -> Outcome:
        """As KVM: the level masks the affinity, ON as soon as one match is on."""
        if lowest_level > 3 or mpidr & ~_AFFINITY_MASK:
            return result(INVALID_PARAMETERS)
        mask = _AFFINITY_MASK & ~((1 << 8 * lowest_level) - 1) if lowest_level < 3 else 0xFF << 32
        matches = [vcpu for vcpu in range(self._count) if vcpu & mask == mpidr & mask]
        if not matches:
            return result(INVALID_PARAMETERS)
        return result(ON if any(self._is_online(vcpu) for vcpu in matches) else OFF)
