"""KVM's answers row by row (pvtime.md 1.12), PSCI, and the golden vectors of 5.8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from tracekit.formats.errors import InputError
from tracekit.hypervisor import Hypervisor
from tracekit.hypervisor.attributes import KVM_CAP_STEAL_TIME, UNSET, UserPointer
from tracekit.hypervisor.config import HypervisorConfig
from tracekit.hypervisor.effects import PowerOff, PowerOn, Standby, SystemOff, SystemReset
from tracekit.hypervisor.fault import Fault, NoFault, Store, chain
from tracekit.hypervisor.guest_access import GuestAccess
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PvEvent, PvTime
from tracekit.hypervisor.slots import MemorySlots
from tracekit.hypervisor.smccc import KVM_UID, Hypercall
from tracekit.machine.memory import GuestFault

NO = (1 << 64) - 1
BASE = 0x090A_0000


class Memory:
    """Guest memory as a dictionary of bytes; every store is noted."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self.stores: list[tuple[int, int, int, str]] = []
        self.is_mapped = True

    def read(self, ipa: int, size: int) -> int:
        if not self.is_mapped:
            raise GuestFault("no memory")
        return int.from_bytes(bytes(self.bytes.get(ipa + i, 0xEE) for i in range(size)), "little")

    def store(self, ipa: int, size: int, value: int, cause: str) -> None:
        if not self.is_mapped:
            raise GuestFault("no memory")
        self.stores.append((ipa, size, value, cause))
        for i, byte in enumerate(value.to_bytes(size, "little")):
            self.bytes[ipa + i] = byte


class NoMoments:
    """Nothing happens at any time."""

    def now_ns(self) -> int:
        raise AssertionError("nobody may ask")

    def call_at(self, vcpu: int, at_ns: int) -> None:
        raise AssertionError("nobody may ask")

    def acts(self, fault_index: int, vcpu: int) -> None:
        raise AssertionError("nobody may tell")


class Machine:
    """A hypervisor over fake memory and a fake run_delay."""

    def __init__(self, pv_time: bool = True, vcpus: int = 2, faults: Sequence[Fault] = (), **config_keys: Any) -> None:
        self.memory = Memory()
        self.delay = [0] * vcpus
        self.events: list[PvEvent] = []
        self.online = {0}
        config = HypervisorConfig(pv_time=pv_time, **config_keys)
        self.hypervisor = Hypervisor(
            config,
            vcpus,
            self.memory,
            lambda v, which: self.delay[v],
            self.events.append,
            lambda v: v in self.online,
            NoMoments(),
            faults,
        )
        self.hypervisor.slots.add(BASE, 0x10000)
        for vcpu, base in enumerate(self.hypervisor.wanted_bases()):
            if base is not None:
                assert self.hypervisor.set_base(vcpu, base) == 0

    def call(self, function: int, *x: int, conduit: str = "hvc", immediate: int = 0, vcpu: int = 0) -> tuple[int, int, int, int]:
        registers = (function, *x, *[0x55] * (17 - len(x)))
        return self.hypervisor.call(Hypercall(vcpu, conduit, immediate, 0, 1, registers)).ret

    def effect(self, function: int, *x: int) -> object:
        registers = (function, *x, *[0] * (17 - len(x)))
        return self.hypervisor.call(Hypercall(0, "hvc", 0, 0, 1, registers)).effect


FEATURES, ST, ARCH = 0xC500_0020, 0xC500_0021, 0x8000_0001
ROWS = [
    # function, x1, pv_time, conduit, immediate, x0
    (0x8000_0000, 0, True, "hvc", 0, 0x10001),  # SMCCC_VERSION
    (0xFFFF_FFFF_8000_0000, 0, True, "hvc", 0, 0x10001),  # the id is W0 (1.6)
    (ARCH, FEATURES, True, "hvc", 0, 0),
    (ARCH, FEATURES, False, "hvc", 0, 0),  # independent of whether an IPA was configured
    (ARCH, ST, True, "hvc", 0, NO),  # no case for it
    (ARCH, 0x8000_0000, True, "hvc", 0, 0),  # since 7ef1b9e11dd7 (bug 13)
    (ARCH, 0x8000_0001, True, "hvc", 0, 0),
    (FEATURES, FEATURES, True, "hvc", 0, 0),
    (FEATURES, ST, True, "hvc", 0, 0),
    (FEATURES, 0xDEAD_0000_0000_0000 | ST, True, "hvc", 0, 0),  # the argument is truncated
    (FEATURES, FEATURES, False, "hvc", 0, NO),
    (FEATURES, ST, False, "hvc", 0, NO),
    (FEATURES, 0xC500_0022, True, "hvc", 0, NO),  # the draft's id
    (FEATURES, 0, True, "hvc", 0, NO),
    (ST, 0x1234, True, "hvc", 0, BASE),
    (ST, 0, False, "hvc", 0, NO),
    (0xC500_0022, 0, True, "hvc", 0, NO),
    (0x8500_0020, ST, True, "hvc", 0, NO),  # the 32-bit convention has no stolen time
    (0x8500_0021, 0, True, "hvc", 0, NO),
    (0xC400_0099, 0, True, "hvc", 0, NO),
    (0, 0, True, "hvc", 0, NO),
    (0x8400_0050, 0, True, "hvc", 0, NO),  # TRNG
    (FEATURES, ST, True, "smc", 0, 0),  # since v6.4
    (FEATURES, ST, True, "smc", 1, NO),  # non-zero immediate
    (0x8400_0000, 0, True, "hvc", 0, 0x10001),  # PSCI_VERSION
    (0x8400_0006, 0, True, "hvc", 0, 2),  # MIGRATE_INFO_TYPE
    (0x8400_000A, 0x8000_0000, True, "hvc", 0, 0),  # PSCI_FEATURES(SMCCC_VERSION)
    (0x8400_000A, 0xC400_0003, True, "hvc", 0, 0),
    (0x8400_000A, 0xC400_000E, True, "hvc", 0, NO),
    (0x8400_000A, 0xC500_0020, True, "hvc", 0, NO),
]


@pytest.mark.parametrize(("function", "x1", "pv_time", "conduit", "immediate", "x0"), ROWS)
def test_what_kvm_answers(function: int, x1: int, pv_time: bool, conduit: str, immediate: int, x0: int) -> None:
    """X0 as KVM gives it, X1..X3 zero."""
    assert Machine(pv_time).call(function, x1, conduit=conduit, immediate=immediate) == (x0, 0, 0, 0)


def test_kvm_says_who_it_is() -> None:
    """The vendor's UID in four registers."""
    assert Machine().call(0x8600_FF01) == KVM_UID


PSCI = [
    # function, x1, x2, x3, x0, effect
    (0xC400_0003, 1, 0x4008_0000, 7, 0, PowerOn(1, 0x4008_0000, 7)),
    (0x8400_0003, 1, 0xF_4008_0000, 0xF_0000_0007, 0, PowerOn(1, 0x4008_0000, 7)),  # 32-bit: low halves
    (0xC400_0003, 0, 0, 0, NO - 3, None),  # ALREADY_ON
    (0xC400_0003, 2, 0, 0, NO - 1, None),  # INVALID_PARAMETERS: no such vCPU
    (0xC400_0003, 1 << 63, 0, 0, NO - 1, None),
    (0xC400_0004, 0, 0, 0, 0, None),  # AFFINITY_INFO: on
    (0xC400_0004, 1, 0, 0, 1, None),  # off
    (0xC400_0004, 5, 0, 0, NO - 1, None),
    (0xC400_0004, 0, 1, 0, 0, None),  # one of the cluster is on
    (0xC400_0004, 0, 4, 0, NO - 1, None),
    (0x8400_0002, 0, 0, 0, 0, PowerOff()),
    (0xC400_0001, 0, 0, 0, 0, Standby()),
    (0x8400_0008, 0, 0, 0, 0, SystemOff()),
    (0x8400_0009, 0, 0, 0, 0, SystemReset()),
]


@pytest.mark.parametrize(("function", "x1", "x2", "x3", "x0", "effect"), PSCI)
def test_psci(function: int, x1: int, x2: int, x3: int, x0: int, effect: object) -> None:
    """Results and effects of power calls."""
    machine = Machine()
    assert machine.call(function, x1, x2, x3)[0] == x0
    assert machine.effect(function, x1, x2, x3) == effect


def test_enabling_zeroes_the_structure() -> None:
    """PV_TIME_ST: 64 bytes of zeros in eight single-copy stores, a new epoch each time (3.4)."""
    machine = Machine()
    machine.delay[1] = 500
    assert machine.call(ST, vcpu=1)[0] == BASE + 64
    assert machine.memory.stores == [(BASE + 64 + 8 * i, 8, 0, "pvtime_enable") for i in range(8)]
    machine.delay[1] = 503
    machine.hypervisor.publish(1)
    assert machine.memory.stores[-1] == (BASE + 72, 8, 3, "pvtime")
    assert machine.call(ST, vcpu=1)[0] == BASE + 64
    machine.hypervisor.publish(1)
    assert machine.memory.read(BASE + 72, 8) == 0
    assert [event.event for event in machine.events] == ["enable", "publish", "enable", "publish"]


def test_updates_begin_with_the_address() -> None:
    """Before the guest asks for stolen time the field is kept up to date already; PV_TIME_ST starts it anew (3.8)."""
    machine = Machine()
    machine.memory.store(BASE + 8, 8, 0, "boot")
    machine.delay[0] = 7
    machine.hypervisor.publish(0)
    assert machine.memory.read(BASE + 8, 8) == 7
    machine.call(ST)
    assert machine.memory.read(BASE + 8, 8) == 0
    assert (BASE + 8) >> 12 in machine.hypervisor.slots.dirty


@pytest.mark.parametrize(("profile", "expected"), [("kvm-5.5", 5), ("kvm-5.10", 1005), ("kvm-6.4", 1005), ("kvm", 1005)])
def test_what_the_guest_stores_is_the_new_base(profile: str, expected: int) -> None:
    """From v5.10 on KVM reads the field back for each update; before, its own total goes over it (2.6, 8.1 d)."""
    machine = Machine(profile=profile)
    machine.call(ST)
    machine.memory.store(BASE + 8, 8, 1000, "guest")
    machine.delay[0] = 5
    machine.hypervisor.publish(0)
    assert machine.memory.read(BASE + 8, 8) == expected


def test_a_failed_read_keeps_the_delta() -> None:
    """Section 3.5: nothing is lost while the page is away."""
    machine = Machine()
    machine.call(ST)
    machine.delay[0] = 10
    machine.memory.is_mapped = False
    machine.hypervisor.publish(0)
    machine.memory.is_mapped = True
    machine.delay[0] = 15
    machine.hypervisor.publish(0)
    assert machine.memory.read(BASE + 8, 8) == 15


def pv_time(memory: Memory, delay: Callable[[], int], profile: str = "kvm") -> PvTime:
    """One vCPU whose structure is set."""
    slots = MemorySlots()
    slots.add(BASE, 0x10000)
    pv = PvTime(PROFILES[profile], 1, GuestAccess(memory, slots), lambda vcpu, which: delay(), lambda _: None, "kvm", chain([]))
    pv.set_base(0, BASE)
    return pv


class Clock:
    """A vCPU thread whose schedule a test plays: (state, from, to); publications at each WAIT -> RUN."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.delay = 0
        self.pv = pv_time(self.memory, lambda: self.delay)
        self.enable()

    def enable(self) -> None:
        self.pv.stolen_time(Hypercall(0, "hvc", 0, 0, 1, (ST, *[0] * 17)))

    def waited(self, ns: int) -> None:
        """A wait has ended: the thread arrives on a pCPU and the guest is entered."""
        self.delay += ns
        self.pv.publish(0)

    @property
    def stored(self) -> int:
        return self.memory.read(BASE + 8, 8)


def test_golden_vector_a() -> None:
    """RUN 0-4, WAIT 4-7, RUN 7-10: 0 before 7, 3 from 7."""
    clock = Clock()
    assert clock.stored == 0
    clock.waited(3)
    assert clock.stored == 3


def test_golden_vector_b() -> None:
    """RUN 0-2, BLOCK 2-9, WAIT 9-10: sleeping is not stolen."""
    clock = Clock()
    clock.waited(1)
    assert clock.stored == 1


def test_golden_vector_c() -> None:
    """As A, PV_TIME_ST again at 8: 0 from 8."""
    clock = Clock()
    clock.waited(3)
    clock.enable()
    assert clock.stored == 0
    clock.waited(0)
    assert clock.stored == 0


def test_golden_vector_d() -> None:
    """As A, moved between run queues at 5: 1 on the old, 2 on the new clock, still 3."""
    clock = Clock()
    clock.delay += 1
    clock.waited(2)
    assert clock.stored == 3


def test_golden_vector_e() -> None:
    """A snapshot after A, restored into a thread that waited 5 before its first KVM_RUN: 8."""
    clock = Clock()
    clock.waited(3)
    memory = clock.memory
    restored = pv_time(memory, lambda: 5)
    restored.publish(0)
    assert memory.read(BASE + 8, 8) == 8


@pytest.mark.parametrize("base", [1, 32, -64, 1 << 48])
def test_structures_are_aligned(base: int) -> None:
    """64 bytes (2.2)."""
    with pytest.raises(InputError, match="64-byte aligned"):
        HypervisorConfig(pv_base=base)


def test_profiles_are_named() -> None:
    """A wrong profile lists the right ones."""
    with pytest.raises(InputError, match="must be one of kvm"):
        HypervisorConfig(profile="xen")


PROFILE_ROWS = [
    # profile, function, x1, pv_time, x0 (docs/pvtime.md 1.12)
    ("kvm-5.5", FEATURES, ST, False, 0),  # bug 8
    ("kvm-5.10", FEATURES, ST, False, NO),
    ("kvm-6.4", ARCH, 0x8000_0000, True, NO),  # bug 13
    ("kvm", ARCH, 0x8000_0001, True, 0),
    ("kvm-5.10", ARCH, 0x8000_8000, True, NO - 1),  # NOT_REQUIRED: the core is not affected
    ("kvm-5.10", ARCH, 0x8000_3FFF, True, NO),  # WORKAROUND_3 came later
    ("kvm", ARCH, 0x8000_3FFF, True, NO - 1),
    ("kvm-5.10", 0x8000_3FFF, 0, True, NO),
    ("kvm", 0x8000_8000, 0, True, 0),
    ("kvm", 0x8000_7FFF, 0, True, 0),
    ("kvm-5.5", 0x8000_8000, 0, True, 0),
    ("kvm-5.5", ARCH, 0x8000_7FFF, True, NO - 1),
    ("kvm-5.5", FEATURES, FEATURES, False, 0),  # bug 8
    ("kvm-5.5", ST, 0, False, NO),
    ("kvm-5.5", FEATURES, 0xC500_0022, False, NO),
    ("kvm-5.10", FEATURES, FEATURES, False, NO),
    ("kvm-6.4", ARCH, FEATURES, False, 0),
    *((profile, ARCH, asked, True, NO) for profile in ("kvm-5.5", "kvm-5.10", "kvm-6.4") for asked in (0x8000_0000, ARCH)),
    *((profile, ARCH, ST, True, NO) for profile in PROFILES),
    *((profile, 0x8500_0021, 0, True, NO) for profile in PROFILES),
    *((profile, 0xC500_0022, 0, True, NO) for profile in PROFILES),
]


@pytest.mark.parametrize(
    ("profile", "immediate", "function", "x0"),
    [
        ("kvm-5.10", 0, ST, NO),  # refused: X0 = -1 and a step over it
        ("kvm-6.4", 0, ST, BASE),
        ("kvm-6.4", 7, ST, NO),
        ("kvm", 0, 0x8400_0000, 0x10001),
        ("kvm", 0, 0x8000_8000, NO),  # the workarounds are answered in the HVC vector only
    ],
)
def test_smc_by_profile(profile: str, immediate: int, function: int, x0: int) -> None:
    """Section 1.10; an SMC of kvm-5.5 never gets here: the board injects the exception (machine tests)."""
    assert Machine(profile=profile).call(function, conduit="smc", immediate=immediate) == (x0, 0, 0, 0)


@pytest.mark.parametrize(("profile", "function", "x1", "pv_time", "x0"), PROFILE_ROWS)
def test_profiles_differ_where_kvm_did(profile: str, function: int, x1: int, pv_time: bool, x0: int) -> None:
    """Each profile answers as its kernel did."""
    assert Machine(pv_time, profile=profile).call(function, x1) == (x0, 0, 0, 0)


def test_the_vmm_can_hide_stolen_time() -> None:
    """Firmware bitmap (1.14) and SMCCC filter (1.11); the filter outranks the bitmap but leaves ARCH_FEATURES."""
    hidden = Machine(firmware_bitmap=0)
    assert hidden.call(ARCH, FEATURES)[0] == hidden.call(FEATURES, ST)[0] == hidden.call(ST)[0] == NO
    denied = Machine(denied=(FEATURES,))
    assert denied.call(ARCH, FEATURES)[0] == 0
    assert denied.call(FEATURES, ST)[0] == NO
    assert denied.call(ST)[0] == BASE
    for wrong, text in (
        ({"denied": (0x8000_0001,)}, "cannot be filtered"),
        ({"denied": (ST,), "profile": "kvm-5.10"}, "no SMCCC filter"),
        ({"firmware_bitmap": 0, "profile": "kvm-5.10"}, "no firmware bitmap"),
        ({"firmware_bitmap": 2}, "EINVAL"),
    ):
        with pytest.raises(InputError, match=text):
            HypervisorConfig(**wrong)


def test_the_attribute_interface() -> None:
    """Section 3.10, row by row; KVM_CAP_STEAL_TIME agrees with HAS."""
    machine = Machine(pv_time=False)
    attributes, slots = machine.hypervisor.attributes, machine.hypervisor.slots
    assert attributes.has(0) == 0
    assert attributes.capability(KVM_CAP_STEAL_TIME) == 1
    assert attributes.capability(1) == 0
    for group, attribute in ((2, 1), (3, 0)):
        assert attributes.has(0, group, attribute) == -6
        assert attributes.set(0, UserPointer(BASE), group, attribute) == -6
        assert attributes.get(0, UserPointer(), group, attribute) == -6
    user = UserPointer()
    assert attributes.get(0, user) == 0
    assert user.value == UNSET
    assert attributes.set(0, UserPointer(is_bad=True)) == attributes.get(0, UserPointer(is_bad=True)) == -14
    assert attributes.set(0, UserPointer(BASE | 1)) == -22
    assert attributes.set(0, UserPointer(0x4000_0000)) == -22  # no slot there
    assert slots.set_readonly(BASE)
    assert attributes.set(0, UserPointer(BASE)) == -22
    assert slots.delete(BASE)
    assert slots.add(BASE, 0x10000)
    assert attributes.set(0, UserPointer(BASE)) == 0
    assert attributes.set(0, UserPointer(BASE)) == -17
    assert attributes.set(0, UserPointer(BASE | 1)) == -22  # checked before EEXIST
    assert attributes.get(0, user) == 0
    assert user.value == BASE


def test_an_address_survives_a_reset() -> None:
    """There is no unset; vCPU reset and re-initialisation keep it (3.10)."""
    machine = Machine()
    machine.hypervisor.told("reset", None, None)
    machine.hypervisor.told("reset", 0, None)
    user = UserPointer()
    assert machine.hypervisor.attributes.get(0, user) == 0
    assert user.value == BASE
    assert machine.hypervisor.attributes.set(0, UserPointer(BASE + 128)) == -17


@pytest.mark.parametrize(
    ("profile", "has", "capability", "features"), [("kvm-5.5", 0, 0, 0), ("kvm-5.10", -6, 0, NO), ("kvm", None, None, None)]
)
def test_without_accounting(profile: str, has: int | None, capability: int | None, features: int | None) -> None:
    """Bug 11: before the fix stolen time is offered and stays 0; then every attribute is ENXIO; since v5.14 it cannot be."""
    if has is None:
        with pytest.raises(InputError, match="always accounts"):
            Machine(profile=profile, sched_info=False)
        return
    machine = Machine(pv_time=False, profile=profile, sched_info=False)
    attributes = machine.hypervisor.attributes
    assert attributes.has(0) == attributes.set(0, UserPointer(BASE)) == has
    assert attributes.get(0, UserPointer()) == has
    assert attributes.capability(KVM_CAP_STEAL_TIME) == capability
    assert machine.call(FEATURES, ST)[0] == features
    machine.delay[0] = 5
    assert machine.hypervisor.clock_ns(0, "wait") == 0


@pytest.mark.parametrize(("profile", "known"), [("kvm-5.5", 0), ("kvm-5.10", 1), ("kvm-6.4", 1), ("kvm", 1)])
def test_the_capability(profile: str, known: int) -> None:
    """KVM_CAP_STEAL_TIME came with v5.10; where it is known it agrees with HAS (3.11)."""
    attributes = Machine(profile=profile).hypervisor.attributes
    assert attributes.has(0) == 0
    assert attributes.capability(KVM_CAP_STEAL_TIME) == known


class RoundsDown(Fault):
    """To tens."""

    def value_ns(self, vcpu: int, base_ns: int, delta_ns: int) -> int:
        return base_ns + delta_ns // 10 * 10


class Halves(Fault):
    """Two stores of four bytes."""

    def stores(self, vcpu: int, ipa: int, value: int) -> Iterable[Store]:
        return [(ipa, 4, value & 0xFFFF_FFFF), (ipa + 4, 4, value >> 32)]


class Twice(Fault):
    """Publishes what the others make of it, and once more."""

    def publish(self, vcpu: int, default: Callable[[], None]) -> None:
        default()
        self.kit.publish(vcpu, self.kit.read(self.kit.base(vcpu) or 0, 8) + 77)


def test_faultsact_in_their_order() -> None:
    """Each on what the one before has made; a policy around them all."""
    machine = Machine(faults=(RoundsDown(), Halves(), NoFault(), Twice()))
    machine.call(ST)
    machine.delay[0] = 15
    machine.hypervisor.publish(0)
    assert machine.memory.stores[-3:] == [(BASE + 8, 4, 10, "pvtime"), (BASE + 12, 4, 0, "pvtime"), (BASE + 8, 8, 77, "pvtime")]


def test_slots_are_objects() -> None:
    """No overlap, no empty one; a store marks its page dirty; a read-only slot takes no host write."""
    memory, slots = Memory(), MemorySlots()
    access = GuestAccess(memory, slots)
    assert slots.add(0x1000, 0x1000)
    assert not slots.add(0x1800, 0x1000)
    assert not slots.add(0x5000, 0)
    assert not slots.delete(0x5000)
    assert not slots.set_readonly(0x5000)
    access.put(0x1008, 8, 1, "pvtime")
    assert slots.dirty == {1}
    slots.set_readonly(0x1000)
    assert access.get(0x1008, 8) == 1
    for wrong in (0x1008, 0x1FFC, 0x5000):
        with pytest.raises(GuestFault):
            access.write(wrong, 8, 1, "pvtime")
    with pytest.raises(GuestFault):
        access.get(0x5000, 8)
    access.put(0x5000, 8, 7, "pvtime", past_slots=True)
    assert access.get(0x5000, 8, past_slots=True) == 7


@pytest.mark.parametrize(
    ("ipa", "size", "stores"),
    [
        (0x1000, 8, [(0x1000, 8, 0x0807060504030201)]),
        (0x1004, 8, [(0x1004, 4, 0x04030201), (0x1008, 4, 0x08070605)]),
        (0x1001, 3, [(0x1001, 1, 0x01), (0x1002, 2, 0x0302)]),
    ],
)
def test_a_store_is_single_copy_atomic(ipa: int, size: int, stores: list[tuple[int, int, int]]) -> None:
    """What is naturally aligned is one store, anything else is several: put() refuses it, write() makes it."""
    memory, slots = Memory(), MemorySlots()
    access = GuestAccess(memory, slots)
    slots.add(0x1000, 0x1000)
    value = 0x0807060504030201 & (1 << 8 * size) - 1
    access.write(ipa, size, value, "pvtime")
    assert [one[:3] for one in memory.stores] == stores
    if len(stores) > 1:
        with pytest.raises(AssertionError):
            access.put(ipa, size, value, "pvtime")


def test_a_failed_store_loses_the_delta() -> None:
    """Bug 12: the cursor moves before the store is known to be good."""
    machine = Machine()
    machine.call(ST)
    machine.delay[0] = 10
    machine.hypervisor.slots.set_readonly(BASE)
    machine.hypervisor.publish(0)
    machine.hypervisor.slots.delete(BASE)
    machine.hypervisor.slots.add(BASE, 0x10000)
    machine.delay[0] = 15
    machine.hypervisor.publish(0)
    assert machine.memory.read(BASE + 8, 8) == 5


def test_an_old_kvm_keeps_its_own_total() -> None:
    """Bug 10: before v5.10 the total restarts with the vCPU and overwrites what was restored into memory."""
    for profile, expected in (("kvm-5.5", 5), ("kvm-5.10", 12)):
        memory = Memory()
        memory.store(BASE + 8, 8, 7, "boot")
        pv_time(memory, lambda: 5, profile).publish(0)
        assert memory.read(BASE + 8, 8) == expected
