"""Carrying out what the trace decides: schedule, inputs, directives, host writes, interrupts. The board's director."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tracekit.formats.errors import TraceDamaged
from tracekit.machine.board import Board
from tracekit.machine.map import TIMER_PPIS
from tracekit.machine.memory import GuestFault
from tracekit.replay.difference import Difference
from tracekit.replay.divergence import Cause, Event
from tracekit.replay.events import EventStream
from tracekit.replay.machine import RecordedMachine
from tracekit.replay.standing import SNAPSHOTS_MAX, Snapshot, Standing

_BY_THE_GUEST = frozenset({"wfi", "suspend", "power_off"})  # reasons that only an instruction of the vCPU brings about


class Decisions:
    """Errors of every method: Diverged where a decision cannot be applied; TraceDamaged where none can be meant."""

    board: Board  # the one that replays; set once it is built

    def __init__(
        self, path: Path, machine: RecordedMachine, events: EventStream, standing: Standing, difference: Difference
    ) -> None:
        self._path = path
        self._machine = machine
        self._events = events
        self._standing = standing
        self._difference = difference
        self.guest_acted = False  # effects of an instruction that has just retired are being applied

    def settle(self) -> None:
        """Give the engine to the vCPU of the last `run` row. Not before it must execute: a switch clears the exclusive monitor, and
        where several `run` rows stand at one position the recording never switched."""
        if self._standing.entering is not None:
            self.board.enter(*self._standing.entering)
            self._standing.entering = None

    def apply(self, event: Event) -> bool:
        """Carry one decision out; False if it cannot be yet, because the guest has to act first."""
        ns = event.row[2]
        self._standing.saw(ns)
        if event.table == "interrupts":
            return self._interrupt(event)
        if event.table == "schedule":
            return self._schedule(event)
        with self.board.at(event.row[0], ns):
            if event.table == "memory_writes":
                self._store(event)
            elif event.table == "inputs":
                self._copy(event)
                self.board.receive(event.row[5])
            elif event.table == "states":
                self._states(event)
            elif event.table == "pvtime":
                self._pvtime(event)
            else:
                self._copy(event)
                self._direct(event)
        return True

    def _copy(self, event: Event) -> None:
        """A decision is part of the replayed run as it stands."""
        self.board.emit_at(event.table, event.row[0], event.row[2], event.row[3], *event.row[4:])

    def _schedule(self, event: Event) -> bool:
        _, _, ns, vcpu = event.row[:4]
        if event.row[8] in _BY_THE_GUEST and event.row[5] in ("block", "offline", "poll") and not self.guest_acted:
            return False
        self._copy(event)
        standing = self._standing
        if event.row[5] == "run" and vcpu is not None:
            if not 0 <= vcpu < self.board.config.vcpu_count:
                raise TraceDamaged(f"{self._path}: schedule names vCPU {vcpu}")
            standing.entering = (vcpu, ns)
            standing.loaded = vcpu
        elif vcpu is not None and vcpu == standing.loaded:
            standing.loaded = None
        return True

    def _store(self, event: Event) -> None:
        _, ipa, size, value, _, cause = event.row[4:]
        if not 1 <= size <= 8:
            self._difference.fail(f"a recorded host write of {size} bytes cannot be one store", Cause.DECISION, event)
        try:
            self.board.host_store(ipa, size, value, cause, event.row[3])
        except (GuestFault, OverflowError) as error:
            self._difference.fail(f"a recorded host write cannot be applied ({error})", Cause.DECISION, event)

    def _pvtime(self, event: Event) -> None:
        """A view of what the host writes made."""
        try:
            fields = self.board.pv_fields(event.row[5])
        except (GuestFault, OverflowError) as error:
            self._difference.fail(f"there is no structure at {event.row[5]:#x} ({error})", Cause.DECISION, event)
        self.board.emit("pvtime", event.row[3], event.row[4], event.row[5], *fields)

    def _states(self, event: Event) -> None:
        scope, _, _, memory = event.row[4:]
        board, vcpu = self.board, event.row[3]
        board.mark()
        if scope == "vcpu" and vcpu is not None and 0 <= vcpu < board.config.vcpu_count:
            board.emit("states", vcpu, "vcpu", board.registers(vcpu).digest(), None, None)
        else:
            devices = hashlib.sha256(board.device_bytes()).digest()
            board.emit("states", None, "board", None, devices, board.memory.digest() if memory is not None else None)
            self._standing.last_check = event.row[0]

    # --- directives ----------------------------------------------------------------------------------------------------------------

    def _direct(self, event: Event) -> None:
        """What a directive does to the machine itself; the others are the host's and the hypervisor's."""
        position, _, ns, vcpu, kind = event.row[:5]
        if kind == "snapshot":
            self.settle()
            self.board.console.close()
            if event.row[6] == 1:
                self._keep(event.row[7])
        elif kind == "restore" and vcpu is None and event.row[6] == 1:
            self._roll_back(event.row[7], ns)
        elif kind == "reset" and vcpu is not None:
            if vcpu >= self.board.config.vcpu_count:
                raise TraceDamaged(f"{self._path}: directives: a reset of vCPU {vcpu}, which there is not")
            with self.board.at(position, ns):
                self.board.power_on(vcpu, self._machine.entry, self._machine.x0)
        elif kind == "reset":
            self.board.reset(self._machine.images(), self._machine.entry, self._machine.x0)
            self._standing.sgis.clear()

    def _keep(self, number: int) -> None:
        snapshots = self._standing.snapshots
        if len(snapshots) >= SNAPSHOTS_MAX:
            raise TraceDamaged(f"{self._path}: directives: more than {SNAPSHOTS_MAX} snapshots that are kept")
        if number in snapshots:
            raise TraceDamaged(f"{self._path}: directives: snapshot {number} is kept twice")
        state = replace(self.board.save_portable(), pages=dict(self.board.memory.pages()))
        snapshots[number] = Snapshot(state, tuple(self._standing.sgis))

    def _roll_back(self, number: int, ns: int) -> None:
        if number not in self._standing.snapshots:
            raise TraceDamaged(f"{self._path}: directives: no snapshot {number} was kept")
        snapshot = self._standing.snapshots[number]
        self.board.roll_back(snapshot.state)
        self._standing.sgis = [(max(at_ns, ns), source, target, intid) for at_ns, source, target, intid in snapshot.sgis]

    # --- interrupts ----------------------------------------------------------------------------------------------------------------

    def _interrupt(self, event: Event) -> bool:
        vcpu, kind, intid = event.row[3:6]
        if vcpu is None or not 0 <= vcpu < self.board.config.vcpu_count:
            return False
        if kind == "take":
            self._take(event)
            return True
        with self.board.at(event.row[0], event.row[2]):
            return self._timer(event) if intid in TIMER_PPIS else self._sgi(event)

    def _take(self, event: Event) -> None:
        self.settle()
        board, vcpu = self.board, event.row[3]
        why = (
            "the vCPU is not running"
            if vcpu != self._standing.loaded
            else "interrupts are masked"
            if board.engine.irq_masked()
            else "no interrupt is pending"
            if not board.gic.line(vcpu)
            else None
        )
        if why is not None:
            what = f"the recorded interrupt {event.row[5]} cannot be taken here: {why}"
            self._difference.fail(what, Cause.DECISION, event)
        board.take_interrupt()

    def _timer(self, event: Event) -> bool:
        ns, vcpu, which = event.row[2], event.row[3], TIMER_PPIS.index(event.row[5])
        timer = self.board.engine.state.timer[vcpu][which]
        if timer.asserted or timer.ctl & 3 != 1 or timer.cval << 4 > ns:
            return False
        self.board.update_timer(vcpu, which, ns)
        return True

    def _sgi(self, event: Event) -> bool:
        vcpu, intid = event.row[3], event.row[5]
        on_its_way = [sgi for sgi in self._standing.sgis if sgi[0] <= event.row[2] and sgi[2] == vcpu and sgi[3] == intid]
        if not on_its_way:
            return False
        sgi = min(on_its_way, key=lambda one: one[0])
        self._standing.sgis.remove(sgi)
        self.board.land_sgi(sgi[1], vcpu, intid)
        return True

    # --- the board's director --------------------------------------------------------------------------------------------------------

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        """It lands where the trace says it did."""
        event = self._events.peek()
        position, _ = self.board.here()
        if event is not None and event.table == "interrupts" and event.row[0] == position:
            if event.row[3:6] == (target, "assert", intid):
                return int(event.row[2])
        self._standing.sgis.append((at_ns, source, target, intid))
        return None

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        """Who wakes, and when, stands in the trace."""
