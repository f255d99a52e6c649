"""What a fault may do to the machine: the one implementation of fault.Kit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tracekit.hypervisor.pvtime import PvTime
from tracekit.hypervisor.slots import BackingMemory


class Moments(Protocol):
    """The host's time (ns) and the trace, as the session that runs knows them."""

    def now_ns(self) -> int: ...
    def call_at(self, vcpu: int, at_ns: int) -> None: ...
    def acts(self, fault_index: int, vcpu: int) -> None: ...


class FaultKit:
    """See fault.Kit."""

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
        self.clock_ns = clock_ns
        self._moments = moments
        self.vcpu_count = vcpu_count
        self._index = index

    def base(self, vcpu: int) -> int | None:
        """IPA of a vCPU's structure, None while unset."""
        return self._pvtime.base(vcpu)

    def now_ns(self) -> int:
        """The host's time of what is happening."""
        return self._moments.now_ns()

    def read(self, ipa: int, size: int) -> int:
        """Guest memory below the slots. Errors: GuestFault."""
        return self._memory.read(ipa, size)

    def store(self, ipa: int, size: int, value: int) -> None:
        """A host store below the slots, told as cause `fault`. Errors: GuestFault."""
        self._memory.store(ipa, size, value, "fault")

    def publish(self, vcpu: int, total_ns: int) -> bool:
        """One 8-byte store through the slots, told as a publication; False if it failed."""
        return self._pvtime.publish_total(vcpu, total_ns)

    def call_at(self, vcpu: int, at_ns: int) -> None:
        """Have due(vcpu) called then."""
        self._moments.call_at(vcpu, at_ns)

    def acts(self, vcpu: int) -> None:
        """A `fault` row of `directives`: here it is."""
        self._moments.acts(self._index, vcpu)
