"""Stolen time. Spec: Arm DEN 0057A; as KVM: arch/arm64/kvm/pvtime.c (read-modify-write in guest memory, v5.10 and later)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tracekit.hypervisor.profile import Profile
from tracekit.hypervisor.smccc import Hypercall, Outcome, result
from tracekit.machine.memory import GuestFault

FEATURES = 0xC500_0020
ST = 0xC500_0021
STRUCTURE_SIZE = 64
STOLEN_OFFSET = 8
_U64 = (1 << 64) - 1


class GuestMemory(Protocol):
    """Guest memory: one store() is one single-copy-atomic host write. Both raise GuestFault where nothing is mapped."""

    def read(self, ipa: int, size: int) -> int: ...
    def store(self, ipa: int, size: int, value: int, cause: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PvEvent:
    """A `pvtime` row: enable or publish."""

    event: str
    vcpu: int
    ipa: int
    stolen_ns: int
    revision: int
    attributes: int


@dataclass(frozen=True, slots=True)
class PvTimeState:
    """What KVM keeps for each vCPU; the value itself travels in guest memory (pvtime.md 3.12)."""

    last_steal_ns: tuple[int, ...]


class PvTime:
    """One structure for each vCPU.

    bases: IPA of each vCPU's structure, None where none is set. run_delay_ns(vcpu): the thread's accumulated WAIT.
    """

    def __init__(
        self,
        profile: Profile,
        bases: tuple[int | None, ...],
        memory: GuestMemory,
        run_delay_ns: Callable[[int], int],
        observe: Callable[[PvEvent], None],
    ) -> None:
        self._profile = profile
        self._bases = bases
        self._memory = memory
        self._run_delay_ns = run_delay_ns
        self._observe = observe
        self._last_steal_ns = [0] * len(bases)

    def features(self, call: Hypercall) -> Outcome:
        """PV_TIME_FEATURES: the argument is W1."""
        asked = call.x[1] & 0xFFFF_FFFF
        has_ipa = self._bases[call.vcpu] is not None
        offered = asked in (FEATURES, ST) and (has_ipa or not self._profile.features_needs_ipa)
        return result(0 if offered else -1)

    def stolen_time(self, call: Hypercall) -> Outcome:
        """PV_TIME_ST: zero the structure, start a new epoch, tell its IPA (pvtime.md 3.4)."""
        base = self._bases[call.vcpu]
        if base is None:
            return result(-1)
        self._last_steal_ns[call.vcpu] = self._run_delay_ns(call.vcpu)
        try:
            for offset in range(0, STRUCTURE_SIZE, 8):
                self._memory.store(base + offset, 8, 0, "pvtime_enable")
        except GuestFault:
            return result(base)  # KVM ignores the failure
        self._observe(PvEvent("enable", call.vcpu, base, 0, 0, 0))
        return result(base)

    def publish(self, vcpu: int) -> None:
        """Bring the structure up to date before the guest is entered (pvtime.md 3.5). A failed read keeps the delta."""
        base = self._bases[vcpu]
        if base is None:
            return
        try:
            value = self._memory.read(base + STOLEN_OFFSET, 8)
        except GuestFault:
            return
        run_delay = self._run_delay_ns(vcpu)
        value = (value + run_delay - self._last_steal_ns[vcpu]) & _U64
        self._last_steal_ns[vcpu] = run_delay
        try:
            self._memory.store(base + STOLEN_OFFSET, 8, value, "pvtime")
        except GuestFault:
            return
        revision, attributes = self._memory.read(base, 4), self._memory.read(base + 4, 4)
        self._observe(PvEvent("publish", vcpu, base, value, revision, attributes))

    def save(self) -> PvTimeState:
        """The cursors as a plain value."""
        return PvTimeState(tuple(self._last_steal_ns))

    def restore(self, state: PvTimeState) -> None:
        """Continue with these cursors."""
        self._last_steal_ns = list(state.last_steal_ns)
