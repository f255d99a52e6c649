"""What a fault may do to the machine: the one implementation of fault.Kit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tracekit.hypervisor.contract import is_number, natural
from tracekit.hypervisor.pvtime import PvTime
from tracekit.hypervisor.slots import BackingMemory

ACCESS_SIZE_MAX = 8
CLOCKS = ("wait", "yield", "offline", "suspend")
TIME_NS_END = 1 << 62


class Moments(Protocol):
    """The host's time (ns) and the trace, as the session that runs knows them."""

    def now_ns(self) -> int: ...
    def call_at(self, vcpu: int, at_ns: int) -> None: ...
    def acts(self, fault_index: int, vcpu: int) -> None: ...


class FaultKit:
    """See fault.Kit. Every argument is checked: it comes from code of the user's. Errors: TypeError, ValueError."""

    def __init__(
        self,
        pvtime: PvTime,
        memory: BackingMemory,
        clock_ns: Callable[[int, str], int],
        moments: Moments,
        vcpu_count: int,
        index: int,
    ) -> None:
        self._pvtime = pvtime
        self._memory = memory
        self._clock_ns = clock_ns
        self._moments = moments
        self.vcpu_count = vcpu_count
        self._index = index

    def base(self, vcpu: int) -> int | None:
        """IPA of a vCPU's structure, None while unset."""
        return self._pvtime.base(self._vcpu(vcpu))

    def clock_ns(self, vcpu: int, which: str) -> int:
        """One of the thread's accumulated times."""
        if which not in CLOCKS:
            raise ValueError(f"clock {which!r:.80}: must be one of {', '.join(CLOCKS)}")
        return self._clock_ns(self._vcpu(vcpu), which)

    def now_ns(self) -> int:
        """The host's time of what is happening."""
        return self._moments.now_ns()

    def read(self, ipa: int, size: int) -> int:
        """Guest memory below the slots. Errors: GuestFault."""
        return self._memory.read(natural("ipa", ipa), natural("size", size, ACCESS_SIZE_MAX + 1, 1))

    def store(self, ipa: int, size: int, value: int) -> None:
        """A host store below the slots, told as cause `fault`. Errors: GuestFault."""
        size = natural("size", size, ACCESS_SIZE_MAX + 1, 1)
        if not is_number(value):
            raise TypeError(f"value = {value!r:.80}: a whole number is needed")
        self._memory.store(natural("ipa", ipa), size, value & (1 << 8 * size) - 1, "fault")

    def publish(self, vcpu: int, total_ns: int) -> bool:
        """One 8-byte store through the slots, told as a publication; False if it failed."""
        if not is_number(total_ns):
            raise TypeError(f"total_ns = {total_ns!r:.80}: a whole number is needed")
        return self._pvtime.publish_total(self._vcpu(vcpu), total_ns)

    def call_at(self, vcpu: int, at_ns: int) -> None:
        """Have due(vcpu) called then."""
        if not is_number(at_ns):
            raise TypeError(f"at_ns = {at_ns!r:.80}: a whole number is needed")
        self._moments.call_at(self._vcpu(vcpu), min(at_ns, TIME_NS_END))

    def acts(self, vcpu: int) -> None:
        """A `fault` row of `directives`: here it is."""
        self._moments.acts(self._index, self._vcpu(vcpu))

    def _vcpu(self, vcpu: int) -> int:
        return natural("vcpu", vcpu, self.vcpu_count)
