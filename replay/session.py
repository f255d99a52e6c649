"""Replaying: decisions come from the trace, everything the guest does is compared as it happens.

The host model is not here. Spec: formats/SPEC.md "Replay".
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tracekit.formats.errors import TraceDamaged, TracekitError
from tracekit.formats.reader import Trace
from tracekit.formats.thick import ThickComparison
from tracekit.formats.writer import TraceWriter
from tracekit.machine import native
from tracekit.machine.board import THICK_TABLES, Board
from tracekit.machine.capture import thick_buffers
from tracekit.machine.description import board_config
from tracekit.machine.engine import EngineConfig, StopReason, version
from tracekit.machine.events import Row
from tracekit.machine.map import TIMER_PPIS
from tracekit.machine.memory import GuestFault
from tracekit.machine.state import MachineState
from tracekit.replay.divergence import Cause, Divergence, Event, Field, Result, differing_fields
from tracekit.replay.events import EventStream, is_decision

NEVER = 1 << 62
CPU_ON = (0x8400_0003, 0xC400_0003)
EVENTS_BEFORE = 10
SNAPSHOTS_MAX = 64
_BY_THE_GUEST = frozenset({"wfi", "suspend", "power_off"})  # reasons that only an instruction of the vCPU brings about
_STUCK_ENDS = frozenset({"lockup", "engine_error"})


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay; nothing here changes what the guest does. capture None: as recorded."""

    capture: str | None = None
    mode: str = "fast"
    page_size: int = 4096
    counting: str = "block"
    to_position: int | None = None


class _Diverged(Exception):
    """The first difference; travels up to Replay.run."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.what)
        self.divergence = divergence


class Replay:
    """One replay of an open trace."""

    def __init__(
        self,
        trace: Trace,
        options: ReplayOptions | None = None,
        *,
        writer: TraceWriter | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Errors: TraceDamaged where the manifest describes no machine that can be built."""
        self.options = options or ReplayOptions()
        self._trace = trace
        self._writer = writer
        self._on_progress = on_progress
        manifest = trace.manifest
        self._recorded_capture = str(manifest.get("scenario", {}).get("capture", "thin"))
        capture = self.options.capture or self._recorded_capture
        engine = EngineConfig(
            mode=self.options.mode,
            page_size=self.options.page_size,
            counting=self.options.counting,
            capture=capture,
            takes_interrupts=False,
        )
        try:
            machine = manifest["machine"]
            self._segments = [(int(one["ipa"]), str(one["image"])) for one in machine["segments"]]
            self._entry, self._x0 = int(machine["entry"]), int(machine["x0"])
        except (KeyError, TypeError, ValueError) as error:
            raise TraceDamaged(f"{trace.path}: the manifest describes no machine ({error!r})") from None
        config = board_config(machine, engine)
        self.board = Board(config, self, self)
        try:
            self.board.load(self._images())
            self.board.engine.reset_vcpu(0, self._entry, self._x0)
        except GuestFault as error:
            raise TraceDamaged(f"{trace.path}: an image does not fit into the machine ({error})") from None
        self._events = EventStream(trace)
        self._thick = {
            number: ThickComparison(trace, name)
            for number, name in THICK_TABLES.items()
            if self.board.engine.captures(number) and self._was_captured(name)
        }
        self._end_position = int(manifest["end"]["position"])
        if self.options.to_position is not None:
            self._end_position = min(self._end_position, self.options.to_position)
        self._is_whole = self._end_position == int(manifest["end"]["position"])
        self._end_reason = str(manifest["end"].get("reason"))
        self._before: deque[Event] = deque(maxlen=EVENTS_BEFORE)
        self._sgis: list[tuple[int, int, int, int]] = []  # (at_ns, source, target, intid) on their way
        self._snapshots: dict[int, tuple[MachineState, tuple[tuple[int, int, int, int], ...]]] = {}
        self._console: Event | None = None  # the recorded row that is being printed
        self._loaded: int | None = None
        self._entering: tuple[int, int] | None = None  # the last `run` row, until the engine is really needed for it
        self._last_check = 0
        self._guest_acted = False  # effects of an instruction that has just retired are being applied
        self._vtime_ns = 0
        self.warnings = self._engine_warnings(manifest.get("engine", {}))

    def _images(self) -> Iterator[tuple[int, bytes]]:
        for ipa, image in self._segments:
            yield ipa, self._trace.image(image)

    def _was_captured(self, table: str) -> bool:
        levels = {"memory_writes": ("writes", "full"), "memory_reads": ("full",), "blocks": ("full",)}
        return self._recorded_capture in levels[table]

    @staticmethod
    def _engine_warnings(engine: dict[str, Any]) -> tuple[str, ...]:
        recorded = engine.get("unicorn")
        if recorded != version():
            return (f"recorded with Unicorn {recorded}, replaying with {version()}: a divergence may be the engine's",)
        return ()

    # --- the loop ------------------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Replay to the end (or `to_position`) or to the first divergence.

        Errors: TraceDamaged where the trace cannot be read further.
        """
        divergence: Divergence | None = None
        try:
            self._run()
        except _Diverged as diverged:
            divergence = self._first(diverged.divergence)
        return Result(divergence, self.board.engine.position, self._vtime_ns, self._events.taken, self._is_whole, self.warnings)

    def _run(self) -> None:
        engine = self.board.engine
        told = 0
        while True:
            self._apply_here(engine.position)
            if engine.position >= self._end_position and self._is_at_end():
                break
            following = self._events.peek()
            if following is not None and following.row[0] < engine.position:
                self._missed(following)
            if self._loaded is None:
                self._fail("no vCPU is on a physical CPU, yet the run goes on", Cause.DECISION, following)
            decision = self._events.next_decision(engine.position)
            limit = self._end_position if decision is None else min(decision, self._end_position)
            if engine.position >= limit:
                limit = NEVER if self._end_reason in _STUCK_ENDS else engine.position + 1
            self._step(limit)
            if self._on_progress is not None and engine.position - told > 20_000_000:
                told = engine.position
                self._on_progress(told)
        self._finish()

    def _is_at_end(self) -> bool:
        if self.options.to_position is not None and not self._is_whole:
            return True
        return self._events.peek() is None

    def _settle(self) -> None:
        """Give the engine to the vCPU of the last `run` row. Not before it must execute: a switch clears the exclusive monitor, and
        where several `run` rows stand at one position the recording never switched."""
        if self._entering is not None:
            self.board.enter(*self._entering)
            self._entering = None

    def _step(self, limit: int) -> None:
        self._settle()
        before = self.board.engine.position
        reason = self.board.run(limit, NEVER)
        self._vtime_ns = max(self._vtime_ns, self.board.engine.now_ns())
        if reason is StopReason.HYPERCALL:
            self._hypercall()
        elif reason is StopReason.WFI:
            self._wait()
        elif reason in (StopReason.LOCKUP, StopReason.ERROR):
            if self._end_reason not in _STUCK_ENDS or self.board.engine.position != self._end_position:
                what = "locks up in exceptions" if reason is StopReason.LOCKUP else "stops with an engine error"
                self._fail(f"the replayed guest {what}", Cause.DRIFT, self._events.peek())
            self._apply_final_states()
        elif reason is StopReason.LIMIT and limit == before + 1 and self.board.engine.position > self._end_position:
            self._fail("the run goes on behind the recorded end", Cause.DRIFT, self._events.peek())

    def _finish(self) -> None:
        self.board.engine.close_run()
        self.board.drain_all()
        if not self._is_whole:
            return
        self.board.console.close()
        for thick in self._thick.values():
            left = thick.rest()
            if left is not None:
                self._missed(Event(thick.table, left))

    # --- decisions -------------------------------------------------------------------------------------------------------------------

    def _apply_here(self, position: int) -> None:
        """Apply recorded decisions as long as the next event is one and stands at this position."""
        while True:
            event = self._events.peek()
            if event is None or event.row[0] != position or not is_decision(event):
                return
            if position >= self._end_position and not self._is_whole:
                return
            if event.table == "states" and self._is_stuck_end(position):
                return  # compared once the guest is stuck again
            if not self._apply(event):
                return

    def _is_stuck_end(self, position: int) -> bool:
        return self._end_reason in _STUCK_ENDS and self._is_whole and position == self._end_position

    def _apply_final_states(self) -> None:
        while (event := self._events.peek()) is not None and event.table == "states":
            self._apply(event)

    def _apply(self, event: Event) -> bool:
        """Carry one decision out; False if it cannot be yet, because the guest has to act first."""
        position, _, ns, vcpu = event.row[:4]
        self._vtime_ns = max(self._vtime_ns, ns)
        table, board = event.table, self.board
        if table == "interrupts":
            return self._apply_interrupt(event)
        if table == "schedule":
            if event.row[8] in _BY_THE_GUEST and event.row[5] in ("block", "offline", "poll") and not self._guest_acted:
                return False
            self._copy(event)
            if event.row[5] == "run" and vcpu is not None:
                if not 0 <= vcpu < board.config.vcpu_count:
                    raise TraceDamaged(f"{self._trace.path}: schedule names vCPU {vcpu}")
                self._entering = (vcpu, ns)
                self._loaded = vcpu
            elif vcpu is not None and vcpu == self._loaded:
                self._loaded = None
            return True
        with board.at(position, ns):
            if table == "memory_writes":
                _, ipa, size, value, _, cause = event.row[4:]
                if not 1 <= size <= 8:
                    self._fail(f"a recorded host write of {size} bytes cannot be one store", Cause.DECISION, event)
                try:
                    board.host_store(ipa, size, value, cause, vcpu)
                except (GuestFault, OverflowError) as error:
                    self._fail(f"a recorded host write cannot be applied ({error})", Cause.DECISION, event)
            elif table == "inputs":
                self._copy(event)
                board.receive(event.row[5])
            elif table == "states":
                self._states(event)
            elif table == "pvtime":  # a view of what the host writes made
                try:
                    fields = board.pv_fields(event.row[5])
                except (GuestFault, OverflowError) as error:
                    self._fail(f"there is no structure at {event.row[5]:#x} ({error})", Cause.DECISION, event)
                board.emit("pvtime", vcpu, event.row[4], event.row[5], *fields)
            else:  # directives
                self._copy(event)
                self._direct(event)
        return True

    def _direct(self, event: Event) -> None:
        """What a directive does to the machine itself; the others are the host's and the hypervisor's."""
        kind, size, value = event.row[4], event.row[6], event.row[7]
        if kind == "snapshot":
            self._settle()
            self.board.console.close()
            if size == 1:
                if len(self._snapshots) >= SNAPSHOTS_MAX:
                    raise TraceDamaged(f"{self._trace.path}: directives: more than {SNAPSHOTS_MAX} snapshots that are kept")
                self._snapshots[value] = self.board.save(), tuple(self._sgis)
        elif kind == "restore" and event.row[3] is None and size == 1:
            if value not in self._snapshots:
                raise TraceDamaged(f"{self._trace.path}: directives: no snapshot {value} was kept")
            state, sgis = self._snapshots[value]
            self.board.roll_back(state)
            self._sgis = list(sgis)
        elif kind == "reset" and event.row[3] is not None:
            if event.row[3] >= self.board.config.vcpu_count:
                raise TraceDamaged(f"{self._trace.path}: directives: a reset of vCPU {event.row[3]}, which there is not")
            with self.board.at(event.row[0], event.row[2]):
                self.board.power_on(event.row[3], self._entry, self._x0)
        elif kind == "reset":
            self.board.reset(self._images(), self._entry, self._x0)
            self._sgis.clear()

    def _apply_interrupt(self, event: Event) -> bool:
        position, _, ns, vcpu, kind, intid, _ = event.row
        board = self.board
        if vcpu is None or not 0 <= vcpu < board.config.vcpu_count:
            return False
        if kind == "take":
            self._settle()
            if vcpu != self._loaded or board.engine.irq_masked() or not board.gic.line(vcpu):
                why = (
                    "the vCPU is not running"
                    if vcpu != self._loaded
                    else "interrupts are masked"
                    if board.engine.irq_masked()
                    else "no interrupt is pending"
                )
                self._fail(f"the recorded interrupt {intid} cannot be taken here: {why}", Cause.DECISION, event)
            board.take_interrupt()
            return True
        with board.at(position, ns):
            if intid in TIMER_PPIS:
                which = TIMER_PPIS.index(intid)
                timer = board.engine.state.timer[vcpu][which]
                if timer.asserted or timer.ctl & 3 != 1 or timer.cval << 4 > ns:
                    return False
                board.update_timer(vcpu, which, ns)
                return True
            on_its_way = [sgi for sgi in self._sgis if sgi[2] == vcpu and sgi[3] == intid]
            if not on_its_way:
                return False
            sgi = min(on_its_way, key=lambda one: one[0])
            self._sgis.remove(sgi)
            board.land_sgi(sgi[1], vcpu, intid)
        return True

    def _copy(self, event: Event) -> None:
        """A decision is part of the replayed run as it stands."""
        self.board.emit_at(event.table, event.row[0], event.row[2], event.row[3], *event.row[4:])

    def _states(self, event: Event) -> None:
        scope, _, _, memory = event.row[4:]
        board, vcpu = self.board, event.row[3]
        board.mark()
        if scope == "vcpu" and vcpu is not None and 0 <= vcpu < board.config.vcpu_count:
            board.emit("states", vcpu, "vcpu", board.registers(vcpu).digest(), None, None)
        else:
            devices = hashlib.sha256(board.device_bytes()).digest()
            board.emit("states", None, "board", None, devices, board.memory.digest() if memory is not None else None)
            self._last_check = event.row[0]

    # --- what the guest does -----------------------------------------------------------------------------------------------------------

    def _hypercall(self) -> None:
        board = self.board
        call = board.hypercall()
        event = self._events.peek()
        recorded = event.row if event is not None and event.table == "hypercalls" else None
        with board.at(call.position, call.ns):
            number = board.sequence(call.position)
            ret = recorded[18:22] if recorded is not None else (0, 0, 0, 0)
            function = recorded[9] if recorded is not None else None
            board.finish_hypercall(call, number, ret, function)
            if call.x[0] & 0xFFFF_FFFF in CPU_ON and ret[0] == 0:
                target = call.x[1] & 0xFF
                if target < board.config.vcpu_count:
                    mask = NEVER * 4 - 1 if call.x[0] >> 30 & 1 else 0xFFFF_FFFF
                    board.power_on(target, call.x[2] & mask, call.x[3] & mask)
            self._apply_effects(call.position)

    def _apply_effects(self, position: int) -> None:
        self._guest_acted = True
        self._apply_here(position)
        self._guest_acted = False

    def _wait(self) -> None:
        """WFI: the recorded vCPU must have gone to sleep here too."""
        board, engine = self.board, self.board.engine
        position = engine.position - 1
        event = self._events.peek()
        sleeps = (
            event is not None
            and event.table == "schedule"
            and event.row[0] == position
            and event.row[3] == engine.vcpu
            and event.row[5] in ("block", "poll")
        )
        if not sleeps:
            self._fail("the replayed vCPU waits for an interrupt (WFI), the recorded one does not", Cause.DRIFT, event)
        with board.at(position, engine.now_ns()):
            self._apply_effects(position)

    # --- the board's director ---------------------------------------------------------------------------------------------------------------

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        """It lands where the trace says it did."""
        event = self._events.peek()
        position, _ = self.board.here()
        if event is not None and event.table == "interrupts" and event.row[0] == position:
            if event.row[3:6] == (target, "assert", intid):
                return int(event.row[2])
        self._sgis.append((at_ns, source, target, intid))
        return None

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        """Who wakes, and when, stands in the trace."""

    # --- the board's sink: comparing ------------------------------------------------------------------------------------------------------------

    def row(self, table: str, row: Row) -> None:
        """One replayed event against the next recorded one."""
        replayed = Event(table, row)
        if table == "console":
            self._compare_console(replayed)
        else:
            recorded = self._events.peek()
            if recorded is None or recorded.table != table or recorded.row != row:
                self._differs(recorded, replayed)
            self._agree(self._events.take())
        if self._writer is not None:
            self._writer.append(table, row)

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        """A byte of a console row: compared at once, not when its row is whole."""
        if index == 0:
            recorded = self._events.peek()
            if recorded is None or recorded.table != "console" or recorded.row[:4] != row:
                self._differs(recorded, Event("console", (*row, bytes((byte,)))))
            self._console = self._events.take()
        assert self._console is not None
        data = self._console.row[4]
        if index >= len(data):
            if self._trace.manifest.get("recovered") and self._events.peek() is None:
                return
            self._differs(self._console, Event("console", (*row, data + bytes((byte,)))))
        elif data[index] != byte:
            self._differs(self._console, Event("console", (*row, data[:index] + bytes((byte,)))))

    def _compare_console(self, replayed: Event) -> None:
        recorded, self._console = self._console, None
        if recorded is None or recorded.row != replayed.row:
            self._differs(recorded, replayed)
        else:
            self._agree(recorded)

    def thick_rows(self, table: str, columns: native.Columns, count: int) -> None:
        """Captured rows against recorded ones, where that level was recorded."""
        buffers = thick_buffers(table, columns, count)
        number = next(n for n, name in THICK_TABLES.items() if name == table)
        if number in self._thick:
            difference = self._thick[number].compare(buffers, count)
            if difference is not None:
                recorded, replayed = difference
                self._differs(
                    Event(table, recorded) if recorded is not None else None,
                    Event(table, replayed) if replayed is not None else None,
                )
        if self._writer is not None:
            self._writer.extend(table, buffers, count)

    def _agree(self, event: Event) -> None:
        self._before.append(event)

    # --- telling the difference --------------------------------------------------------------------------------------------------------------------

    def _differs(self, recorded: Event | None, replayed: Event | None) -> None:
        """Errors: always."""
        if recorded is not None and replayed is not None and recorded.table == replayed.table:
            fields = differing_fields(recorded.table, recorded.row, replayed.row)
            names = ", ".join(one.name for one in fields)
            what = f"{replayed.table}: {names} {'differs' if len(fields) == 1 else 'differ'}"
        else:
            fields = (Field("event", recorded.table if recorded else None, replayed.table if replayed else None),)
            mine = f"a {recorded.table} event" if recorded else "nothing more"
            theirs = f"a {replayed.table} event" if replayed else "nothing more"
            what = f"recorded: {mine}; replayed: {theirs}"
        self._raise(what, Cause.DRIFT, fields, recorded, replayed)

    def _missed(self, recorded: Event) -> None:
        self._raise(
            f"a recorded {recorded.table} event did not happen",
            Cause.DECISION if is_decision(recorded) else Cause.DRIFT,
            (Field("event", recorded.table, None),),
            recorded,
            None,
        )

    def _fail(self, what: str, cause: Cause, recorded: Event | None) -> None:
        self._raise(what, cause, (), recorded, None)

    def _raise(self, what: str, cause: Cause, fields: tuple[Field, ...], recorded: Event | None, replayed: Event | None) -> None:
        if cause is Cause.DRIFT and self.warnings:
            cause = Cause.ENGINE
        rows = [event.row for event in (recorded, replayed) if event is not None]
        position = min((row[0] for row in rows), default=self.board.engine.position)
        example = rows[-1] if rows else None
        raise _Diverged(
            Divergence(
                position=position,
                vtime_ns=example[2] if example else self._vtime_ns,
                vcpu=example[3] if example else self._loaded,
                pc=self._pc_of(replayed) or self.board.engine.pc(),
                what=what,
                cause=cause,
                fields=fields,
                recorded=recorded,
                replayed=replayed,
                before=tuple(self._before),
                last_check_position=self._last_check,
            )
        )

    @staticmethod
    def _pc_of(event: Event | None) -> int | None:
        if event is None:
            return None
        pc = event.as_dict().get("pc")
        return int(pc) if pc is not None else None

    def _first(self, found: Divergence) -> Divergence:
        """Thick rows are compared in bulk: one that differs earlier is the first divergence."""
        try:
            self.board.drain_all()
        except _Diverged as thick:
            if thick.divergence.position < found.position:
                return thick.divergence
        return found


def output_manifest(trace: Trace, capture: str) -> dict[str, Any]:
    """The manifest of a trace that a replay writes: the same run, perhaps with thicker columns."""
    manifest = {
        key: value for key, value in trace.manifest.items() if key not in ("digest", "tables", "complete", "end", "images")
    }
    manifest["scenario"] = {**manifest["scenario"], "capture": capture}
    return manifest


def replay_to(trace: Trace, writer: TraceWriter, options: ReplayOptions, on_progress: Callable[[int], None] | None) -> Result:
    """Replay and write what is seen as a new trace; it is closed only if the replay was identical.

    Errors: TraceDamaged, DiskError.
    """
    try:
        for image in trace.manifest["images"]:
            writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
        writer.set()
        session = Replay(trace, replace(options), writer=writer, on_progress=on_progress)
        result = session.run()
    except TracekitError:
        writer.abandon()
        raise
    if result.is_identical and result.is_whole:
        writer.close(trace.manifest["end"])
    else:
        writer.abandon()
    return result
