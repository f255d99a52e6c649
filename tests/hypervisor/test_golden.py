"""The golden vectors (docs/pvtime.md 5.8) and three more for where the publication policies part (5.7), as one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tracekit.hypervisor.fault import chain
from tracekit.hypervisor.guest_access import GuestAccess
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PUBLICATIONS, ST, PvTime
from tracekit.hypervisor.slots import MemorySlots
from tracekit.hypervisor.smccc import Hypercall

BASE = 0x090A_0000


class Memory:
    """Guest memory as a dictionary of 8-byte words."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def read(self, ipa: int, size: int) -> int:
        return self.words.get(ipa, 0)

    def store(self, ipa: int, size: int, value: int, cause: str) -> None:
        self.words[ipa] = value


@dataclass
class Life:
    """A vCPU's thread as a vector plays it: the host's four clocks, and the structure they end up in."""

    publication: str
    profile: str
    clocks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("wait", "yield", "offline", "suspend"), 0))
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        slots = MemorySlots()
        slots.add(BASE, 64)
        access = GuestAccess(self.memory, slots)
        self.pv = PvTime(
            PROFILES[self.profile], 1, access, lambda _, w: self.clocks[w], lambda _: None, self.publication, chain([])
        )
        self.pv.set_base(0, BASE)

    def enable(self) -> None:
        """PV_TIME_ST."""
        self.pv.stolen_time(Hypercall(0, "hvc", 0, 0, 1, (ST, *[0] * 17)))

    def passes(self, ns: int, *clocks: str) -> None:
        """Time in which these clocks go on."""
        for clock in clocks:
            self.clocks[clock] += ns

    def restored(self, pre_run_ns: int) -> None:
        """A new vCPU on a new host, whose thread has waited so long before its first KVM_RUN."""
        self.clocks = dict.fromkeys(self.clocks, 0)
        self.pv.begin_anew(0)
        self.pv.set_base(0, BASE)
        self.passes(pre_run_ns, "wait")

    def enter(self) -> None:
        """The guest is entered."""
        self.pv.publish(0)


def vector_a(life: Life) -> None:
    """RUN 0-4, WAIT 4-7, RUN 7-10."""
    life.enable()
    life.enter()
    life.passes(3, "wait")
    life.enter()


def vector_b(life: Life) -> None:
    """RUN 0-2, BLOCK 2-9 (WFI), WAIT 9-10."""
    life.enable()
    life.passes(7)
    life.passes(1, "wait")
    life.enter()


def vector_c(life: Life) -> None:
    """As A, PV_TIME_ST again at 8."""
    vector_a(life)
    life.enable()
    life.enter()


def vector_d(life: Life) -> None:
    """As A, moved at 5: 1 on the old run queue's clock, 2 on the new one's."""
    life.enable()
    life.passes(1, "wait")
    life.passes(2, "wait")
    life.enter()


def vector_e(life: Life) -> None:
    """As A, saved at 9, restored where the thread waited 5 before its first KVM_RUN."""
    vector_a(life)
    life.restored(5)
    life.enter()


def yields(life: Life) -> None:
    """RUN 0-4, a yield, WAIT 4-7, then preempted, WAIT 8-9."""
    life.enable()
    life.passes(3, "wait", "yield")
    life.enter()
    life.passes(1, "wait")
    life.enter()


def is_off(life: Life) -> None:
    """RUN 0-2, off 2-7, WAIT 7-8; the guest keeps its count and does not call PV_TIME_ST."""
    life.enable()
    life.passes(5, "offline")
    life.passes(1, "wait")
    life.enter()


def is_suspended(life: Life) -> None:
    """WAIT 2-4, the host sleeps 4-8, WAIT 8-9."""
    life.enable()
    life.passes(2, "wait")
    life.passes(4, "suspend")
    life.passes(1, "wait")
    life.enter()


EXPECTED: dict[Callable[[Life], None], dict[str, int]] = {
    vector_a: {"kvm": 3, "spec-min": 3, "xen": 3, "kvm-x86-suspend": 3},
    vector_b: {"kvm": 1, "spec-min": 1, "xen": 1, "kvm-x86-suspend": 1},
    vector_c: {"kvm": 0, "spec-min": 0, "xen": 0, "kvm-x86-suspend": 0},
    vector_d: {"kvm": 3, "spec-min": 3, "xen": 3, "kvm-x86-suspend": 3},
    vector_e: {"kvm": 8, "spec-min": 8, "xen": 8, "kvm-x86-suspend": 8},
    yields: {"kvm": 4, "spec-min": 1, "xen": 4, "kvm-x86-suspend": 4},
    is_off: {"kvm": 1, "spec-min": 1, "xen": 6, "kvm-x86-suspend": 1},
    is_suspended: {"kvm": 3, "spec-min": 3, "xen": 3, "kvm-x86-suspend": 7},
}


@pytest.mark.parametrize("publication", PUBLICATIONS)
@pytest.mark.parametrize("vector", EXPECTED, ids=lambda vector: vector.__name__)
def test_golden_vectors(vector: Callable[[Life], None], publication: str) -> None:
    """What the structure says at the end, in ns."""
    life = Life(publication, "kvm")
    vector(life)
    assert life.memory.words[BASE + 8] == EXPECTED[vector][publication]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("vector", EXPECTED, ids=lambda vector: vector.__name__)
def test_profiles_agree_but_for_a_restore(vector: Callable[[Life], None], profile: str) -> None:
    """Before v5.10 the total restarts with the vCPU (bug 10): what E had before is gone. Nothing else differs."""
    life = Life("kvm", profile)
    vector(life)
    is_bug_10 = profile == "kvm-5.5" and vector is vector_e
    assert life.memory.words[BASE + 8] == (5 if is_bug_10 else EXPECTED[vector]["kvm"])
