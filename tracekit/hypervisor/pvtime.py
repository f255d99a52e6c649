"""Stolen time. Spec: Arm DEN 0057A; as KVM: arch/arm64/kvm/pvtime.c, docs/pvtime.md sections 1 to 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.profile import Profile
from tracekit.hypervisor.slots import MemorySlots
from tracekit.hypervisor.smccc import Hypercall, Outcome, result
from tracekit.machine.memory import GuestFault

FEATURES = 0xC500_0020
ST = 0xC500_0021
STRUCTURE_SIZE = 64
STOLEN_OFFSET = 8
_U64 = (1 << 64) - 1

# Which of the host's clocks each publication policy counts (docs/pvtime.md 5.7). Added: +, left out: -.
PUBLICATIONS: dict[str, tuple[tuple[str, int], ...]] = {
    "kvm": (("wait", 1),),
    "spec-min": (("wait", 1), ("yield", -1)),
    "xen": (("wait", 1), ("offline", 1)),
    "kvm-x86-suspend": (("wait", 1), ("suspend", 1)),
}


@dataclass(frozen=True, slots=True)
class PvEvent:
    """A `pvtime` row: enable, publish or attribute."""

    event: str
    vcpu: int
    ipa: int
    stolen_ns: int
    revision: int
    attributes: int


@dataclass(frozen=True, slots=True)
class PvTimeState:
    """What KVM keeps for each vCPU; the value itself travels in guest memory (docs/pvtime.md 3.12)."""

    bases: tuple[int | None, ...]
    last_steal_ns: tuple[int, ...]
    totals_ns: tuple[int, ...]


class PvTime:
    """One structure for each vCPU. clock_ns(vcpu, which): the host's clock `wait`, `yield`, `offline` or `suspend` of the thread."""

    def __init__(
        self,
        profile: Profile,
        vcpu_count: int,
        slots: MemorySlots,
        clock_ns: Callable[[int, str], int],
        observe: Callable[[PvEvent], None],
        publication: str,
        faults: Sequence[Fault],
    ) -> None:
        self._profile = profile
        self._slots = slots
        self._clock_ns = clock_ns
        self._observe = observe
        self._terms = PUBLICATIONS[publication]
        self._faults = faults
        self._bases: list[int | None] = [None] * vcpu_count
        self._last_steal_ns = [0] * vcpu_count
        self._totals_ns = [0] * vcpu_count

    # --- the attribute interface's side ----------------------------------------------------------------------------------------

    def base(self, vcpu: int) -> int | None:
        """IPA of a vCPU's structure, None while unset."""
        return self._bases[vcpu]

    def set_base(self, vcpu: int, ipa: int | None) -> None:
        """Place a vCPU's structure."""
        self._bases[vcpu] = ipa

    def accepts(self, ipa: int) -> bool:
        """Whether the structure would lie in a writable slot."""
        return self._slots.is_writable(ipa, STRUCTURE_SIZE)

    # --- calls --------------------------------------------------------------------------------------------------------------------

    def features(self, call: Hypercall) -> Outcome:
        """PV_TIME_FEATURES: the argument is W1."""
        asked = call.x[1] & 0xFFFF_FFFF
        has_ipa = self._bases[call.vcpu] is not None
        offered = asked in (FEATURES, ST) and (has_ipa or not self._profile.features_needs_ipa)
        return result(0 if offered else -1)

    def stolen_time(self, call: Hypercall) -> Outcome:
        """PV_TIME_ST: zero the structure, start a new epoch, tell its IPA (docs/pvtime.md 3.4)."""
        vcpu, base = call.vcpu, self._bases[call.vcpu]
        if base is None:
            return result(-1)
        if not all(fault.clears(vcpu) for fault in self._faults):
            return result(base)
        self._last_steal_ns[vcpu] = self._cursor_ns(vcpu, self._run_delay_ns(vcpu))
        self._totals_ns[vcpu] = 0
        try:
            for offset in range(0, STRUCTURE_SIZE, 8):
                self._slots.store(base + offset, 8, 0, "pvtime_enable")
        except GuestFault:
            return result(base)  # KVM ignores the failure
        self._tell("enable", vcpu, base)
        return result(base)

    # --- updates --------------------------------------------------------------------------------------------------------------------

    def publish(self, vcpu: int) -> None:
        """Bring the structure up to date before the guest is entered (docs/pvtime.md 3.5).

        A failed read keeps the difference for later; a failed store loses it.
        """
        base = self._bases[vcpu]
        if base is None or not all(fault.publishes(vcpu) for fault in self._faults):
            return
        for fault in self._faults:
            base = fault.target(vcpu, base)
        if self._profile.keeps_total:
            value = self._totals_ns[vcpu]
        else:
            try:
                value = self._slots.read(base + STOLEN_OFFSET, 8)
            except GuestFault:
                return
        delay = self._run_delay_ns(vcpu)
        delta = delay - self._last_steal_ns[vcpu]
        changed = [fault for fault in self._faults if type(fault).value_ns is not Fault.value_ns]
        new = changed[-1].value_ns(vcpu, value, delta) if changed else value + delta
        self._last_steal_ns[vcpu] = self._cursor_ns(vcpu, delay)
        self._totals_ns[vcpu] = new & _U64
        pieces = [(base + STOLEN_OFFSET, 8, new & _U64)]
        for fault in self._faults:
            pieces = [piece for ipa, _, piece_value in pieces for piece in fault.stores(vcpu, ipa, piece_value)]
        try:
            for ipa, size, piece_value in pieces:
                self._slots.store(ipa, size, piece_value, "pvtime")
        except GuestFault:
            return
        self._tell("publish", vcpu, base)

    def _run_delay_ns(self, vcpu: int) -> int:
        total = sum(sign * self._clock_ns(vcpu, which) for which, sign in self._terms)
        for fault in self._faults:
            total = fault.run_delay_ns(vcpu, total)
        return total

    def _cursor_ns(self, vcpu: int, ns: int) -> int:
        for fault in self._faults:
            ns = fault.cursor_ns(vcpu, ns)
        return ns

    def _tell(self, event: str, vcpu: int, base: int) -> None:
        try:
            fields = tuple(self._slots.read(base + offset, size) for offset, size in ((STOLEN_OFFSET, 8), (0, 4), (4, 4)))
        except GuestFault:
            return
        self._observe(PvEvent(event, vcpu, base, *fields))

    # --- a new host ------------------------------------------------------------------------------------------------------------------

    def begin_anew(self, vcpu: int) -> None:
        """A restored VM: new vCPU, no base, last_steal 0; the value is in guest memory (docs/pvtime.md 3.12)."""
        self._bases[vcpu] = None
        self._last_steal_ns[vcpu] = 0
        self._totals_ns[vcpu] = 0

    def save(self) -> PvTimeState:
        """The cursors as a plain value."""
        return PvTimeState(tuple(self._bases), tuple(self._last_steal_ns), tuple(self._totals_ns))

    def restore(self, state: PvTimeState) -> None:
        """Continue with these cursors."""
        self._bases, self._last_steal_ns = list(state.bases), list(state.last_steal_ns)
        self._totals_ns = list(state.totals_ns)
