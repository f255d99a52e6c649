"""Walking through a recorded run, forwards and backwards: look at registers and memory, step, run to a breakpoint or an access.

A place is a position: so many instructions have retired on all vCPUs, and what the host decides there (a switch, an interrupt) has happened,
so that `vcpu` and `pc` are those of the instruction that step() executes; only at the end of the run nothing more is decided. A walk never
writes into the trace, the guest's registers or its memory: everywhere the machine is the recorded one.

Costs: goto() replays from the nearest checkpoint, of the trace or in memory (local.py); a breakpoint costs what the replay of the stretch
costs, and some microseconds for each time that it is reached; watchpoints replay the stretch with capture (accesses.py); a condition alone is
asked before every instruction, some ten microseconds each.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Self

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.machine.memory import GuestFault
from tracekit.replay.accesses import Range, accesses
from tracekit.replay.divergence import Event
from tracekit.replay.local import LocalSession
from tracekit.replay.options import ReplayOptions
from tracekit.replay.recent import events_between
from tracekit.replay.stops import Reason, Stop
from tracekit.replay.translation import NotMapped, translate
from tracekit.replay.who_wrote import Write, who_wrote

LEG = 1_000_000  # instructions between two looks at whether a breakpoint was reached, not more than hits are kept
FIRST_LEG = 4_096
CONDITION_LEG = 4_096  # a condition is looked for backwards over so many at a time
READ_MAX = 64 << 20  # bytes of one read

Condition = Callable[["Walk"], object]
_Hit = tuple[int, Event | None]  # a place, and the access that was made just before it


class Walk:
    """A place inside a trace's run. A context manager; close() gives the machine's memory back.

    Errors of whatever moves: SessionDiverged (ReplayDiverged from watchpoints) where the run is not the recorded one; TraceDamaged.
    """

    def __init__(self, trace: Trace, options: ReplayOptions | None = None, *, owns_trace: bool = False) -> None:
        """It begins at position 0. owns_trace: close() closes the trace too. Errors: TraceDamaged, SessionDiverged."""
        self.trace = trace
        self._owns_trace = owns_trace
        self._session: LocalSession = LocalSession(trace, options)
        self._moved = (0, 0)  # positions between which the last move went

    def close(self) -> None:
        """Nothing can be asked from here on."""
        self._session.close()
        if self._owns_trace:
            self.trace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.trace.path} at position {self.position:,} of {self.end_position:,}: vCPU {self.vcpu}, pc {self.pc:#x}>"

    # --- where it is ---------------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Instructions retired on all vCPUs."""
        return self._session.position

    @property
    def end_position(self) -> int:
        """Where the recording ends."""
        return self._session.end_position

    @property
    def vtime_ns(self) -> int:
        """Virtual time of the vCPU that executes next, ns."""
        return self._session.board.engine.now_ns()

    @property
    def vcpu(self) -> int:
        """The vCPU that executes the next instruction; at the end of the run, the one that executed the last."""
        return self._session.board.engine.vcpu

    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        return self._session.board.engine.pc()

    @property
    def vcpu_count(self) -> int:
        """vCPUs of the guest."""
        return self._session.board.config.vcpu_count

    # --- what is there -------------------------------------------------------------------------------------------------------------

    def registers(self, vcpu: int | None = None) -> dict[str, int]:
        """Registers of a vCPU (default: of `vcpu`) by name, unsigned: x0 to x30, sp, pc, pstate, v0 to v31 (128 bits), fpcr, fpsr, and of
        the system registers those of formats/SPEC.md "Portable state digests" (elr_el1, esr_el1, far_el1, spsr_el1, vbar_el1, ttbr0_el1,
        sctlr_el1 and others), cntv_ctl_el0, cntv_cval_el0, cntp_ctl_el0 and cntp_cval_el0 (ticks of 16 ns).

        Errors: InputError for a vCPU that there is not.
        """
        board, number = self._session.board, self._number(vcpu)
        values = board.registers(number).as_dict()
        vectors = {f"v{n}": values.pop(f"v{n}_lo") | values.pop(f"v{n}_hi") << 64 for n in range(32)}
        timers = board.engine.state.timer[number]
        for name, timer in zip(("cntv", "cntp"), timers, strict=True):
            level = 4 if timer.ctl & 1 and timer.cval << 4 <= self.vtime_ns else 0  # ISTATUS
            values |= {f"{name}_ctl_el0": int(timer.ctl) | level, f"{name}_cval_el0": int(timer.cval)}
        return {**values, **vectors}

    def translate(self, va: int, vcpu: int | None = None) -> int:
        """Physical address of a virtual one, by the tables of a vCPU (default: of `vcpu`). Errors: NotMapped; InputError."""
        return self._translated(va, self._tables(vcpu))[0]

    def read(self, va: int, size: int, vcpu: int | None = None) -> bytes:
        """`size` bytes of memory at a virtual address, as a vCPU (default: `vcpu`) would see them at EL1.

        Errors: NotMapped where a part of it is not memory; InputError.
        """
        _check_size(size)
        registers = self._tables(vcpu)
        out = bytearray()
        while len(out) < size:
            ipa, room = self._translated(va + len(out), registers)
            out += self.read_physical(ipa, min(room, size - len(out)))
        return bytes(out)

    def read_physical(self, ipa: int, size: int) -> bytes:
        """`size` bytes at a physical address: RAM, or the stolen-time page. Errors: NotMapped where no memory is; InputError."""
        _check_size(size)
        try:
            return self._session.board.memory.read_bytes(ipa, size)
        except GuestFault:
            raise NotMapped(f"{ipa:#x}: no memory of {size} bytes at this physical address") from None

    def _tables(self, vcpu: int | None) -> dict[str, int]:
        return self._session.board.registers(self._number(vcpu)).as_dict()

    def _translated(self, va: int, registers: dict[str, int]) -> tuple[int, int]:
        return translate(va, registers, lambda ipa: int.from_bytes(self.read_physical(ipa, 8), "little"))

    def _number(self, vcpu: int | None) -> int:
        number = self.vcpu if vcpu is None else vcpu
        if not 0 <= number < self.vcpu_count:
            raise InputError(f"vCPU {number}: the guest has vCPUs 0 to {self.vcpu_count - 1}")
        return number

    def last_write(self, ipa: int, size: int = 1) -> Write | None:
        """The write before here that a byte of [ipa, ipa + size) (physical) was last changed by, with its position; None: never yet.

        Errors: InputError for what is no memory.
        """
        answer = who_wrote(self.trace, ipa, size=size, before=self.position, limit=1)
        return answer.writes[0] if answer.writes else None

    def next_write(self, ipa: int, size: int = 1) -> Event | None:
        """The first write to [ipa, ipa + size) (physical) that comes, as a row of `memory_writes`; None: it is written no more."""
        ranges = [_range((ipa, size))]
        return next(accesses(self.trace, ranges, (), self.position, self.end_position + 1), None)

    def events(self, begin: int | None = None, end: int | None = None, tables: Iterable[str] | None = None) -> list[Event]:
        """What happened at positions [begin, end), in order, as rows of the trace's tables, those of a capture left out.

        Default: between the places where the last move began and ended, whichever way it went. tables: only of these.
        Errors: TraceDamaged.
        """
        low, high = self._moved
        wanted = None if tables is None else frozenset(tables)
        found = events_between(self.trace, (low if begin is None else begin, 0), high if end is None else end)
        return [event for event in found if wanted is None or event.table in wanted]

    # --- moving ----------------------------------------------------------------------------------------------------------------------

    def goto(self, position: int) -> Stop:
        """Be at a position; one outside the run is its start or its end."""
        return self._go(position, Reason.STEP)

    def step(self, count: int = 1) -> Stop:
        """So many instructions forwards, or backwards if negative; less far at the start or the end of the run."""
        return self._go(self.position + count, Reason.STEP)

    def _go(self, position: int, reason: Reason, event: Event | None = None) -> Stop:
        before, goal = self.position, min(max(position, 0), self.end_position)
        self._session.goto(goal)
        self._moved = (min(before, goal), max(before, goal))
        if position < 0 or (goal == 0 and reason is Reason.STEP):
            reason = Reason.START
        elif position > self.end_position or (goal == self.end_position and reason is Reason.STEP):
            reason = Reason.END
        return Stop(reason, goal, self.vcpu, self.pc, event)

    def run_until(
        self,
        condition: Condition | None = None,
        *,
        pc: int | Iterable[int] = (),
        write: Range | None = None,
        read: Range | None = None,
        vcpu: int | None = None,
        backwards: bool = False,
    ) -> Stop:
        """Go on to the next place (backwards: back to the last one before here) where a reason to stop is; without one, to the end or start.

        pc: address, or several: before their instruction. write, read: (physical address, size): behind the instruction that made the
        access; a write of the host is at the place before the next instruction. vcpu: only instructions of this one. condition: called with
        this walk; the places that the others find are stops only where it is true; alone, it is asked at every instruction.
        Either way the same places are found. A place where it stands already is none.
        """
        before = self.position
        addresses = (pc,) if isinstance(pc, int) else tuple(pc)
        if vcpu is not None:
            self._number(vcpu)
        has_watch = write is not None or read is not None
        if addresses and has_watch:
            raise InputError("run_until: either pc, or write and read; ask for both in turn")
        if not addresses and not has_watch and condition is None:
            raise InputError("run_until: nothing to stop at: a condition, pc, write or read is")
        reason = Reason.WATCHPOINT if has_watch else Reason.BREAKPOINT if addresses else Reason.CONDITION
        found: _Hit | None = None
        try:
            with closing(self._places(addresses, write, read, condition, vcpu, backwards)) as places:
                for found in places:
                    if condition is None or not (addresses or has_watch) or self._holds(condition, found[0]):
                        break
                else:
                    found = None
        except BaseException:
            self._moved = (min(before, self.position), max(before, self.position))
            raise
        if found is None:
            end = (0, Reason.START) if backwards else (self.end_position, Reason.END)
            return self._stopped(before, *end, None)
        return self._stopped(before, found[0], reason, found[1])

    def _holds(self, condition: Condition, position: int) -> bool:
        self._session.goto(position)
        return bool(condition(self))

    def _stopped(self, before: int, position: int, reason: Reason, event: Event | None) -> Stop:
        stop = self._go(position, reason, event)
        self._moved = (min(before, position), max(before, position))
        return stop

    # --- places ------------------------------------------------------------------------------------------------------------------------

    def _places(
        self,
        pcs: tuple[int, ...],
        write: Range | None,
        read: Range | None,
        condition: Condition | None,
        vcpu: int | None,
        backwards: bool,
    ) -> Generator[_Hit]:
        """Where reasons to stop are, the nearest first: at positions above the present one, or below."""
        here = self.position
        if write is not None or read is not None:
            writes, reads = ([_range(one)] if one is not None else [] for one in (write, read))
            yield from self._watched(writes, reads, vcpu, here, backwards)
            return
        if pcs:
            positions = self._reached_backwards(pcs, vcpu, here) if backwards else self._reached(pcs, vcpu, here)
        else:
            assert condition is not None
            positions = (
                self._true_backwards(condition, vcpu, here)
                if backwards
                else self._true(condition, vcpu, here + 1, self.end_position + 1)
            )
        for position in positions:
            yield position, None

    def _true(self, condition: Condition, vcpu: int | None, begin: int, end: int) -> Iterator[int]:
        for position in range(begin, end):
            self._session.goto(position)
            if (vcpu is None or self.vcpu == vcpu) and condition(self):
                yield position

    def _true_backwards(self, condition: Condition, vcpu: int | None, here: int) -> Iterator[int]:
        end = here
        while end > 0:
            begin = max(0, end - CONDITION_LEG)
            yield from reversed(list(self._true(condition, vcpu, begin, end)))
            end = begin

    def _watched(self, writes: list[Range], reads: list[Range], vcpu: int | None, here: int, backwards: bool) -> Iterator[_Hit]:
        begin, end = (0, here) if backwards else (here, self.end_position + 1)
        last = -1
        for event in accesses(self.trace, writes, reads, begin, end, backwards=backwards):
            is_host = event.row[4] == "host"
            place = event.row[0] + (not is_host)
            is_ahead = place < here if backwards else place > here
            if is_ahead and place != last and (vcpu is None or event.row[3] == vcpu) and place <= self.end_position:
                last = place
                yield place, event

    def _reached(self, pcs: tuple[int, ...], vcpu: int | None, here: int) -> Iterator[int]:
        with self._session.watching(pcs, vcpu) as hits:
            at = last = here
            leg = FIRST_LEG  # what is near is found soon, even if it is reached all the time
            while at < self.end_position:
                stop = min(at + leg, self.end_position)
                leg = min(2 * leg, LEG)
                self._session.run_on(stop)
                if hits:
                    for position in list(hits):
                        if position > last:
                            last = position
                            yield position
                    hits.clear()
                    self._session.goto(stop)  # whoever was told may have looked at it there
                    hits.clear()
                at = stop

    def _reached_backwards(self, pcs: tuple[int, ...], vcpu: int | None, here: int) -> Iterator[int]:
        end = here
        while end > 0:
            begin = self._session.known_before(end)
            self._session.goto(begin)
            with self._session.watching(pcs, vcpu) as hits:
                self._session.run_on(end)
            found = sorted({position for position in hits if position < end})
            yield from reversed(found)
            end = found[0] if len(hits) == hits.maxlen else begin


def _range(place: Range) -> Range:
    ipa, size = place
    if size < 1 or ipa < 0:
        raise InputError(f"{ipa:#x}: a range of {size} bytes; (physical address, size) is wanted")
    return ipa, ipa + size


def _check_size(size: int) -> None:
    if not 0 <= size <= READ_MAX:
        raise InputError(f"{size} bytes: 0 to {READ_MAX} can be read at once")
