"""Every invariant: runs that break it, told with the first row, and runs that come near and do not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade import ARCH_FEATURES, FEATURES, NO, PV_BASE, ST, Handmade
from support import tracekit

from tracekit.analyzers.findings import Finding
from tracekit.analyzers.invariants import INVARIANTS, NOT_DECIDED, invariants
from tracekit.formats.reader import Trace

Change = Callable[[Handmade], object]
US = 1000  # the stories below tell of microseconds


def story(vcpus: int = 1, **options: Any) -> Handmade:
    """vCPU 0 runs from 0 on, and has asked for its stolen time at 1 us."""
    made = Handmade(vcpus, **options).begin()
    made.enter(0, 0, 0)
    made.enable(1 * US, 0)
    return made


def wait(made: Handmade, begin_us: int, end_us: int, told_ns: int | None) -> None:
    """vCPU 0 is preempted and comes back, and is told so much; None: nothing."""
    made.schedule(begin_us * US, 0, "preempt", "slice")
    made.schedule(end_us * US, 0, "run", "slice")
    if told_ns is not None:
        made.publish(end_us * US, 0, told_ns)


def found(made: Handmade, path: Path) -> list[Finding]:
    """What an analysis says."""
    return invariants(Trace.open(made.write(path)))


# --- the value --------------------------------------------------------------------------------------------------------------------------


def s1_falls(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    wait(made, 30, 40, 9 * US)


def s1_read(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    made.read(21 * US, 0, 4 * US)


def s2_too_much(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    wait(made, 30, 40, 31 * US)


def s2_underflow(made: Handmade) -> None:
    wait(made, 10, 20, (1 << 64) - 5)


def s4_wrong(made: Handmade) -> None:
    wait(made, 10, 20, 9 * US)
    wait(made, 30, 40, 19 * US)


def s4_missing(made: Handmade) -> None:
    wait(made, 10, 20, None)
    wait(made, 30, 40, 20 * US)


def s4_missing_at_the_end(made: Handmade) -> None:
    wait(made, 10, 20, None)
    made.read(25 * US, 0, 0)


def s4_sleep_counted(made: Handmade) -> None:
    made.schedule(10 * US, 0, "block", "wfi")
    made.schedule(19 * US, 0, "wake", "timer")
    made.enter(20 * US, 0, 10 * US)


def s4_read_of_an_unknown_change(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    made.read(21 * US, 0, 12 * US)


def s4_slot_away_and_back(made: Handmade) -> None:
    made.directive("slot_delete", 5 * US, ipa=PV_BASE)
    wait(made, 10, 20, None)
    made.directive("slot_add", 25 * US, ipa=PV_BASE, size=0x1_0000)
    wait(made, 30, 40, 20 * US)


def s5_host(made: Handmade) -> None:
    made.schedule(10 * US, 0, "preempt", "slice")
    made.schedule(20 * US, 0, "run", "slice")
    made.publish(22 * US, 0, 10 * US)


def s5_fault_store(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    made.store(22 * US, 0, PV_BASE + 8, 12 * US, cause="fault")
    wait(made, 30, 40, 22 * US)


def s5_guest(made: Handmade) -> None:
    made.store(2 * US, 0, PV_BASE + 8, 500, cause=None)
    wait(made, 10, 20, 500 + 10 * US)


def h3_swapped(made: Handmade) -> None:
    wait(made, 10, 20, int.from_bytes((10 * US).to_bytes(8, "little"), "big"))


def h3_revision(made: Handmade) -> None:
    made.schedule(10 * US, 0, "preempt", "slice")
    made.schedule(20 * US, 0, "run", "slice")
    made.publish(20 * US, 0, 10 * US, revision=1)


def l1_restarts(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    wait(made, 30, 37, 7 * US)


def l2_jump(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    restore(made, 5 * US)
    made.enter(50 * US, 0, 25 * US)


def u1_quarters(made: Handmade) -> None:
    for n, total in enumerate((10, 30, 60, 100, 150)):
        wait(made, 200 * n + 10, 200 * n + 20 + 10 * n, 4 * total * US)


def restore(made: Handmade, pre_run_ns: int, is_rollback: bool = False) -> None:
    """Paused at 40 us, restored at 50 us from a snapshot that was made then; running again after it needs an entry."""
    made.schedule(40 * US, 0, "pause", "directive")
    made.directive("snapshot", 40 * US, value=0)
    made.directive("restore", 50 * US, value=0, size=int(is_rollback))
    made.directive("restore", 50 * US, 0, value=pre_run_ns)
    made.directive("attribute_set", 50 * US, 0, ipa=PV_BASE)
    made.schedule(50 * US, 0, "resume", "directive")


VALUES: list[tuple[str, set[str], Change]] = [
    ("falls", {"S1", "S2", "S4"}, s1_falls),
    ("a read falls", {"S1"}, s1_read),
    ("more than time passed", {"S2", "S4"}, s2_too_much),
    ("underflow", {"S2", "S4"}, s2_underflow),
    ("too little, once", {"S4"}, s4_wrong),
    ("no update", {"S4"}, s4_missing),
    ("no update in the last run", {"S4"}, s4_missing_at_the_end),
    ("sleep is counted", {"S4"}, s4_sleep_counted),
    ("changed without an update", {"S4"}, s4_read_of_an_unknown_change),
    ("slot away and back", {"S4"}, s4_slot_away_and_back),
    ("late", {"S5"}, s5_host),
    ("stored while the guest runs", {"S5"}, s5_fault_store),
    ("the guest stores", {"S5"}, s5_guest),
    ("big-endian", {"H3"}, h3_swapped),
    ("revision 1", {"H3"}, h3_revision),
    ("begins again", {"L1"}, l1_restarts),
    ("jumps at a restore", {"L2"}, l2_jump),
    ("quarters of ns", {"U1"}, u1_quarters),
]


@pytest.mark.parametrize(("expected", "change"), [one[1:] for one in VALUES], ids=[one[0] for one in VALUES])
def test_value(tmp_path: Path, expected: set[str], change: Change) -> None:
    """Exactly what is broken."""
    made = story()
    change(made)
    assert {one.invariant for one in found(made, tmp_path / "a.tkt")} == expected


def test_a_finding_names_its_first_row(tmp_path: Path) -> None:
    """With what was expected, how many follow, and a command that shows the row."""
    made = story()
    wait(made, 10, 20, 9 * US)
    position = made.position - 10
    wait(made, 30, 40, 18 * US)
    (one,) = found(made, tmp_path / "a.tkt")
    assert (one.invariant, one.table, one.place, one.vtime_ns, one.vcpu) == ("S4", "pvtime", (position, 0), 20 * US, 0)
    assert one.count == 2 and one.expected.startswith("10000 ns more") and one.found == "9000 ns more"
    command = shlex.split(one.command(str(tmp_path / "a.tkt")))
    shown = tracekit(*command[1:], "--json")
    assert command[0] == "tracekit" and json.loads(shown.stdout)["stolen_ns"] == 9 * US


# --- what breaks nothing -----------------------------------------------------------------------------------------------------------


def again(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    made.enable(25 * US, 0)
    wait(made, 30, 40, 10 * US)


def not_enabled_again_after_offline(made: Handmade) -> None:
    made.schedule(10 * US, 0, "offline", "power_off")
    made.schedule(20 * US, 0, "online", "power_on")
    made.enter(23 * US, 0, 3 * US)


def nothing_changed(made: Handmade) -> None:
    made.schedule(10 * US, 0, "block", "wfi")
    made.schedule(20 * US, 0, "wake", "timer")
    made.schedule(20 * US, 0, "run", "wakeup")
    made.schedule(30 * US, 0, "block", "wfi")


def switched_in_but_not_entered(made: Handmade) -> None:
    made.schedule(10 * US, 0, "preempt", "slice")
    made.schedule(20 * US, 0, "run", "slice")
    made.schedule(20 * US, 0, "pause", "directive")
    made.schedule(30 * US, 0, "resume", "directive")
    made.enter(35 * US, 0, 15 * US)


def vmm_time(made: Handmade) -> None:
    made.directive("vmm", 10 * US, 0, value=20 * US)
    made.schedule(15 * US, 0, "preempt", "slice")
    made.schedule(25 * US, 0, "run", "slice")
    made.schedule(40 * US, 0, "run", "turn")
    made.publish(40 * US, 0, 10 * US)
    made.schedule(50 * US, 0, "block", "wfi")


def polling_goes_on(made: Handmade) -> None:
    made.schedule(10 * US, 0, "poll", "wfi")
    made.schedule(12 * US, 0, "preempt", "slice")
    made.schedule(20 * US, 0, "run", "slice")
    made.schedule(20 * US, 0, "poll", "poll")
    made.schedule(25 * US, 0, "block", "poll")


def the_same_value_again(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    made.publish(22 * US, 0, 10 * US)


def restored(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    restore(made, 5 * US)
    made.enter(53 * US, 0, 18 * US)


def rolled_back(made: Handmade) -> None:
    wait(made, 10, 20, 10 * US)
    restore(made, 5 * US, is_rollback=True)
    made.enter(53 * US, 0, 18 * US)
    made.schedule(60 * US, 0, "pause", "directive")
    made.directive("restore", 70 * US, value=0, size=1)
    made.directive("restore", 70 * US, 0, value=1)
    made.directive("attribute_set", 70 * US, 0, ipa=PV_BASE)
    made.schedule(70 * US, 0, "resume", "directive")
    made.enter(72 * US, 0, 10 * US + 1 + 2 * US)


def thread_change_of_equal_age(made: Handmade) -> None:
    made.directive("thread_change", 5 * US, 0, value=0)
    wait(made, 10, 20, 10 * US)


def guest_uses_the_memory_before_it_asks(made: Handmade) -> None:
    made.schedule(10 * US, 1, "online", "power_on", 1)
    made.schedule(10 * US, 1, "run", "power_on", 1)
    made.publish(10 * US, 1, 0)
    made.store(11 * US, 0, PV_BASE + 64 + 8, 7, cause=None)


def all_of_one_size(made: Handmade) -> None:
    """Cannot tell a unit from a constant error, and is none: steps of 10 us, told as 10 us."""
    for n in range(1, 6):
        wait(made, 100 * n, 100 * n + 10, 10 * n * US)


@pytest.mark.parametrize(
    "change",
    [
        again, not_enabled_again_after_offline, nothing_changed, switched_in_but_not_entered, vmm_time, polling_goes_on,
        the_same_value_again, restored, rolled_back, thread_change_of_equal_age, guest_uses_the_memory_before_it_asks, all_of_one_size,
    ],
)  # fmt: skip
def test_value_is_good(tmp_path: Path, change: Change) -> None:
    """Odd, but true."""
    made = story(2, pcpus=2)
    change(made)
    assert found(made, tmp_path / "a.tkt") == []


# --- threads -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "is_broken"),
    [
        ([(0, "online"), (0, "run"), (5, "preempt"), (7, "run")], False),
        ([(0, "online"), (0, "run"), (5, "wake")], True),  # it did not sleep
        ([(0, "online"), (0, "run"), (5, "run")], True),
        ([(0, "online"), (0, "run"), (5, "preempt"), (4, "run")], True),  # time runs backward
        ([(1, "online"), (1, "run")], True),  # where was it before?
    ],
)
def test_s3_of_a_thread(tmp_path: Path, rows: list[tuple[int, str]], is_broken: bool) -> None:
    """A life without gaps or leaps."""
    made = Handmade(neighbours=1)
    made.schedule(0, 0, "offline", "start")
    for at_ns, event in rows:
        made.schedule(at_ns, 1, event, "neighbour")
    made.end_ns = 10
    assert [one.invariant for one in found(made, tmp_path / "a.tkt")] == ["S3"] * is_broken


@pytest.mark.parametrize("second_pcpu", [0, 1])
def test_s3_of_a_pcpu(tmp_path: Path, second_pcpu: int) -> None:
    """One thread at a time on a physical CPU."""
    made = Handmade(2, pcpus=2)
    for vcpu, pcpu in ((0, 0), (1, second_pcpu)):
        made.schedule(0, vcpu, "online", "start", pcpu)
        made.schedule(0, vcpu, "run", "start", pcpu)
    assert [one.invariant for one in found(made, tmp_path / "a.tkt")] == ([] if second_pcpu else ["S3"])


# --- place and store --------------------------------------------------------------------------------------------------------------------

UART = 0x0900_0000
MACHINE = {"segments": [{"ipa": 0x4008_0000, "size": 0x1000, "image": ""}], "reserved": [[0x4010_0000, 0x1000]]}


@pytest.mark.parametrize(
    ("bases", "expected"),
    [
        ([PV_BASE, PV_BASE + 64], set()),
        ([PV_BASE + 0xFC0, PV_BASE + 0x1000], set()),
        ([PV_BASE + 16, PV_BASE + 128], {"M1"}),
        ([PV_BASE, PV_BASE], {"M2"}),
        ([PV_BASE, PV_BASE + 0xFC0 + 16], {"M1", "M2"}),  # over the end of a page
        ([PV_BASE, UART], {"M6"}),
        ([PV_BASE, 0x0801_0040], {"M6"}),
        ([PV_BASE, 0x4008_0FC0], {"M6"}),  # on the kernel
        ([PV_BASE, 0x4020_0000], {"M6"}),  # RAM that the guest may use
        ([PV_BASE, 0x4010_0000], set()),  # RAM that the device tree keeps
        ([PV_BASE, PV_BASE + 0x1_0000], {"M6"}),  # no slot
    ],
)
def test_place(tmp_path: Path, bases: list[int], expected: set[str]) -> None:
    """M1 aligned, M2 disjoint and in one page, M6 in memory that is nothing else's."""
    made = Handmade(2, machine=MACHINE).begin(bases)
    assert {one.invariant for one in found(made, tmp_path / "a.tkt")} == expected


def test_ram_is_judged_only_where_the_manifest_tells_what_is_reserved(tmp_path: Path) -> None:
    """Traces of format 1.0 do not."""
    made = Handmade(machine={"reserved": None}).begin([0x4020_0000])
    assert found(made, tmp_path / "a.tkt") == []


def piece_by_piece(made: Handmade) -> None:
    for n in range(8):
        made.store(20 * US, 0, PV_BASE + 8 + n, (10 * US >> 8 * n) & 0xFF, size=1)
    made.tell(20 * US, 0, 10 * US)


def low_half(made: Handmade) -> None:
    made.store(20 * US, 0, PV_BASE + 8, 10 * US, size=4)
    made.tell(20 * US, 0, 10 * US)


def elsewhere(made: Handmade) -> None:
    made.store(20 * US, 0, PV_BASE + 0x808, 10 * US)
    made.row("pvtime", 20 * US, 0, event="publish", ipa=PV_BASE + 0x800, stolen_ns=10 * US)


def readonly(made: Handmade) -> None:
    made.directive("slot_readonly", 15 * US, ipa=PV_BASE)
    made.publish(20 * US, 0, 10 * US)


def deleted(made: Handmade) -> None:
    made.directive("slot_delete", 15 * US, ipa=PV_BASE)
    made.publish(20 * US, 0, 10 * US)


def failed_change(made: Handmade) -> None:
    made.directive("slot_delete", 15 * US, ipa=PV_BASE + 64, result=-2)
    made.publish(20 * US, 0, 10 * US)


def old_address(made: Handmade) -> None:
    made.directive("attribute_set", 15 * US, 0, ipa=PV_BASE + 0x400)
    made.store(20 * US, 0, PV_BASE + 8, 10 * US)
    made.row("pvtime", 20 * US, 0, event="publish", ipa=PV_BASE, stolen_ns=10 * US)


def new_address(made: Handmade) -> None:
    made.directive("attribute_set", 15 * US, 0, ipa=PV_BASE + 0x400)
    made.store(20 * US, 0, PV_BASE + 0x408, 10 * US)
    made.row("pvtime", 20 * US, 0, event="publish", ipa=PV_BASE + 0x400, stolen_ns=10 * US)


def after_kexec(made: Handmade) -> None:
    made.directive("kexec", 15 * US, result=None)
    made.publish(20 * US, 0, 10 * US)


def after_vcpu_reset(made: Handmade) -> None:
    made.directive("reset", 15 * US, 0)
    made.publish(20 * US, 0, 10 * US)


def silent_after_kexec(made: Handmade) -> None:
    made.directive("kexec", 15 * US, result=None)


def asked_anew(made: Handmade) -> None:
    made.directive("kexec", 15 * US, result=None)
    made.enable(20 * US, 0)


STORES: list[tuple[Change, set[str]]] = [
    (piece_by_piece, {"M3"}), (low_half, {"M3"}), (elsewhere, {"M5"}), (readonly, {"M5"}), (deleted, {"M5"}), (failed_change, set()),
    (old_address, {"L5"}), (new_address, set()), (after_kexec, {"L5"}), (after_vcpu_reset, {"L5"}), (silent_after_kexec, set()),
    (asked_anew, set()),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), STORES)
def test_store(tmp_path: Path, change: Change, expected: set[str]) -> None:
    """M3 one store of 8 bytes, M5 in memory that is there for it, L5 to nobody who is gone."""
    made = story()
    made.schedule(10 * US, 0, "preempt", "slice")
    made.schedule(20 * US, 0, "run", "slice")
    change(made)
    made.schedule(30 * US, 0, "block", "wfi")
    assert {one.invariant for one in found(made, tmp_path / "a.tkt")} == expected


# --- calls ----------------------------------------------------------------------------------------------------------------------------------

BASE = PV_BASE  # vCPU 0 has a structure, vCPU 1 has none
CALLS: list[tuple[list[tuple[int, int, int, int]], set[str]]] = [  # (vCPU, id, X1, X0 after), invariants
    ([(0, ARCH_FEATURES, FEATURES, 0), (0, FEATURES, ST, 0), (0, ST, 0, BASE)], set()),
    ([(1, FEATURES, ST, NO), (1, ST, 0, NO)], set()),
    ([(0, ST, 0, BASE + 64)], {"H1"}),
    ([(1, ST, 0, BASE)], {"H1"}),
    ([(0, ST, 0, NO)], {"H1"}),  # nothing explains it
    ([(1, ST, 0, 0xFFFF_FFFF)], {"H1"}),  # bug 1
    ([(1, FEATURES, ST, 0xFFFF_FFFF)], {"H1"}),
    ([(0, 0xC400_0003, 9, 0xFFFF_FFFE)], {"H1"}),
    ([(0, FEATURES, FEATURES, 1)], {"H1"}),
    ([(0, FEATURES, 0xC500_0022, 0)], {"H1"}),  # bug 2
    ([(0, 0xC500_0022, 0, BASE)], {"H1"}),
    ([(0, 0xC500_0022, 0, NO), (0, 0x8500_0020, ST, 0xFFFF_FFFF), (0, 0x8500_0021, 0, NO)], set()),
    ([(0, 0x8500_0021, 0, BASE)], {"H1"}),
    ([(0, ARCH_FEATURES, 0x8000_0000, 0), (0, ARCH_FEATURES, ST, NO)], set()),
    ([(0, ARCH_FEATURES, 0x8000_0001, NO)], {"H1"}),  # bug 13
    ([(0, ARCH_FEATURES, FEATURES, NO)], {"H1"}),
    ([(0, FEATURES, ST, NO)], {"H1"}),
    ([(1, ARCH_FEATURES, FEATURES, NO), (1, FEATURES, ST, 0)], {"H1"}),
    ([(1, FEATURES, ST, 0), (1, ST, 0, NO)], {"H2"}),  # bug 8
    ([(0, FEATURES, ST, 0), (0, ST, 0, NO)], {"H2"}),
    ([(1, FEATURES, ST, 0), (0, ST, 0, BASE)], set()),  # another vCPU's answer says nothing of one that differs
]  # fmt: skip


def calls(tmp_path: Path, rows: list[tuple[int, int, int, int]], conduit: str = "hvc", **hypervisor: Any) -> set[str]:
    """What is broken by some calls."""
    made = Handmade(2, **hypervisor)
    made.directive("attribute_set", 0, 0, ipa=BASE)
    made.schedule(0, 0, "online", "start")
    for vcpu, function_id, x1, ret0 in rows:
        made.call(0, vcpu, function_id, x1, ret0, conduit=conduit)
    return {one.invariant for one in found(made, tmp_path / f"{len(list(tmp_path.iterdir()))}.tkt")}


@pytest.mark.parametrize(("rows", "expected"), CALLS)
def test_calls(tmp_path: Path, rows: list[tuple[int, int, int, int]], expected: set[str]) -> None:
    """H1 the convention, H2 that an offer is kept."""
    assert calls(tmp_path, rows) == expected


@pytest.mark.parametrize(
    ("rows", "hypervisor"),
    [
        ([(0, ARCH_FEATURES, FEATURES, NO), (0, FEATURES, ST, NO), (0, ST, 0, NO)], {"firmware_bitmap": 0}),
        ([(0, ARCH_FEATURES, FEATURES, 0), (0, FEATURES, ST, NO), (0, ST, 0, NO)], {"denied": [FEATURES, ST]}),
        ([(0, FEATURES, ST, 0), (0, ST, 0, NO)], {"denied": [ST]}),
        ([(0, FEATURES, ST, NO), (0, ST, 0, BASE)], {"denied": [FEATURES]}),
    ],
)
def test_what_the_scenario_refuses_is_no_finding(
    tmp_path: Path, rows: list[tuple[int, int, int, int]], hypervisor: dict[str, Any]
) -> None:
    """The firmware bitmap, the filter."""
    assert calls(tmp_path, rows, **hypervisor) == set()


def test_old_profiles_refuse_smc(tmp_path: Path) -> None:
    """An answer of -1 over SMC is none of the interface."""
    assert calls(tmp_path, [(0, FEATURES, ST, NO), (0, ST, 0, NO)], conduit="smc") == set()
    assert calls(tmp_path, [(0, FEATURES, ST, NO), (0, ST, 0, BASE + 64)], conduit="smc") == {"H1"}


@pytest.mark.parametrize("columns", [{"ret2": 5}, {"changed": 1 << 9}])
def test_registers_are_kept(tmp_path: Path, columns: dict[str, int]) -> None:
    """X1 to X3 become 0, X4 to X17 stay."""
    made = Handmade().begin()
    made.call(0, 0, FEATURES, ST, 0, **columns)
    assert {one.invariant for one in found(made, tmp_path / "a.tkt")} == {"H1"}


# --- the guest's accounting -------------------------------------------------------------------------------------------------------------

MS = 1_000_000


def stat(*readings: tuple[int, str], again_at_ms: int | None = None, reset_at_ms: int | None = None) -> Handmade:
    """Readings of one CPU at times in ms."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    for at_ms, columns in readings:
        if again_at_ms is not None and at_ms > again_at_ms:
            made.enable(again_at_ms * MS, 0)
            again_at_ms = None
        if reset_at_ms is not None and at_ms > reset_at_ms:
            made.directive("reset", reset_at_ms * MS)
            reset_at_ms = None
        made.stat(at_ms * MS, columns)
    return made


def late_ticks() -> Handmade:
    """3 ms on, 9 ms off: two ticks in each run, one of them late; Linux shows 4 of 12 ms as user and 9 as steal (the resonance)."""
    made = Handmade().begin()
    made.enter(0, 0, 0)
    made.enable(0, 0)
    made.stat(0, "0 0 0 0 0 0 0 0 0 0")
    for turn in range(100):
        made.schedule((12 * turn + 3) * MS, 0, "preempt", "slice")
        made.enter(12 * (turn + 1) * MS, 0, 9 * (turn + 1) * MS)
    made.stat(1200 * MS, "40 0 0 0 0 0 0 90 0 0")
    return made


ACCOUNTS: list[tuple[str, Handmade, set[str]]] = [
    ("grows", stat((100, "5 0 0 0 0 0 0 2 0 0"), (200, "10 0 0 0 0 0 0 7 0 0")), set()),
    ("falls", stat((100, "5 0 0 0 0 0 0 9 0 0"), (200, "10 0 0 0 0 0 0 8 0 0")), {"G1"}),
    ("falls below 0", stat((100, "5 0 0 0 0 0 0 9 0 0"), (200, "10 0 0 0 0 0 0 1844674407369 0 0")), {"G1"}),
    ("a late tick after each wait", late_ticks(), set()),
    ("keeps its cursor", stat((100, "5 0 0 0 0 0 0 9 0 0"), (200, "10 0 0 0 0 0 0 1 0 0"), again_at_ms=150), {"G1", "L1"}),
    ("resets its cursor", stat((100, "5 0 0 0 0 0 0 9 0 0"), (200, "10 0 0 0 0 0 0 9 0 0"), again_at_ms=150), set()),
    ("another kernel", stat((100, "5 0 0 0 0 0 0 9 0 0"), (200, "1 0 0 0 0 0 0 0 0 0"), reset_at_ms=150), set()),
    ("rounded", stat((100, "0 0 0 0 0 0 0 0 0 0"), (200, "6 0 0 0 0 0 0 6 0 0")), set()),
    ("more than the wall", stat((100, "0 0 0 0 0 0 0 0 0 0"), (200, "9 0 0 0 0 0 0 9 0 0")), {"G2"}),
    ("guest time twice", stat((100, "0 0 0 0 0 0 0 0 0 0"), (200, "9 0 0 0 0 0 0 0 9 0")), set()),
]  # fmt: skip


@pytest.mark.parametrize(("made", "expected"), [one[1:] for one in ACCOUNTS], ids=[one[0] for one in ACCOUNTS])
def test_accounting(tmp_path: Path, made: Handmade, expected: set[str]) -> None:
    """G1 steal never falls, G2 no more time than there is, L1 clock and cursor begin anew together."""
    assert {one.invariant for one in found(made, tmp_path / "a.tkt")} == expected


def test_a_wait_that_began_in_wfi_is_idle_and_steal_at_once(tmp_path: Path) -> None:
    """With NO_HZ the idle column is a wall clock (docs/pvtime.md 4.12): total > wall is the guest's, and implied."""
    for name, event, reason, expected in (("woken", "block", "wfi", set()), ("preempted", "preempt", "slice", {"G2"})):
        made = story()
        made.stat(100 * MS, "0 0 0 0 0 0 0 0 0 0")
        made.schedule(110 * MS, 0, event, reason)
        if event == "block":
            made.schedule(110 * MS, 0, "wake", "timer")
        made.enter(180 * MS, 0, 70 * MS)
        made.stat(200 * MS, "3 0 0 8 0 0 0 7 0 0")
        assert {one.invariant for one in found(made, tmp_path / f"{name}.tkt")} == expected


def test_every_invariant_is_decided_or_said_not_to_be() -> None:
    """Of docs/pvtime.md 5.10, without those that concern the guest's kernel alone (L3, L4, G3)."""
    here = {name for _, names, _ in VALUES for name in names} | {name for _, names in STORES for name in names}
    here |= {"S3", "M1", "M2", "M6", "H1", "H2", "G1", "G2"}
    assert here == set(INVARIANTS) and not set(INVARIANTS) & set(NOT_DECIDED)
