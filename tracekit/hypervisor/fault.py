"""The base class of faults: hooks into the hypervisor at the places where real implementations went wrong.

A fault is a Python class in a file of its own (`--fault FILE.py:Class`). It changes what the hypervisor does while a run is recorded; the
trace holds every consequence, so a replay needs neither the class nor its file. Hooks must be deterministic: no clock, no randomness of
their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from tracekit.hypervisor.smccc import Hypercall, Outcome

Store = tuple[int, int, int]  # ipa, size in bytes, value


class Hooks(Protocol):
    """What a fault may do besides answering: read and write guest memory as the host does, and ask the host's clocks."""

    @property
    def vcpu_count(self) -> int: ...
    def base(self, vcpu: int) -> int | None: ...
    def read(self, ipa: int, size: int) -> int: ...
    def store(self, ipa: int, size: int, value: int) -> None: ...
    def clock_ns(self, vcpu: int, which: str) -> int: ...


class Fault:
    """Derive from this and override what shall differ; the methods here change nothing.

    name: as on the command line. models: the real bugs, with sources. invariant: which one must find it (docs/pvtime.md 5.10).
    Times in ns. `kit` may be used from every hook but `bases`.
    """

    name = ""
    models = ""
    invariant = ""
    kit: Hooks

    def bases(self, bases: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Where the VMM puts the structures, before the first instruction."""
        return bases

    def registers_bases(self) -> bool:
        """Whether the VMM checks its addresses as KVM_SET_DEVICE_ATTR does; False models a VMM or kernel without the check."""
        return True

    def answer(self, call: Hypercall, outcome: Outcome) -> Outcome:
        """The result of a call, after the profile has answered it."""
        return outcome

    def reaches(self, call: Hypercall) -> Hypercall:
        """The call as the dispatcher sees it."""
        return call

    def clears(self, vcpu: int) -> bool:
        """Whether PV_TIME_ST zeroes the structure and begins again."""
        return True

    def publishes(self, vcpu: int) -> bool:
        """Whether an update takes place at this guest entry."""
        return True

    def run_delay_ns(self, vcpu: int, ns: int) -> int:
        """The thread's accumulated wait, as the hypervisor reads it."""
        return ns

    def cursor_ns(self, vcpu: int, ns: int) -> int:
        """What the hypervisor remembers of the accumulated wait for its next update."""
        return ns

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        """The new total from the old one and the difference (mod 2^64)."""
        return base_ns + delta_ns

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        """How the total reaches memory."""
        return ((ipa, 8, value & ((1 << 64) - 1)),)

    def target(self, vcpu: int, ipa: int) -> int:
        """Which structure an update goes to."""
        return ipa

    def entered(self, vcpu: int) -> None:
        """After the update, before guest code runs."""

    def left(self, vcpu: int, reason: str) -> None:
        """The vCPU's thread has left its physical CPU: reason is preempt, block, yield, pause ..."""

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """A directive was carried out: restore, thread_change, reset, slot_delete ..."""


class NoFault(Fault):
    """Changes nothing."""

    name = "none"


def chain(faults: list[Fault]) -> list[Fault]:
    """The faults of a run in their order; NoFault where there is none."""
    return faults or [NoFault()]


def describe(fault: Fault) -> dict[str, Any]:
    """A manifest's entry."""
    return {"name": fault.name, "models": fault.models, "invariant": fault.invariant}
