"""Recording: the host model decides, the board runs, the writer keeps.

One loop owns the control flow: ask the host what comes next, do it, tell the host what came of it.
Spec: formats/SPEC.md "Time"; DESIGN: a trace is complete even when the run ends badly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from tracekit.formats.writer import TraceWriter
from tracekit.host.config import Directive
from tracekit.host.simulation import Alarm, Deadlock, Enter, Host, Told, Transition
from tracekit.hypervisor import Hypervisor
from tracekit.hypervisor.effects import PowerOff, PowerOn, Standby, SystemOff, SystemReset
from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.hypervisor import placements
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PvEvent
from tracekit.hypervisor.smccc import Hypercall, result
from tracekit.machine.board import Board, BoardConfig
from tracekit.machine.digests import emit_states
from tracekit.machine.engine import EngineConfig, StopReason
from tracekit.machine.loader import LoadedGuest
from tracekit.recorder.checkpoints import SPACING_MIN, Checkpointer
from tracekit.recorder.faults import FaultRaised
from tracekit.recorder.scenario import Input, Scenario
from tracekit.recorder.sink import WriterSink
from tracekit.recorder.vmm import Resume, Sgi, Snapshot, Vmm

STATES_EVERY_NS = 10_000_000
COMMIT_EVERY_NS = 100_000_000
NEVER = 1 << 62
FAULT_CALL_NS_MIN = 1_000  # a fault is not called again before that, so that a run goes on
_LEAVING = frozenset({"preempt", "block", "yield", "pause", "offline", "throttle", "suspend"})
_TOLD = frozenset({"migrate", "online", "offline"})  # schedule events that faults are told of, as of directives


class EndReason(Enum):
    """How a recording ended; `is_good` decides between exit codes 0 and 1."""

    POWER_OFF = "power_off"
    RESET = "reset"
    LIMIT_VTIME = "limit_vtime"
    LIMIT_INSTRUCTIONS = "limit_instructions"
    INTERRUPTED = "interrupted"
    PANIC = "panic"
    DEADLOCK = "deadlock"
    LOCKUP = "lockup"
    ENGINE_ERROR = "engine_error"
    FAULT_RAISED = "fault_raised"

    @property
    def is_good(self) -> bool:
        """Whether the guest got where it or the user wanted."""
        return self in (EndReason.POWER_OFF, EndReason.RESET, EndReason.LIMIT_VTIME, EndReason.LIMIT_INSTRUCTIONS)


@dataclass(frozen=True, slots=True)
class End:
    """How and where a recording ended. position in instructions, vtime in ns."""

    reason: EndReason
    position: int
    vtime_ns: int
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress display shows; told at each commit."""

    position: int
    vtime_ns: int


@dataclass(frozen=True, slots=True)
class _TimerAlarm:
    vcpu: int


@dataclass(frozen=True, slots=True)
class _SgiAlarm:
    at_ns: int
    source: int
    target: int
    intid: int
    number: int


@dataclass(frozen=True, slots=True)
class _InputAlarm:
    index: int


@dataclass(frozen=True, slots=True)
class _FaultAlarm:
    vcpu: int


class _GuestMemory:
    """Guest memory as the hypervisor uses it: every store becomes a memory_writes row."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.vcpu: int | None = None

    def read(self, ipa: int, size: int) -> int:
        return self._board.memory.read(ipa, size)

    def store(self, ipa: int, size: int, value: int, cause: str) -> None:
        self._board.host_store(ipa, size, value, cause, self.vcpu)


class Recording:
    """One run of a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        guest: LoadedGuest,
        writer: TraceWriter | None,
        on_progress: Callable[[Progress], None] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.scenario = scenario
        self._writer = writer
        self._on_progress = on_progress
        sink = WriterSink(writer, self._console_byte) if writer is not None else _NoSink(self._console_byte)
        self.board = Board(board_config(scenario, faults), sink, self)
        self.board.load(guest.segments)
        self._checkpointer = self._begin_checkpoints(guest) if writer is not None and scenario.checkpoints else None
        self.board.engine.reset_vcpu(0, guest.entry, guest.x0)
        self.host = Host(scenario.host, scenario.vcpus, scenario.seed, self._transition, self._host_told)
        self._memory = _GuestMemory(self.board)
        self.hypervisor = Hypervisor(
            scenario.hypervisor, scenario.vcpus, self._memory, self.host.clock_ns, self._pv_event, self._is_online, self, faults
        )
        self.online = [vcpu == 0 for vcpu in range(scenario.vcpus)]
        self._vmm = Vmm(self, guest, scenario.ram, scenario.host.directives)
        self._end: tuple[EndReason, str | None] | None = None
        self._turn_vcpu: int | None = None  # whom the last `run` row named
        self._states_due = STATES_EVERY_NS
        self._commit_due = COMMIT_EVERY_NS
        self._vtime_max = 0
        self._console_tail = bytearray()
        self._panic = scenario.panic_text.encode()
        self._timer_alarms: dict[int, _TimerAlarm] = {}
        self._sgi_alarms: dict[int, _SgiAlarm] = {}  # by number
        self._sgi_number = 0
        self._replan_wanted = False
        self._asked_ns = NEVER  # when a fault wants to be called
        self.interrupted = False

    def _begin_checkpoints(self, guest: LoadedGuest) -> Checkpointer | None:
        every, limit = self.scenario.checkpoint_every, self.scenario.max_instructions
        if limit is not None and limit < (every or SPACING_MIN):
            return None  # there would be none
        assert self._writer is not None
        return Checkpointer(self, self._writer, every, sum(len(data) for _, data in guest.segments))

    # --- the loop ----------------------------------------------------------------------------------------------------------------

    def run(self) -> End:
        """Run to the end, whatever that is; every row has been handed to the writer when this returns."""
        for index, one in enumerate(self.scenario.inputs):
            self.host.call_at(one.at_ns, _InputAlarm(index))
        try:
            with self._at_time(0):
                self._vmm.set_up()
                self.host.start()
            while self._end is None:
                if self.interrupted:
                    self._end = (EndReason.INTERRUPTED, None)
                    break
                self._step()
        except FaultRaised as raised:
            self._end = (EndReason.FAULT_RAISED, str(raised))
        except KeyboardInterrupt:
            self._end = (EndReason.INTERRUPTED, None)
        return self._finish()

    def _step(self) -> None:
        match self.host.next():
            case Enter() as enter:
                if not self._is_over_time(enter.now_ns):
                    self._enter(enter)
            case Alarm() as alarm:
                if not self._is_over_time(alarm.at_ns):
                    self._vtime_max = max(self._vtime_max, alarm.at_ns)
                    self._alarm(alarm)
            case Deadlock() as deadlock:
                limit = self.scenario.max_vtime_ns
                self._vtime_max = max(self._vtime_max, deadlock.at_ns)
                if limit is not None:  # time would pass until the limit, with everybody asleep
                    self._vtime_max = max(self._vtime_max, limit)
                    self._end = (EndReason.LIMIT_VTIME, "every vCPU sleeps and nothing can wake one")
                else:
                    self._end = (EndReason.DEADLOCK, "every vCPU sleeps and nothing can wake one")

    def _is_over_time(self, now_ns: int) -> bool:
        limit = self.scenario.max_vtime_ns
        if limit is None or now_ns < limit:
            return False
        self._vtime_max = max(self._vtime_max, limit)
        self._end = (EndReason.LIMIT_VTIME, None)
        return True

    def _enter(self, enter: Enter) -> None:
        board, vcpu = self.board, enter.vcpu
        board.enter(vcpu, enter.now_ns)
        if vcpu != self._turn_vcpu or enter.resumes:  # the last `run` row was another's, or earlier: the engine's turn passes
            board.emit_at("schedule", board.engine.position, enter.now_ns, vcpu, vcpu, "run", enter.pcpu, None, "turn")
            self._turn_vcpu = vcpu
        self._asked_ns = NEVER
        if enter.loaded:
            self._drop_timer_alarm(vcpu)
            self._memory.vcpu = vcpu
            self.hypervisor.publish(vcpu)
            board.update_timers(vcpu, enter.now_ns)
        self._mark(enter.now_ns)
        horizon = min(enter.horizon_ns, self._asked_ns, self._states_due, self.scenario.max_vtime_ns or NEVER)
        self._run(vcpu, horizon)

    def _run(self, vcpu: int, horizon_ns: int) -> None:
        board = self.board
        limit = self.scenario.max_instructions or NEVER
        if self.scenario.host.yields_on_wfe:
            board.engine.stop_at_wfe(not self.host.is_alone(vcpu))
        while True:
            reason = board.run(limit, horizon_ns)
            now = board.local_ns[vcpu]
            if reason is StopReason.INTERRUPT:
                board.take_interrupt()
                continue
            if reason is StopReason.WFE:
                with self._at_time(now):
                    self.host.yield_(vcpu, now, "wfe")
                break
            if reason is StopReason.HYPERCALL:
                self._hypercall()
                if self._end is not None or self._replan_wanted:
                    self._replan_wanted = False
                    if self.host.is_running(vcpu):
                        self.host.ran(vcpu, board.engine.now_ns())
                    return
                continue
            break
        self._vtime_max = max(self._vtime_max, now)
        if reason is StopReason.WFI:
            self._block(vcpu, now, "wfi")
            return
        if reason is StopReason.WFE:
            return
        self.host.ran(vcpu, now)
        if reason is StopReason.LOCKUP:
            self._end = (EndReason.LOCKUP, f"exceptions without end at pc {int(board.engine.state.fault_pc):#x}")
        elif reason is StopReason.ERROR:
            error, pc = int(board.engine.state.engine_error), int(board.engine.state.fault_pc)
            self._end = (EndReason.ENGINE_ERROR, f"engine error {error} at pc {pc:#x}")
        elif board.engine.position >= limit:
            self._end = (EndReason.LIMIT_INSTRUCTIONS, None)

    def _block(self, vcpu: int, now_ns: int, reason: str) -> None:
        position = self.board.engine.position
        with self.board.at(position - 1, now_ns):
            self.host.block(vcpu, now_ns, reason)
        self._arm_timer_alarm(vcpu)
        if self.board.gic.line(vcpu):
            self.host.wake(vcpu, now_ns, "interrupt")

    def _alarm(self, alarm: Alarm) -> None:
        with self._at_time(alarm.at_ns):
            match alarm.token:
                case _TimerAlarm(vcpu):
                    self._timer_alarms.pop(vcpu, None)
                    self.board.update_timers(vcpu, alarm.at_ns)
                    if self.host.is_blocked(vcpu):
                        self._arm_timer_alarm(vcpu)
                case _SgiAlarm(_, source, target, intid, number):
                    del self._sgi_alarms[number]
                    self.board.land_sgi(source, target, intid)
                case _FaultAlarm(vcpu):
                    self._memory.vcpu = vcpu
                    self.hypervisor.due(vcpu)
                case Directive() as directive:
                    self._vmm.direct(directive, alarm.at_ns)
                    self._turn_vcpu = None
                case Resume():
                    self.host.resume_all(alarm.at_ns)
                case _InputAlarm(index):
                    one: Input = self.scenario.inputs[index]
                    self.board.emit("inputs", None, "uart", one.data)
                    self.board.receive(one.data)

    @contextmanager
    def _at_time(self, ns: int) -> Iterator[None]:
        with self.board.at(self.board.engine.position, ns):
            yield

    # --- what the host and the hypervisor tell ----------------------------------------------------------------------------------------

    def _transition(self, t: Transition) -> None:
        position, _ = self.board.here()
        if t.event == "run" and t.vcpu is not None:
            self._turn_vcpu = t.vcpu
        elif t.vcpu is not None and t.event in _LEAVING:
            self._tell_faults(position, t, partial(self.hypervisor.left, t.vcpu, t.event))
        self.board.emit_at("schedule", position, t.vtime_ns, t.vcpu, t.thread, t.event, t.pcpu, t.from_pcpu, t.reason)
        if t.vcpu is not None and t.event in _TOLD:
            self._tell_faults(position, t, partial(self.hypervisor.told, t.event, t.vcpu, None))

    def _tell_faults(self, position: int, t: Transition, hook: Callable[[], None]) -> None:
        """A hook that raises ends the run once what the host is about is done, so that its rows stand in the trace."""
        try:
            with self.board.at(position, t.vtime_ns):
                hook()
        except FaultRaised as raised:
            self._end = self._end or (EndReason.FAULT_RAISED, str(raised))

    def _host_told(self, told: Told) -> None:
        position, _ = self.board.here()
        with self.board.at(position, told.at_ns):
            self._vmm.tell(told.kind, told.vcpu, size=told.size, value=told.value)

    def _pv_event(self, e: PvEvent) -> None:
        self.board.emit("pvtime", e.vcpu, e.event, e.ipa, e.stolen_ns, e.revision, e.attributes)

    def now_ns(self) -> int:
        """The time of what is being told."""
        return self.board.here()[1]

    def call_at(self, vcpu: int, at_ns: int) -> None:
        """A fault will be called then, also where the guest would have been left to run for longer."""
        at_ns = max(at_ns, self.now_ns() + FAULT_CALL_NS_MIN)
        self._asked_ns = min(self._asked_ns, at_ns)
        self._replan_wanted = True
        self.host.call_at(at_ns, _FaultAlarm(vcpu), vcpu=vcpu)

    def acts(self, fault_index: int, vcpu: int) -> None:
        """A fault says that it acts."""
        self.board.emit("directives", vcpu, "fault", None, None, fault_index, None)

    def _is_online(self, vcpu: int) -> bool:
        return self.online[vcpu]

    # --- hypercalls ---------------------------------------------------------------------------------------------------------------------

    def _hypercall(self) -> None:
        board = self.board
        call = board.hypercall()
        with board.at(call.position, call.ns):
            number = board.sequence(call.position)
            self._memory.vcpu = call.vcpu
            try:
                outcome = self.hypervisor.call(Hypercall(call.vcpu, call.conduit, call.immediate, call.pc, call.el, call.x))
            except FaultRaised as raised:  # the call is told all the same, so that the trace stays whole
                outcome, self._end = result(-1), (EndReason.FAULT_RAISED, str(raised))
            board.finish_hypercall(call, number, outcome.ret, self.hypervisor.name(call.x[0] & 0xFFFF_FFFF))
            now = board.engine.now_ns()
            match outcome.effect:
                case PowerOn(vcpu, entry, context):
                    board.power_on(vcpu, entry, context)
                    self.online[vcpu] = True
                    self.host.online(vcpu, now, "power_on")
                    self._replan_wanted = True
                case PowerOff():
                    self.online[call.vcpu] = False
                    self.host.offline(call.vcpu, now, "power_off")
                    self._replan_wanted = True
                case Standby():
                    if not board.gic.line(call.vcpu):
                        self.host.block(call.vcpu, now, "suspend")
                        self._arm_timer_alarm(call.vcpu)
                        self._replan_wanted = True
                case SystemOff():
                    self._end = (EndReason.POWER_OFF, None)
                case SystemReset():
                    self._end = (EndReason.RESET, None)
        self._vtime_max = max(self._vtime_max, now)

    # --- the board's director -------------------------------------------------------------------------------------------------------------

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        """An SGI takes effect at the later of the sender's and the target's time."""
        if self.host.is_running(target) and self.host.local_ns(target) < at_ns:
            self._sgi_later(at_ns, source, target, intid)
            return None
        return max(at_ns, self.host.local_ns(target))

    def _sgi_later(self, at_ns: int, source: int, target: int, intid: int) -> None:
        self._sgi_number += 1
        alarm = _SgiAlarm(at_ns, source, target, intid, self._sgi_number)
        self._sgi_alarms[alarm.number] = alarm
        self.host.call_at(at_ns, alarm, vcpu=target)

    def pending_sgis(self) -> tuple[Sgi, ...]:
        """SGIs on their way."""
        return tuple((one.at_ns, one.source, one.target, one.intid) for one in self._sgi_alarms.values())

    def kept_snapshots(self) -> Sequence[Snapshot]:
        """Snapshots that a restore may ask for, in the order in which they were taken."""
        return self._vmm.kept_snapshots()

    def replace_sgis(self, sgis: Sequence[Sgi], now_ns: int) -> None:
        """Those on their way are forgotten, these are: none lands before now_ns."""
        for alarm in self._sgi_alarms.values():
            self.host.cancel(alarm)
        self._sgi_alarms.clear()
        for at_ns, source, target, intid in sgis:
            self._sgi_later(max(at_ns, now_ns), source, target, intid)

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        """A sleeping vCPU wakes; a vCPU that runs elsewhere sees it when its turn comes."""
        if self.host.is_blocked(vcpu):
            self.host.wake(vcpu, at_ns, "interrupt")
            self.board.engine.request_stop()

    # --- timers of sleeping vCPUs --------------------------------------------------------------------------------------------------------

    def _arm_timer_alarm(self, vcpu: int, not_before_ns: int = 0) -> None:
        due = self.board.timer_due_ns(vcpu)
        if due is not None:
            token = _TimerAlarm(vcpu)
            self._timer_alarms[vcpu] = token
            self.host.call_at(max(due, not_before_ns), token, vcpu=vcpu)

    def rearm_timers(self, now_ns: int) -> None:
        """The machine is another: what sleeps is woken by the timers that it has now, at once where they are due."""
        for vcpu in range(self.scenario.vcpus):
            self._drop_timer_alarm(vcpu)
            if self.online[vcpu] and self.host.is_asleep(vcpu):
                self._arm_timer_alarm(vcpu, now_ns)
                if self.board.gic.line(vcpu):
                    self.host.wake(vcpu, now_ns, "interrupt")

    def _drop_timer_alarm(self, vcpu: int) -> None:
        token = self._timer_alarms.pop(vcpu, None)
        if token is not None:
            self.host.cancel(token)

    # --- marks ------------------------------------------------------------------------------------------------------------------------------

    def _mark(self, now_ns: int) -> None:
        """States every 10 ms of virtual time, a commit every 100 ms."""
        self._vtime_max = max(self._vtime_max, now_ns)
        if now_ns >= self._states_due:
            emit_states(self.board, with_memory=False)
            if self._checkpointer is not None:
                self._checkpointer.at_mark(self._vtime_max)
            self._states_due = (now_ns // STATES_EVERY_NS + 1) * STATES_EVERY_NS
        if now_ns >= self._commit_due:
            self._commit_due = (now_ns // COMMIT_EVERY_NS + 1) * COMMIT_EVERY_NS
            self._commit()

    def _commit(self) -> None:
        board = self.board
        position = board.engine.position
        board.drain_all()
        if self._writer is not None:
            open_row = board.console.open_row()
            rows = {"console": [open_row]} if open_row is not None else {}
            self._writer.commit(position, int(board.engine.state.sequence_next), self._vtime_max, rows)
        if self._on_progress is not None:
            self._on_progress(Progress(position, self._vtime_max))

    def _console_byte(self, byte: int) -> None:
        if not self._panic:
            return
        if byte == 0x0A:
            if self._panic in self._console_tail:
                text = self._console_tail.decode("utf-8", "replace").strip()
                self._end = self._end or (EndReason.PANIC, text)
                self.board.engine.request_stop()
            self._console_tail.clear()
        elif len(self._console_tail) < 1024:
            self._console_tail.append(byte)

    def _finish(self) -> End:
        board = self.board
        assert self._end is not None
        board.engine.close_run()
        board.drain_all()
        board.console.close()
        position = board.engine.position
        with board.at(position, self._vtime_max):
            emit_states(board, with_memory=True)
        reason, detail = self._end
        return End(reason, position, self._vtime_max, detail)


class _NoSink:
    """Runs without recording: the floor that a benchmark compares against."""

    def __init__(self, on_console: Callable[[int], None]) -> None:
        self._on_console = on_console

    def row(self, table: str, row: tuple[Any, ...]) -> None:
        pass

    def console_byte(self, row: tuple[Any, ...], index: int, byte: int) -> None:
        self._on_console(byte)

    def thick_rows(self, table: str, columns: Any, count: int) -> None:
        pass

    def thick_buffer(self, table: str, columns: Any, count: int, release: Callable[[], None]) -> None:
        try:
            self.thick_rows(table, columns, count)
        finally:
            release()


def board_config(scenario: Scenario, faults: Sequence[Fault] = ()) -> BoardConfig:
    """The board that a scenario asks for."""
    structures = tuple(sorted({ipa for places in placements(scenario.hypervisor, scenario.vcpus, faults) for ipa in places}))
    profile = PROFILES[scenario.hypervisor.profile]
    return BoardConfig(
        vcpu_count=scenario.vcpus,
        ram_size=scenario.ram,
        ns_numerator=scenario.ns_per_instruction[0],
        ns_denominator=scenario.ns_per_instruction[1],
        exit_cost_ns=scenario.exit_cost_ns,
        pv_structures=structures,
        smc="undefined" if profile.smc == "undefined" else "call",
        engine=EngineConfig(
            cpu=scenario.cpu,
            mode=scenario.engine_mode,
            page_size=scenario.engine_page_size,
            counting=scenario.engine_counting,
            stops_at_wfe=scenario.host.yields_on_wfe,
            capture=scenario.capture,
            watches=scenario.watches,
            takes_interrupts=True,
        ),
    )
