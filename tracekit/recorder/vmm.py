"""What the VMM does to the machine from outside: memory slots, attributes, snapshots, live migration, reset.

Every deed is a row of `directives`, so that a replay does the same without this file. Spec: formats/SPEC.md 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tracekit.host.config import Directive
from tracekit.host.simulation import Host
from tracekit.hypervisor import Hypervisor
from tracekit.hypervisor.attributes import EEXIST, EINVAL, UNSET, UserPointer
from tracekit.machine.board import Board
from tracekit.machine.loader import LoadedGuest
from tracekit.machine.map import PVTIME_BASE, PVTIME_SIZE, RAM_BASE
from tracekit.machine.state import MachineState

Sgi = tuple[int, int, int, int]  # at_ns, source, target, intid
ENOENT = 2


@dataclass(frozen=True, slots=True)
class Resume:
    """An alarm: the downtime of a directive is over."""

    number: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A machine between two instructions, with what the host knows of its vCPUs. sgis: on their way."""

    number: int
    state: MachineState
    online: tuple[bool, ...]
    sleeping: tuple[bool, ...]
    sgis: tuple[Sgi, ...]


class Session(Protocol):
    """What the VMM uses of the running recording."""

    board: Board
    host: Host
    hypervisor: Hypervisor
    online: list[bool]

    def pending_sgis(self) -> tuple[Sgi, ...]: ...
    def replace_sgis(self, sgis: Sequence[Sgi], now_ns: int) -> None: ...
    def rearm_timers(self, now_ns: int) -> None: ...


class Vmm:
    """Carries out the directives that are not the host scheduler's."""

    def __init__(self, session: Session, guest: LoadedGuest, ram_size: int, directives: Sequence[Directive]) -> None:
        self._session = session
        self._guest = guest
        self._ram_size = ram_size
        snapshots = sorted((one for one in directives if one.kind == "snapshot"), key=lambda one: one.at_ns)
        wanted = {one.value for one in directives if one.kind == "restore" and one.value is not None}
        self._is_needed = [index in wanted for index in range(len(snapshots))]
        self._taken = 0  # snapshot directives so far
        self._number = 0  # snapshot rows so far
        self._snapshots: list[Snapshot | None] = []
        self._resumes = 0

    def kept_snapshots(self) -> list[Snapshot]:
        """Those whose state is kept, in their order."""
        return [one for one in self._snapshots if one is not None]

    # --- rows ---------------------------------------------------------------------------------------------------------------------

    def tell(
        self,
        kind: str,
        vcpu: int | None = None,
        *,
        ipa: int | None = None,
        size: int | None = None,
        value: int | None = None,
        result: int | None = None,
    ) -> None:
        """A `directives` row, and the faults' hook."""
        stored = None if value is None else value & UNSET
        self._session.board.emit("directives", vcpu, kind, ipa, size, stored, result)
        self._session.hypervisor.told(kind, vcpu, value)

    # --- before the first run --------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Memory slots, then each vCPU's structure."""
        for begin, size in ((RAM_BASE, self._ram_size), (PVTIME_BASE, PVTIME_SIZE)):
            self._slot_add(Directive(0, "slot_add", ipa=begin, size=size))
        self._place_structures()

    def _place_structures(self) -> None:
        hypervisor = self._session.hypervisor
        for vcpu, places in enumerate(hypervisor.placements()):
            self.tell("attribute_has", vcpu, result=hypervisor.attributes.has(vcpu))
            for ipa in places:
                self.tell("attribute_set", vcpu, ipa=ipa, result=hypervisor.set_base(vcpu, ipa))
            self._get_attribute(vcpu)

    def _get_attribute(self, vcpu: int) -> None:
        user = UserPointer(UNSET)
        result = self._session.hypervisor.attributes.get(vcpu, user)
        self.tell("attribute_get", vcpu, value=user.value, result=result)

    # --- directives ---------------------------------------------------------------------------------------------------------------

    def direct(self, directive: Directive, at_ns: int) -> None:
        """Carry one out; the board tells as of at_ns."""
        deeds: dict[str, Callable[[Directive], None]] = {
            "slot_add": self._slot_add,
            "slot_delete": self._slot_delete,
            "slot_readonly": self._slot_readonly,
            "kexec": lambda one: self.tell("kexec"),
        }
        if directive.kind in deeds:
            deeds[directive.kind](directive)
            return
        board = self._session.board
        still_ns = self._session.host.pause_all(at_ns)
        with board.at(board.engine.position, still_ns):
            if directive.kind == "snapshot":
                self._snapshot(directive)
            elif directive.kind == "restore":
                self._restore(directive, still_ns)
            elif directive.vcpu is not None:
                self._reset_vcpu(directive.vcpu, still_ns)
            else:
                self._reset(still_ns)
        self._resumes += 1
        self._session.host.call_at(still_ns + (directive.duration_ns or 0), Resume(self._resumes))

    def _slot_add(self, directive: Directive) -> None:
        assert directive.ipa is not None and directive.size is not None
        done = self._session.hypervisor.slots.add(directive.ipa, directive.size, directive.readonly)
        self.tell(
            "slot_add",
            ipa=directive.ipa,
            size=directive.size,
            value=int(directive.readonly),
            result=0 if done else -EEXIST if directive.size else -EINVAL,
        )

    def _slot_delete(self, directive: Directive) -> None:
        assert directive.ipa is not None
        done = self._session.hypervisor.slots.delete(directive.ipa)
        self.tell("slot_delete", ipa=directive.ipa, result=0 if done else -ENOENT)

    def _slot_readonly(self, directive: Directive) -> None:
        assert directive.ipa is not None
        done = self._session.hypervisor.slots.set_readonly(directive.ipa)
        self.tell("slot_readonly", ipa=directive.ipa, result=0 if done else -ENOENT)

    # --- the whole machine ----------------------------------------------------------------------------------------------------------

    def _sleeping(self) -> tuple[bool, ...]:
        host = self._session.host
        return tuple(host.is_asleep(vcpu) for vcpu in range(len(self._session.online)))

    def _tell_snapshot(self, is_kept: bool) -> int:
        number = self._number
        self._number += 1
        self._session.board.console.close()
        self.tell("snapshot", size=int(is_kept), value=number)
        return number

    def _snapshot(self, directive: Directive) -> None:
        session = self._session
        is_kept = self._is_needed[self._taken]
        self._taken += 1
        number = self._tell_snapshot(is_kept)
        kept = None
        if is_kept:
            kept = Snapshot(number, session.board.save(), tuple(session.online), self._sleeping(), session.pending_sgis())
        self._snapshots.append(kept)

    def _restore(self, directive: Directive, now_ns: int) -> None:
        """A new host: the state of a snapshot, or with no snapshot named the present one (live migration)."""
        session = self._session
        saved = self._snapshots[directive.value] if directive.value is not None else None
        if saved is None:
            number = self._tell_snapshot(False)
            self.tell("restore", size=0, value=number)
        else:
            session.board.roll_back(saved.state)
            self.tell("restore", size=1, value=saved.number)
            session.online[:] = saved.online
            session.replace_sgis(saved.sgis, now_ns)
            for vcpu, (is_online, is_asleep) in enumerate(zip(saved.online, saved.sleeping)):
                session.host.set_power(vcpu, is_online, is_online and not is_asleep)
            session.rearm_timers(now_ns)
        for vcpu, is_online in enumerate(session.online):
            delay_ns = directive.pre_run_ns if is_online else 0
            session.host.new_thread(vcpu, delay_ns)
            session.hypervisor.pvtime.begin_anew(vcpu)
            self.tell("restore", vcpu, value=delay_ns)
        self._place_structures()

    def _reset(self, now_ns: int) -> None:
        """The machine starts anew; the IPAs that were set survive (docs/pvtime.md 3.10)."""
        session = self._session
        session.board.reset(self._guest.segments, self._guest.entry, self._guest.x0)
        self.tell("reset")
        session.online[:] = [vcpu == 0 for vcpu in range(len(session.online))]
        session.replace_sgis((), now_ns)
        session.rearm_timers(now_ns)
        for vcpu, is_online in enumerate(session.online):
            session.host.set_power(vcpu, is_online, is_online)
            self._get_attribute(vcpu)

    def _reset_vcpu(self, vcpu: int, now_ns: int) -> None:
        """KVM_ARM_VCPU_INIT: one vCPU begins at the image's entry, also one that was off; its IPA survives (docs/pvtime.md 3.10)."""
        session = self._session
        self.tell("reset", vcpu)
        session.board.power_on(vcpu, self._guest.entry, self._guest.x0)
        session.online[vcpu] = True
        session.host.set_power(vcpu, True, True)
        session.rearm_timers(now_ns)
        self._get_attribute(vcpu)
