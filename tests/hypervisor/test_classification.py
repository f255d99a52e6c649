"""What counts as stolen, situation by situation (docs/pvtime.md 5.4), under each publication policy (5.7).

A scripted guest on the host model, its structure brought up to date by the hypervisor at every guest entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tracekit.host.config import Directive, HostConfig, Neighbour
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Transition
from tracekit.hypervisor.fault import chain
from tracekit.hypervisor.guest_access import GuestAccess
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PUBLICATIONS, PvTime
from tracekit.hypervisor.slots import MemorySlots

MS = 1_000_000
BASE = 0x1000
Step = tuple[str, int]


class Memory:
    """One structure."""

    def __init__(self) -> None:
        self.stolen_ns = 0

    def read(self, ipa: int, size: int) -> int:
        return self.stolen_ns if ipa == BASE + 8 else 0

    def store(self, ipa: int, size: int, value: int, cause: str) -> None:
        assert (ipa, size) == (BASE + 8, 8)
        self.stolen_ns = value


class Guest:
    """One vCPU that runs, sleeps in WFI, is suspended or off, for so many ns each."""

    def __init__(self, config: HostConfig, steps: list[Step], publication: str) -> None:
        self.rows: list[Transition] = []
        self.host = Host(config, 1, 0, self.rows.append)
        self.steps = [*steps, ("run", 1 << 60)]
        self.left_ns = 0
        self.memory = Memory()
        slots = MemorySlots()
        slots.add(BASE, 64)
        access = GuestAccess(self.memory, slots)
        self.pv = PvTime(PROFILES["kvm"], 1, access, self.host.clock_ns, lambda _: None, publication, chain([]))
        self.pv.set_base(0, BASE)

    def run(self, until_ns: int) -> int:
        """What the structure says at the last guest entry before until_ns."""
        self.host.start()
        while True:
            match self.host.next():
                case Deadlock():
                    return self.memory.stolen_ns
                case Alarm(at_ns, "on"):
                    self.host.online(0, at_ns, "power_on")
                case Alarm(at_ns):
                    if at_ns >= until_ns:
                        return self.memory.stolen_ns
                    self.host.wake(0, at_ns, "timer")
                case Enter() as enter:
                    if enter.now_ns >= until_ns:
                        return self.memory.stolen_ns
                    self._enter(enter)

    def _enter(self, enter: Enter) -> None:
        if enter.loaded:
            self.pv.publish(0)
        kind, length_ns = self.steps[0]
        if kind == "run":
            self.left_ns = self.left_ns or length_ns
            ran_ns = min(self.left_ns, enter.horizon_ns - enter.now_ns)
            self.left_ns -= ran_ns
            self.host.ran(0, enter.now_ns + ran_ns)
            if not self.left_ns:
                self.steps.pop(0)
            return
        self.steps.pop(0)
        if kind == "off":
            self.host.offline(0, enter.now_ns, "power_off")
            self.host.call_at(enter.now_ns + length_ns, "on")
        else:
            self.host.block(0, enter.now_ns, kind)
            self.host.call_at(enter.now_ns + length_ns, "wake", vcpu=0)


@dataclass(frozen=True)
class Situation:
    """A row: the `schedule` event that begins it, and the stolen time by policy `kvm` and where another differs."""

    event: str
    kvm_ns: int
    host: HostConfig
    steps: tuple[Step, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    until_ns: int = 8 * MS


def busy(**keys: Any) -> HostConfig:
    """A neighbour that runs 1 ms after each vCPU slice of 3 ms: first from 3 to 4 ms."""
    return HostConfig(neighbours=(Neighbour("other", 500_000, 2 * MS),), **keys)


def after(kind: str, at_ns: int = MS, **keys: Any) -> tuple[Directive, ...]:
    """One directive for vCPU 0, or for the host."""
    return (Directive(at_ns, kind, **keys),)


BY_SITUATION = {
    "guest executing": Situation("run", 0, HostConfig()),
    "preempted by another task": Situation("preempt", MS, busy(), until_ns=5 * MS),
    "WFI trapped, polling": Situation("poll", 0, HostConfig(halt_poll_ns=MS), (("run", MS), ("wfi", MS // 2))),
    "WFI trapped, polling, and preempted meanwhile": Situation(
        "preempt", MS, busy(halt_poll_ns=6 * MS), (("run", MS), ("wfi", 4 * MS)), until_ns=6 * MS
    ),
    "WFI trapped, sleeping": Situation("block", 0, HostConfig(), (("run", MS), ("wfi", MS))),
    "wake-up latency": Situation("wake", 200_000, HostConfig(wakeup_latency_ns=200_000), (("run", MS), ("wfi", MS))),
    "spin exit, directed yield": Situation(
        "yield", MS, busy(directives=after("yield", vcpu=0)), others=(("spec-min", 0),), until_ns=4 * MS
    ),
    "PSCI CPU_OFF": Situation("offline", 0, HostConfig(), (("run", MS), ("off", MS)), (("xen", MS),)),
    "PSCI CPU_SUSPEND, sleeping": Situation("block", 0, HostConfig(), (("run", MS), ("suspend", MS))),
    "VMM on the same thread": Situation("run", 0, HostConfig(directives=after("vmm", vcpu=0, duration_ns=MS))),
    "VMM thread preempted while emulating": Situation(
        "preempt", MS, busy(directives=after("vmm", vcpu=0, duration_ns=4 * MS)), until_ns=7 * MS
    ),
    "stage-2 fault waiting, VMM lock": Situation("block", 0, HostConfig(directives=after("stall", vcpu=0, duration_ns=MS))),
    "quota throttling": Situation("throttle", MS, HostConfig(quota_ns=MS, quota_period_ns=2 * MS), until_ns=3 * MS),
    "pause": Situation("pause", 0, HostConfig(directives=(*after("pause", vcpu=0), *after("resume", 2 * MS, vcpu=0)))),
    "host suspend": Situation(
        "suspend", 0, HostConfig(directives=after("suspend", duration_ns=MS)), others=(("kvm-x86-suspend", MS),)
    ),
    "move between host CPUs while queued": Situation(
        "migrate", MS // 2,
        HostConfig(
            pcpus=2, neighbours=(Neighbour("other", 500_000, 2 * MS, pcpu=0),), clock_skew_ns=(0, 1_000_000_000),
            directives=after("migrate", 3 * MS + MS // 2, vcpu=0, pcpu=1),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("publication", PUBLICATIONS)
@pytest.mark.parametrize("name", BY_SITUATION)
def test_what_counts_as_stolen(name: str, publication: str) -> None:
    """The published total after one such situation."""
    row = BY_SITUATION[name]
    guest = Guest(row.host, list(row.steps), publication)
    assert guest.run(row.until_ns) == dict(row.others).get(publication, row.kvm_ns)
    assert row.event in {one.event for one in guest.rows if one.vcpu == 0}
