"""The vCPU attribute interface of stolen time. As KVM: Documentation/virt/kvm/devices/vcpu.rst, docs/pvtime.md 3.10.

The table of operations is a constant: devices are immutable, as in the series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracekit.hypervisor.pvtime import PvTime
    from tracekit.hypervisor.slots import MemorySlots

PVTIME_CTRL = 2
PVTIME_IPA = 0
KVM_CAP_STEAL_TIME = 187
UNSET = (1 << 64) - 1
ENXIO, EFAULT, EEXIST, EINVAL = 6, 14, 17, 22


@dataclass(slots=True)
class UserPointer:
    """The u64 in the VMM's memory that `addr` points to; `is_bad` stands for an address that faults."""

    value: int = 0
    is_bad: bool = False


def _has(pvtime: PvTime, slots: MemorySlots, vcpu: int, user: UserPointer) -> int:
    return 0


def _set(pvtime: PvTime, slots: MemorySlots, vcpu: int, user: UserPointer) -> int:
    if user.is_bad:
        return -EFAULT
    if user.value & 63:
        return -EINVAL
    if pvtime.base(vcpu) is not None:
        return -EEXIST
    if not slots.is_writable(user.value, 64):  # asked now, never again (2.3)
        return -EINVAL
    pvtime.set_base(vcpu, user.value)
    return 0


def _get(pvtime: PvTime, slots: MemorySlots, vcpu: int, user: UserPointer) -> int:
    if user.is_bad:
        return -EFAULT
    base = pvtime.base(vcpu)
    user.value = UNSET if base is None else base
    return 0


OPERATIONS: Mapping[str, Callable[[PvTime, MemorySlots, int, UserPointer], int]] = MappingProxyType(
    {"has": _has, "set": _set, "get": _get}
)


class VcpuAttributes:
    """KVM_HAS/SET/GET_DEVICE_ATTR on a vCPU's descriptor; results are 0 or a negative errno.

    An address that was set stays set over the vCPU's reset and KVM_ARM_VCPU_INIT. is_offered: the host's kernel accounts run_delay, or
    does not ask (bug 11). has_capability: KVM_CAP_STEAL_TIME is known.
    """

    def __init__(self, pvtime: PvTime, slots: MemorySlots, is_offered: bool = True, has_capability: bool = True) -> None:
        self._pvtime = pvtime
        self._slots = slots
        self._is_offered = is_offered
        self._has_capability = has_capability

    def has(self, vcpu: int, group: int = PVTIME_CTRL, attribute: int = PVTIME_IPA) -> int:
        """KVM_HAS_DEVICE_ATTR."""
        return self._do("has", vcpu, group, attribute, UserPointer())

    def set(self, vcpu: int, user: UserPointer, group: int = PVTIME_CTRL, attribute: int = PVTIME_IPA) -> int:
        """KVM_SET_DEVICE_ATTR."""
        return self._do("set", vcpu, group, attribute, user)

    def get(self, vcpu: int, user: UserPointer, group: int = PVTIME_CTRL, attribute: int = PVTIME_IPA) -> int:
        """KVM_GET_DEVICE_ATTR: all-ones before an address was set."""
        return self._do("get", vcpu, group, attribute, user)

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION: KVM_CAP_STEAL_TIME, where it is known, agrees with has()."""
        return int(number == KVM_CAP_STEAL_TIME and self._has_capability and self.has(0) == 0)

    def _do(self, operation: str, vcpu: int, group: int, attribute: int, user: UserPointer) -> int:
        if group != PVTIME_CTRL or attribute != PVTIME_IPA or not self._is_offered:
            return -ENXIO
        return OPERATIONS[operation](self._pvtime, self._slots, vcpu, user)
