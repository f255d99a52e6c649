"""The base class of faults and of publication policies: hooks into the hypervisor at the places where real ones went wrong.

A fault is a Python class in a file of its own, chosen with `--fault NAME` (the catalogue, samples/faults) or `--fault FILE.py:Class`, or
in a scenario: `[hypervisor] faults = ["torn-update", "mine.py:Mine"]`. It changes what the hypervisor does while a run is recorded; the
trace holds every consequence, so a replay needs neither the class nor its file.

Two kinds are common. A *fault* overrides the one step that went wrong:

    class RoundsDown(Fault):
        def value_ns(self, vcpu, base_ns, delta_ns):
            return base_ns + delta_ns // 1000 * 1000

A whole *publication policy* overrides `publish`, and decides alone what the guest is told, and when:

    class WholeMilliseconds(Fault):
        def publish(self, vcpu, default):
            waited_ns = self.kit.clock_ns(vcpu, "wait")
            self.kit.publish(vcpu, waited_ns // 1_000_000 * 1_000_000)

Hooks must be deterministic: no clock, no randomness of their own; `kit` has the host's times. A hook that raises, or returns what it
must not (contract.py), ends the run with reason fault_raised, and the trace is kept. Several faults act in their order, each on what the one before made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from tracekit.hypervisor.smccc import Hypercall, Outcome

Store = tuple[int, int, int]  # ipa, size in bytes, value


class Kit(Protocol):
    """What a fault may do: ask the host's clocks, read and store guest memory as the host does, act at a later time."""

    @property
    def vcpu_count(self) -> int: ...

    def base(self, vcpu: int) -> int | None:
        """IPA of a vCPU's structure, None while unset."""

    def now_ns(self) -> int:
        """The host's time of what is happening, in ns since the beginning."""

    def clock_ns(self, vcpu: int, which: str) -> int:
        """One of the thread's accumulated times in ns: wait (run_delay), yield, offline or suspend."""

    def read(self, ipa: int, size: int) -> int:
        """Guest memory, 1 to 8 bytes, whatever the slots say. Errors: GuestFault."""

    def store(self, ipa: int, size: int, value: int) -> None:
        """One store of the host, 1 to 8 bytes, whatever the slots say, told with cause `fault`. Errors: GuestFault."""

    def publish(self, vcpu: int, total_ns: int) -> bool:
        """Store a total as KVM does, one 8-byte store through the slots, and tell it as a publication; False if it failed."""

    def call_at(self, vcpu: int, at_ns: int) -> None:
        """Have `due(vcpu)` called at this time, at the earliest 1 us from now, or at the vCPU's own time if that is later and it runs."""

    def acts(self, vcpu: int) -> None:
        """Leave a row in the trace (`directives`, kind fault): here the fault acts on this vCPU."""


class Fault:
    """Derive from this and override what shall differ; the methods here change nothing. Times in ns.

    name: as on the command line. models: the real bugs, with sources. invariant: the one that must find it (docs/pvtime.md 5.10).
    needs: what a run must hold for the fault to act, else "": the kind of a directive (restore, slot_readonly, slot_delete, kexec,
    pause, snapshot ...), or `migrate` (a second physical CPU and a host that moves threads) or `online` (a guest that takes a vCPU off and
    on again). kit: may be used from every hook but `bases`, `registrations` and `checks_bases`.
    """

    name = ""
    models = ""
    invariant = ""
    needs = ""
    kit: Kit

    # --- placement, by the VMM ---------------------------------------------------------------------------------------------------

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Where the VMM puts the structures, before the first instruction and again on a new host."""
        return bases

    def registrations(self, vcpu: int, ipa: int) -> tuple[int, ...]:
        """Every address that the VMM sets for a vCPU, in its order; the last one is where the guest is sent."""
        return (ipa,)

    def checks_bases(self) -> bool:
        """Whether an address is checked as KVM_SET_DEVICE_ATTR does (3.10); False: a VMM or kernel without the check."""
        return True

    # --- hypercalls -----------------------------------------------------------------------------------------------------------------

    def reaches(self, call: Hypercall) -> Hypercall:
        """The call as the dispatcher sees it."""
        return call

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """The result of a call, after the profile has answered it."""
        return outcome

    def clears(self, vcpu: int) -> bool:
        """Whether PV_TIME_ST zeroes the structure and begins again."""
        return True

    def begin_ns(self, vcpu: int, ns: int) -> int:
        """What PV_TIME_ST remembers of the accumulated wait: the zero of the new total."""
        return ns

    # --- updates --------------------------------------------------------------------------------------------------------------------

    def publish(self, vcpu: int, default: Callable[[], None]) -> None:
        """The whole decision at a guest entry after a wait; `default()` is the update that the steps below make up."""
        default()

    def publishes(self, vcpu: int) -> bool:
        """Whether an update takes place at this guest entry."""
        return True

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """The thread's accumulated wait, as the hypervisor reads it."""
        return ns

    def cursor_ns(self, vcpu: int, ns: int) -> int:
        """What an update remembers of the accumulated wait for the next one."""
        return ns

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """The new total (mod 2^64) from the old one and what was waited since."""
        return base_ns + delta_ns

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """How the total reaches memory; nothing: the store fails."""
        return ((ipa, 8, value & ((1 << 64) - 1)),)

    def target(self, vcpu: int, ipa: int) -> int:
        """Which structure an update goes to."""
        return ipa

    def passes_slots(self, vcpu: int) -> bool:
        """Whether an update reaches memory by an old translation, whatever has become of the slots."""
        return False

    # --- what happens around it -------------------------------------------------------------------------------------------------------

    def entered(self, vcpu: int) -> None:
        """After the update, before guest code runs."""

    def left(self, vcpu: int, reason: str) -> None:
        """The vCPU's thread stops running or waiting; reason: preempt, block, yield, pause, throttle, suspend, offline."""

    def due(self, vcpu: int) -> None:
        """The time that was asked for with `kit.call_at` has come."""

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """A directive was carried out (its kind, as in `directives`), or migrate, online, offline of a vCPU's thread."""


class NoFault(Fault):
    """Changes nothing."""

    name = "none"


def chain(faults: list[Fault]) -> list[Fault]:
    """The faults of a run in their order; NoFault where there is none."""
    return faults or [NoFault()]


def describe(fault: Fault) -> dict[str, Any]:
    """A manifest's entry."""
    return {"name": fault.name, "models": fault.models, "invariant": fault.invariant}
