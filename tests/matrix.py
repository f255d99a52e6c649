"""What a faithful hypervisor shows when the host does something to it: profile x host event -> the invariants that break, no more, no fewer.

The expectations are literal; tests/test_matrix.py records and judges every cell, and docs/pvtime.md holds the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from support import scenario

from tracekit.host.config import Directive, HostConfig, Neighbour
from tracekit.hypervisor.config import HypervisorConfig
from tracekit.hypervisor.profile import PROFILES
from tracekit.recorder.scenario import Input, Scenario

MS = 1_000_000
PAGE = 0x090A_0000
NEIGHBOUR = Neighbour("neighbour0", 500_000, 2 * MS)
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a run.

    says: for the table. directives, host: what the scenario says of the host. letters: what the guest reads at the UART. changes: of the
    scenario. hypervisor: of its configuration. broken: the invariants that break under every profile; by_profile: instead, under some.
    is_anywhere: the same on any host with any number of vCPUs; others are judged where the vCPUs always wait.
    """

    name: str
    says: str
    guest: str = "steal"
    directives: tuple[Directive, ...] = ()
    host: dict[str, Any] = field(default_factory=dict)
    letters: bytes = b""
    hypervisor: dict[str, Any] = field(default_factory=dict)
    broken: frozenset[str] = NOTHING
    by_profile: dict[str, frozenset[str]] = field(default_factory=dict)
    is_anywhere: bool = True
    since: str = "kvm-5.5"

    def expected(self, profile: str) -> frozenset[str]:
        """The invariants that break under a profile."""
        return self.by_profile.get(profile, self.broken)

    def applies(self, profile: str) -> bool:
        """Whether the profile has what the event needs."""
        names = list(PROFILES)
        return names.index(profile) >= names.index(self.since)

    def scenario(self, profile: str, publication: str = "kvm", **changes: Any) -> Scenario:
        """The run. changes: of the scenario; `host` as keyword arguments of HostConfig."""
        host: dict[str, Any] = {"neighbours": (NEIGHBOUR,), **self.host, **changes.pop("host", {})}
        host["directives"] = (*self.directives, *host.get("directives", ()))
        hypervisor = HypervisorConfig(profile=profile, publication=publication, **self.hypervisor)
        base = scenario(self.guest, host=HostConfig(**host), hypervisor=hypervisor)
        inputs = (Input(0, self.letters),) if self.letters else ()
        return replace(base, inputs=inputs, **changes)


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


OLD = ("kvm-5.5", "kvm-5.10", "kvm-6.4")
EVENTS: tuple[Event, ...] = (
    Event("preempted", "other threads take the physical CPU"),
    Event("wake-up latency", "a woken thread is picked late", "timer", host={"wakeup_latency_ns": 50_000}),
    Event("polling", "the thread polls before it sleeps, and is preempted in it", host={"halt_poll_ns": 400_000}),
    Event("yield", "the thread gives its physical CPU up", directives=tuple(Directive(n * MS, "yield") for n in range(1, 9))),
    Event("throttled", "its quota is used up", host={"quota_ns": MS, "quota_period_ns": 3 * MS}),
    Event("VMM time", "user space works on the thread, and is preempted in it", directives=(Directive(3 * MS, "vmm", duration_ns=5 * MS),)),
    Event("stage-2 fault", "the thread sleeps for a page", directives=(Directive(3 * MS, "stall", vcpu=0, duration_ns=2 * MS),)),
    Event("paused", "all vCPUs stand still for a while", directives=(Directive(3 * MS, "pause"), Directive(6 * MS, "resume"))),
    Event("host suspend", "the whole host sleeps", directives=(Directive(3 * MS, "suspend", duration_ns=20 * MS),)),
    Event("moved", "the thread goes to another physical CPU, whose run-queue clock is ahead",
          host={"pcpus": 2, "clock_skew_ns": (0, 1_000_000)},
          directives=tuple(Directive(n * MS + n * 37_000, "migrate", vcpu=n % 2, pcpu=n // 2 % 2) for n in range(1, 9)),
          is_anywhere=False),
    Event("clock steps back", "the run-queue clock of a physical CPU steps back by 1.2 ms while threads wait",
          directives=(Directive(6_200_000, "clock_skew", pcpu=0, value=-1_200_000),), broken=_of("S1", "S2", "S4"), is_anywhere=False),
    Event("thread change", "KVM_RUN moves to another host thread, which has waited for 7 s in its life (8.1b)",
          directives=(Directive(4 * MS, "thread_change", value=7_000_000_000),), broken=_of("S2", "S4"), is_anywhere=False),
    Event("fresh thread", "KVM_RUN moves to a new host thread (8.1b)",
          directives=(Directive(9 * MS, "thread_change"),), broken=_of("S1", "S2", "S4"), is_anywhere=False),
    Event("live migration", "a new host: new threads, the IPA set again (3.12)",
          directives=(Directive(8 * MS, "restore", duration_ns=3 * MS),), by_profile={"kvm-5.5": _of("L2")}, is_anywhere=False),
    Event("live migration, late", "the same, with threads that waited 5 ms before their first KVM_RUN (3.12)",
          directives=(Directive(8 * MS, "restore", duration_ns=3 * MS, pre_run_ns=5 * MS),), by_profile={"kvm-5.5": _of("L2")},
          is_anywhere=False),
    Event("roll back", "a snapshot is loaded again",
          directives=(Directive(5 * MS, "snapshot"), Directive(9 * MS, "restore", value=0)), by_profile={"kvm-5.5": _of("L2")},
          is_anywhere=False),
    Event("slot away", "the memory slot is deleted and comes back (8.1e)",
          directives=(Directive(3 * MS, "slot_delete", ipa=PAGE), Directive(9 * MS, "slot_add", ipa=PAGE, size=0x10000)),
          broken=_of("S4"), is_anywhere=False),
    Event("slot read-only", "the memory slot becomes read-only (2.7, bug 12)",
          directives=(Directive(3 * MS, "slot_readonly", ipa=PAGE),), broken=_of("S4"), is_anywhere=False),
    Event("reset", "the machine starts anew; KVM goes on storing before the guest asks",
          directives=(Directive(6 * MS, "reset"),), broken=_of("L5"), is_anywhere=False),
    Event("kexec", "another kernel takes over, which never asks (8.1f)",
          directives=(Directive(6 * MS, "kexec"),), broken=_of("L5"), is_anywhere=False),
    Event("hotplug", "a CPU goes off and on, the guest keeps its cursor, as Linux (8.1a)", "accounting", letters=b"h",
          broken=_of("L1", "G1"), is_anywhere=False),
    Event("hotplug, cursor reset", "the same, and the guest resets its cursor with the clock", "accounting", letters=b"hr"),
    Event("reused memory", "the guest uses the structures' memory for itself (8.1f)", "reuse", broken=_of("S5"), is_anywhere=False),
    Event("forged", "the guest writes its own field (8.1d)", "reuse", letters=b"f", broken=_of("S5"), is_anywhere=False),
    Event("every question", "the guest asks for every call (bug 13)", "discover", by_profile=dict.fromkeys(OLD, _of("H1"))),
    Event("no IPA", "the VMM sets no address (bug 8)", "discover", hypervisor={"pv_time": False},
          by_profile={"kvm-5.5": _of("H1", "H2"), "kvm-5.10": _of("H1"), "kvm-6.4": _of("H1")}),
    Event("hidden", "the VMM clears the bit in the firmware bitmap (1.14)", hypervisor={"firmware_bitmap": 0}, since="kvm-6.4"),
    Event("denied", "the VMM's filter denies the calls (1.11)", hypervisor={"denied": (0xC500_0020, 0xC500_0021)}, since="kvm-6.4"),
)  # fmt: skip


def table() -> str:
    """The table of docs/pvtime.md."""
    profiles = list(PROFILES)
    lines = [f"| event | what happens | {' | '.join(profiles)} |", f"|---|---|{'---|' * len(profiles)}"]
    for event in EVENTS:
        cells = []
        for profile in profiles:
            names = ", ".join(sorted(event.expected(profile)))
            cells.append((names or "-") if event.applies(profile) else "")
        lines.append(f"| {event.name} | {event.says} | {' | '.join(cells)} |")
    return "\n".join(lines)
