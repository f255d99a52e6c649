"""Stolen time. Spec: Arm DEN 0057A; as KVM: arch/arm64/kvm/pvtime.c, docs/pvtime.md sections 1 to 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tracekit.hypervisor.fault import Fault, Store
from tracekit.hypervisor.guest_access import GuestAccess, is_single_copy
from tracekit.hypervisor.profile import Profile
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


class PvTime:
    """One structure for each vCPU. clock_ns(vcpu, which): the host's clock `wait`, `yield`, `offline` or `suspend` of the thread."""

    def __init__(
        self,
        profile: Profile,
        vcpu_count: int,
        memory: GuestAccess,
        clock_ns: Callable[[int, str], int],
        observe: Callable[[PvEvent], None],
        publication: str,
        faults: Sequence[Fault],
    ) -> None:
        self._profile = profile
        self._memory = memory
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

    # --- calls --------------------------------------------------------------------------------------------------------------------

    def features(self, call: Hypercall) -> Outcome:
        """PV_TIME_FEATURES: the argument is W1; all calls are supported, or none (docs/pvtime.md 1.12, 1.13)."""
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
        begin_ns = self._run_delay_ns(vcpu)
        for fault in self._faults:
            begin_ns = fault.begin_ns(vcpu, begin_ns)
        self._last_steal_ns[vcpu], self._totals_ns[vcpu] = begin_ns, 0
        try:
            self._memory.write(base, STRUCTURE_SIZE, 0, "pvtime_enable")
        except GuestFault:
            return result(base)  # KVM ignores the failure
        self._tell("enable", vcpu, base)
        return result(base)

    # --- updates --------------------------------------------------------------------------------------------------------------------

    def publish(self, vcpu: int) -> None:
        """At a guest entry after a wait: each fault may decide alone, the last one asks for the update as KVM makes it."""
        decide: Callable[[], None] = partial(self._update, vcpu)
        for fault in reversed(self._faults):
            decide = partial(fault.publish, vcpu, decide)
        decide()

    def publish_total(self, vcpu: int, total_ns: int) -> bool:
        """Store a total that somebody else has worked out; False where there is no structure or the store fails."""
        base = self._bases[vcpu]
        return base is not None and self._store(vcpu, base, [(base + STOLEN_OFFSET, 8, total_ns & _U64)], past_slots=False)

    def _update(self, vcpu: int) -> None:
        """Bring the structure up to date (docs/pvtime.md 3.5).

        A failed read keeps the difference for later; a failed store loses it, because the cursor has moved already (bug 12: the fix
        proposed in September 2026 is in no release).
        """
        base = self._bases[vcpu]
        if base is None or not all(fault.publishes(vcpu) for fault in self._faults):
            return
        for fault in self._faults:
            base = fault.target(vcpu, base)
        past_slots = any(fault.passes_slots(vcpu) for fault in self._faults)
        if self._profile.keeps_total:
            total = self._totals_ns[vcpu]
        else:
            try:
                total = self._memory.get(base + STOLEN_OFFSET, 8, past_slots=past_slots)
            except GuestFault:
                return
        delay = self._run_delay_ns(vcpu)  # read once: bug 9
        new = total + delay - self._last_steal_ns[vcpu]
        cursor = delay
        for fault in self._faults:
            new = fault.value_ns(vcpu, total, new - total)
            cursor = fault.cursor_ns(vcpu, cursor)
        self._last_steal_ns[vcpu], self._totals_ns[vcpu] = cursor, new & _U64
        self._store(vcpu, base, self._pieces(vcpu, base + STOLEN_OFFSET, new & _U64), past_slots=past_slots)

    def _pieces(self, vcpu: int, ipa: int, value: int) -> list[Store]:
        """The stores that bring a total to memory: one, unless a fault tears it."""
        pieces: list[Store] = [(ipa, 8, value)]
        for fault in self._faults:
            pieces = [piece for one in pieces for piece in (fault.stores(vcpu, one[0], one[2]) if one[1] == 8 else (one,))]
        return pieces

    def _store(self, vcpu: int, base: int, pieces: Sequence[Store], *, past_slots: bool) -> bool:
        if not pieces:
            return False
        try:
            for ipa, size, value in pieces:
                store = self._memory.put if is_single_copy(ipa, size) else self._memory.write
                store(ipa, size, value, "pvtime", past_slots=past_slots)
        except GuestFault:
            return False
        self._tell("publish", vcpu, base)
        return True

    def _run_delay_ns(self, vcpu: int) -> int:
        total = sum(sign * self._clock_ns(vcpu, which) for which, sign in self._terms)
        for fault in self._faults:
            total = fault.run_delay_ns(vcpu, total)
        return total

    def _tell(self, event: str, vcpu: int, base: int) -> None:
        places = ((STOLEN_OFFSET, 8), (0, 4), (4, 4))
        try:
            fields = tuple(self._memory.get(base + offset, size, past_slots=True) for offset, size in places)
        except GuestFault:
            return
        self._observe(PvEvent(event, vcpu, base, *fields))

    # --- a new host ------------------------------------------------------------------------------------------------------------------

    def begin_anew(self, vcpu: int) -> None:
        """A restored VM: new vCPU, no base, last_steal 0; the value is in guest memory (docs/pvtime.md 3.12)."""
        self._bases[vcpu] = None
        self._last_steal_ns[vcpu] = 0
        self._totals_ns[vcpu] = 0
