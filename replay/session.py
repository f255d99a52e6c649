"""Replaying: decisions come from the trace, everything the guest does is compared as it happens.

The host model is not here. One loop owns the control flow; decisions.py carries out, comparison.py compares, difference.py tells.
Spec: formats/SPEC.md "Replay".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tracekit.formats.captures import WHOLE_AT, is_whole, whole_stretch
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.formats.thick import ThickComparison
from tracekit.machine.engine import StopReason, version
from tracekit.machine.memory import GuestFault, Page
from tracekit.machine.state import MachineState
from tracekit.replay.checkpoints import CheckpointComparison, Point, read_point
from tracekit.replay.comparison import Comparison
from tracekit.replay.decisions import Decisions
from tracekit.replay.difference import Difference, Diverged
from tracekit.replay.divergence import Cause, Divergence, Result
from tracekit.replay.events import EventStream, is_decision
from tracekit.replay.machine import RecordedMachine
from tracekit.replay.options import ReplayOptions
from tracekit.replay.rows import RowWriter
from tracekit.replay.standing import Standing

NEVER = 1 << 62
CPU_ON = (0x8400_0003, 0xC400_0003)
PROGRESS_EVERY = 20_000_000  # instructions
_STUCK_ENDS = frozenset({"lockup", "engine_error"})


class Replay:
    """One replay of an open trace."""

    def __init__(
        self,
        trace: Trace,
        options: ReplayOptions | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        writer: RowWriter | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_checkpoint: Callable[[int], None] | None = None,
        compares_checkpoints: bool = True,
        events: EventStream | None = None,
    ) -> None:
        """start: number of the checkpoint that is gone on from (None: the beginning); stop: of the one that ends it, once it has agreed.

        events: of the trace, if not a stream of its own. on_progress: told the position now and then. on_checkpoint: told the number of each checkpoint that has agreed.
        Errors: TraceDamaged where the manifest describes no machine that can be built, or the checkpoint none that can be gone on from.
        """
        self.options = options or ReplayOptions()
        self._trace = trace
        self._stop = stop
        self._writes = writer is not None
        self._on_progress, self._on_checkpoint = on_progress, on_checkpoint
        manifest = trace.manifest
        self.machine = RecordedMachine(trace)
        self.checkpoints = trace.checkpoints()
        self.warnings = _engine_warnings(manifest.get("engine", {}))
        self._standing = Standing()
        self._events = EventStream(trace) if events is None else events
        self._difference = Difference(self._events, self._standing, bool(self.warnings))
        capture = self.options.capture or self.machine.recorded_capture
        stretches = {name: whole_stretch(manifest, name) for name, levels in WHOLE_AT.items() if capture in levels}
        self._compared = {name: one for name, one in stretches.items() if one is not None or is_whole(manifest, name)}
        self._comparison = Comparison(self._events, self._difference, writer, bool(manifest.get("recovered")))
        self._decisions = Decisions(trace.path, self.machine, self._events, self._standing, self._difference)
        self.end_position = int(manifest["end"]["position"])
        self._end_reason = str(manifest["end"].get("reason"))
        self._meets: CheckpointComparison | None = None
        if compares_checkpoints and self.checkpoints.entries:
            latest = int(manifest["end"]["vtime_ns"])
            self._meets = CheckpointComparison(self.checkpoints, self._standing, self._difference, latest)
        self._build(self.options)
        self._origin = Point(-1, None, self.board.save_portable(), Standing())
        self._to = self.end_position if self.options.to_position is None else min(self.options.to_position, self.end_position)
        self._is_short = False  # it is to stop before what is decided at its last position, wherever that is
        self._is_stopped = False  # at the checkpoint `stop`
        self._taken_before = 0  # events of this replay that the stream no longer counts
        self._begun_at = 0
        if start is None:
            self._begin(self._origin)
        else:
            point = self.point(start)
            self.go_on_from(point, dict(self.checkpoints.read(self.checkpoints.table(start))))
            self._begun_at = self.board.engine.position

    def _build(self, options: ReplayOptions) -> None:
        self.board = self.machine.build(options, self._comparison, self._decisions)
        self._difference.board = self._decisions.board = self.board

    # --- where it goes on from ---------------------------------------------------------------------------------------------------------

    def point(self, k: int | None) -> Point:
        """Checkpoint k, or the beginning (None). Errors: TraceDamaged."""
        return self._origin if k is None else read_point(self._trace, self.checkpoints, k, self.board.config.vcpu_count)

    def go_on_from(self, point: Point, pages: Mapping[int, Page]) -> None:
        """Be the machine there; nothing is remembered of what was replayed before. pages: those that differ from the present memory.

        Errors: TraceDamaged.
        """
        try:
            self.board.restore_portable(point.machine, pages)
        except GuestFault as error:
            raise TraceDamaged(f"{self._trace.path}: checkpoint {point.index} does not fit into the machine ({error})") from None
        console = point.machine.console
        self._events.seek(point.place, None if console is None else (console[0], console[1]))
        self._standing.become(point.standing)
        self._begin(point)

    def _begin(self, point: Point) -> None:
        position = point.machine.position
        self._comparison.begin({name: ThickComparison(self._trace, name, position, one) for name, one in self._compared.items()})
        if self._meets is not None:
            self._meets.begin(self.board, point.index + 1)

    # --- the loop ------------------------------------------------------------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """What it knows beside the board."""
        return self._standing

    @property
    def _is_whole(self) -> bool:
        return self._to == self.end_position and not self._is_short

    def run(self) -> Result:
        """Replay to the end (or `to_position`, or the checkpoint `stop`) or to the first divergence.

        Errors: TraceDamaged where the trace cannot be read further.
        """
        divergence: Divergence | None = None
        try:
            self._run()
        except Diverged as diverged:
            divergence = self._first(diverged.divergence)
        return Result(
            divergence,
            self.board.engine.position,
            self._standing.vtime_ns,
            self._taken_before + self._events.taken,
            self._is_whole,
            self.warnings,
            self._begun_at,
        )

    def run_to(self, position: int) -> None:
        """Go on to a position, before whatever is decided there. Errors: Diverged; TraceDamaged."""
        self._to, self._is_short = min(position, self.end_position), True
        self._run()

    def decide_here(self) -> None:
        """Apply what is decided at the present position: the machine is then as its next instruction finds it. Nothing at the end of the
        run. Errors: Diverged; TraceDamaged."""
        position = self.board.engine.position
        if position < self.end_position:
            self._to, self._is_short = self.end_position, True
            self._apply_here(position)
            self._decisions.settle()

    @property
    def place(self) -> tuple[int, int]:
        """(position, sequence) of the next recorded event; behind all where there is none."""
        following = self._events.peek()
        return (NEVER, 0) if following is None else following.row[:2]

    def return_to(self, machine: MachineState, standing: Standing, place: tuple[int, int], pages: Mapping[int, Page]) -> None:
        """Be where this process has been: what board.save_here(), `standing` and `place` were there. pages: those that differ."""
        self.board.restore_here(machine, pages)
        self._events.seek(place, None if machine.console is None else (machine.console[0], machine.console[1]))
        self._standing.become(standing)

    def _run(self) -> None:
        engine = self.board.engine
        told = engine.position
        while not self._is_stopped:
            self._apply_here(engine.position)
            if self._is_stopped:
                return
            if self._meets is not None:
                self._meets.check_not_passed(engine.position)
            if engine.position >= self._to and (not self._is_whole or self._events.peek() is None):
                break
            following = self._events.peek()
            if following is not None and following.row[0] < engine.position:
                self._difference.missed(following)
            if self._standing.loaded is None:
                self._difference.fail("no vCPU is on a physical CPU, yet the run goes on", Cause.DECISION, following)
            decision = self._events.next_decision(engine.position)
            limit = self._to if decision is None else min(decision, self._to)
            if engine.position >= limit:
                limit = NEVER if self._end_reason in _STUCK_ENDS else engine.position + 1
            self._step(limit)
            if self._on_progress is not None and engine.position - told > PROGRESS_EVERY:
                told = engine.position
                self._on_progress(told)
        self._finish()

    def _step(self, limit: int) -> None:
        self._decisions.settle()
        engine = self.board.engine
        before = engine.position
        reason = self.board.run(limit, NEVER)
        self._standing.saw(engine.now_ns())
        if reason is StopReason.HYPERCALL:
            self._hypercall()
        elif reason is StopReason.WFI:
            self._wait()
        elif reason in (StopReason.LOCKUP, StopReason.ERROR):
            if self._end_reason not in _STUCK_ENDS or engine.position != self.end_position:
                what = "locks up in exceptions" if reason is StopReason.LOCKUP else "stops with an engine error"
                self._difference.fail(f"the replayed guest {what}", Cause.DRIFT, self._events.peek())
            self._apply_final_states()
        elif reason is StopReason.LIMIT and limit == before + 1 and engine.position > self._to:
            self._difference.fail("the run goes on behind the recorded end", Cause.DRIFT, self._events.peek())

    def _finish(self) -> None:
        if self._is_whole or self._writes:  # elsewhere the recorded straight run goes on, and is no shorter row
            self.board.engine.close_run()
        self.board.drain_all()
        if self._is_whole:
            self.board.console.close()
            self._comparison.check_thick_is_done()
            if self._meets is not None:
                self._meets.check_not_passed(NEVER)

    def _meet_checkpoint(self) -> None:
        """If the next checkpoint is of this very place, it must agree."""
        if self._meets is None or not self._meets.is_here(self.board):
            return
        self._decisions.settle()
        self.board.drain_all()
        self._comparison.check_thick_is_done(self.board.engine.position)
        index = self._meets.index
        self._meets.compare(self.board)
        if self._on_checkpoint is not None:
            self._on_checkpoint(index)
        self._is_stopped = index == self._stop

    # --- decisions -------------------------------------------------------------------------------------------------------------------

    def _apply_here(self, position: int) -> None:
        """Apply recorded decisions as long as the next event is one and stands at this position."""
        while True:
            event = self._events.peek()
            if event is None or event.row[0] != position or not is_decision(event):
                return
            if position >= self._to and not self._is_whole:
                return
            if event.table == "states" and self._is_stuck_end(position):
                return  # compared once the guest is stuck again
            if not self._decisions.apply(event):
                return
            if event.table == "states":
                self._meet_checkpoint()
                if self._is_stopped:
                    return

    def _is_stuck_end(self, position: int) -> bool:
        return self._end_reason in _STUCK_ENDS and self._is_whole and position == self.end_position

    def _apply_final_states(self) -> None:
        while (event := self._events.peek()) is not None and event.table == "states":
            self._decisions.apply(event)

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
        self._decisions.guest_acted = True
        self._apply_here(position)
        self._decisions.guest_acted = False

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
            what = "the replayed vCPU waits for an interrupt (WFI), the recorded one does not"
            self._difference.fail(what, Cause.DRIFT, event)
        with board.at(position, engine.now_ns()):
            self._apply_effects(position)

    def _first(self, found: Divergence) -> Divergence:
        """Thick rows are compared in bulk: one that differs earlier is the first divergence."""
        try:
            self.board.drain_all()
        except Diverged as thick:
            if thick.divergence.position < found.position:
                return thick.divergence
        return found


def _engine_warnings(engine: dict[str, Any]) -> tuple[str, ...]:
    recorded = engine.get("unicorn")
    if recorded != version():
        return (f"recorded with Unicorn {recorded}, replaying with {version()}: a divergence may be the engine's",)
    return ()
