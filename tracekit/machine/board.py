"""The board: engine, interrupt controller, timers, UART and memory wired together; it runs guest code and tells what happens.

The board decides nothing that the host decides. Recording and replaying use the same board; they differ in the Director and in
who calls run(). Spec: formats/SPEC.md "Time", "Replay"; docs/machine.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from tracekit.formats.tables import BATCH_ROWS
from tracekit.machine import native
from tracekit.machine.capture import CaptureBuffers
from tracekit.machine.console import ConsoleLine
from tracekit.machine.engine import Engine, EngineConfig, StopReason
from tracekit.machine.events import Director, HypercallEvent, Sink
from tracekit.machine.further import Portable
from tracekit.machine.gic import Gic
from tracekit.machine.map import (
    GICC_BASE,
    GICC_SIZE,
    GICD_BASE,
    GICD_SIZE,
    PVTIME_BASE,
    PVTIME_SIZE,
    RAM_BASE,
    TIMER_PPIS,
    UART_BASE,
    UART_INTID,
    UART_SIZE,
)
from tracekit.machine.memory import GuestFault, Page, PhysicalMemory
from tracekit.machine.pl011 import FR, Pl011
from tracekit.machine.portable import enabled_breakpoint
from tracekit.machine.probe import settled
from tracekit.machine.registers import Registers
from tracekit.machine.state import MachineState, TimerState, VcpuState

PV_STRUCTURE_SIZE = 64
PV_STOLEN_OFFSET = 8
THICK_TABLES = {native.WRITES: "memory_writes", native.READS: "memory_reads", native.BLOCKS: "blocks"}
THICK_NUMBERS = {name: number for number, name in THICK_TABLES.items()}


@dataclass(frozen=True, slots=True)
class BoardConfig:
    """What the guest can see of the board, and the engine underneath.

    ns_per_instruction is the rational numerator/denominator; exit_cost_ns is charged as RUN for each trap to the host (device
    access, hypercall). pv_structures: IPA of each stolen-time structure, whose every access is
    recorded; () for none. smc: `call` (as HVC, to the hypervisor) or `undefined` (an exception, as an old KVM injects it).
    marks: whether mark() does what it says; recordings of format 1.1 and earlier were made without.
    """

    vcpu_count: int = 1
    ram_size: int = 512 << 20
    ns_numerator: int = 1
    ns_denominator: int = 1
    exit_cost_ns: int = 0
    pv_structures: tuple[int, ...] = ()
    smc: str = "call"
    marks: bool = True
    engine: EngineConfig = field(default_factory=EngineConfig)


def _watches(config: BoardConfig) -> EngineConfig:
    """The engine watches ranges of RAM only; the dedicated page is a device and told of without it."""
    structures = tuple((ipa, ipa + PV_STRUCTURE_SIZE) for ipa in config.pv_structures)
    end = RAM_BASE + config.ram_size
    in_ram = tuple((b, e) for b, e in (*structures, *config.engine.watches) if b < end and e > RAM_BASE)
    return replace(config.engine, watches=in_ram)


class Board:
    """One machine with `vcpu_count` vCPUs that take turns on one engine."""

    def __init__(self, config: BoardConfig, sink: Sink, director: Director) -> None:
        self.config = config
        self._sink = sink
        self._director = director
        self.engine = Engine(settled(_watches(config)), config.vcpu_count, RAM_BASE, config.ram_size, self)
        self._state = self.engine.state
        self._state.smc_undefined = config.smc == "undefined"
        self._state.ns_numerator, self._state.ns_denominator = config.ns_numerator, config.ns_denominator
        self.memory = PhysicalMemory(self.engine.ram, PVTIME_BASE, PVTIME_SIZE)
        self.gic = Gic(config.vcpu_count, self._observe_interrupt, self._send_sgi)
        self._state.plain_ipa, self._state.exit_cost_ns = UART_BASE + FR, config.exit_cost_ns
        self.uart = Pl011(self._transmit, self._uart_level, self._uart_flags)
        self.console = ConsoleLine(lambda row: self._sink.row("console", row))
        self.local_ns = [0] * config.vcpu_count  # local time of each vCPU when it last ran
        self._remainder = [0] * config.vcpu_count
        self._buffers = CaptureBuffers()
        self._given = {number: 0 for number in THICK_TABLES if self.engine.captures(number)}  # rows of thick tables
        for number in self._given:
            self._aim(number, 0)
        self._moment: tuple[int, int] | None = None  # (position, ns) of the event being told, if not "now"
        self._devices = (
            (UART_BASE, UART_SIZE, self._uart_read, self._uart_write),
            (GICD_BASE, GICD_SIZE, self._gicd_read, self._gicd_write),
            (GICC_BASE, GICC_SIZE, self._gicc_read, self._gicc_write),
        )
        for base, size, _, _ in self._devices:
            self.engine.map_device(base, size)
        self.engine.map_device(PVTIME_BASE, PVTIME_SIZE)
        self._devices_at_reset = self.gic.save(), self.uart.save()

    def close(self) -> None:
        """Give the guest's memory back."""
        self.engine.close()

    # --- telling ------------------------------------------------------------------------------------------------------------

    def here(self) -> tuple[int, int]:
        """(position, vtime_ns) of what is being told."""
        if self._moment is not None:
            return self._moment
        return self.engine.position, self.engine.now_ns()

    @contextmanager
    def at(self, position: int, ns: int) -> Iterator[None]:
        """Tell what follows as of this place: effects of an instruction that has retired, or of another vCPU's time."""
        before, self._moment = self._moment, (position, ns)
        try:
            yield
        finally:
            self._moment = before

    def sequence(self, position: int) -> int:
        """The next sequence number at this position."""
        state = self._state
        if position != state.sequence_position:
            assert position > state.sequence_position, "events must be told in order"
            state.sequence_position, state.sequence_next = position, 0
        number = int(state.sequence_next)
        state.sequence_next = number + 1
        return number

    def emit(self, table: str, vcpu: int | None, *columns: object) -> None:
        """Tell one event as of here()."""
        position, ns = self.here()
        self.emit_at(table, position, ns, vcpu, *columns)

    def emit_at(self, table: str, position: int, ns: int, vcpu: int | None, *columns: object) -> None:
        """Tell one event; thick rows of the same table that come before it go first."""
        number = THICK_NUMBERS.get(table)
        if number is not None and number in self._given:
            self.drain(number, position)
        self._sink.row(table, (position, self.sequence(position), ns, vcpu, *columns))
        if number is not None and number in self._given:
            self._aim(number, 1)

    def drain(self, table: int, below_position: int | None = None) -> None:
        """Hand buffered thick rows on: all, or those before a position."""
        columns = self.engine.columns(table)
        count = int(columns.count)
        if below_position is not None:
            while count and columns.position[count - 1] >= below_position:
                count -= 1
        if count:
            self._sink.thick_rows(THICK_TABLES[table], columns, count)
            self.engine.drop_rows(table, count)
            self._aim(table, count)

    def _aim(self, table: int, count: int) -> None:
        """`count` more rows have gone: the buffer is to be full where a batch of the trace is, so that it need not be copied."""
        self._given[table] += count
        self.engine.columns(table).limit = BATCH_ROWS - self._given[table] % BATCH_ROWS

    def drain_all(self) -> None:
        """Hand all buffered thick rows on (the end, or a commit between runs)."""
        for number in THICK_TABLES:
            if self.engine.captures(number):
                self.drain(number)

    # --- the engine's callbacks ---------------------------------------------------------------------------------------------------

    def mmio_read(self, ipa: int, size: int) -> int:
        """A load from a device."""
        self._moment = (int(self._state.event_position), self.engine.event_ns())
        try:
            for base, length, read, _ in self._devices:
                if base <= ipa < base + length:
                    value = read(self.engine.vcpu, ipa - base, size)
                    self._charge_exit()
                    return value
            return self._pv_read(ipa, size)
        finally:
            self._moment = None

    def mmio_write(self, ipa: int, size: int, value: int) -> None:
        """A store to a device."""
        self._moment = (int(self._state.event_position), self.engine.event_ns())
        try:
            for base, length, _, write in self._devices:
                if base <= ipa < base + length:
                    write(self.engine.vcpu, ipa - base, size, value)
                    self._charge_exit()
                    return
            self._pv_write(ipa, size, value)
        finally:
            self._moment = None

    def timer_changed(self, which: int) -> None:
        """The loaded vCPU wrote one of its timers' registers."""
        self._moment = (int(self._state.event_position), self.engine.event_ns())
        try:
            self.update_timer(self.engine.vcpu, which, self._moment[1])
        finally:
            self._moment = None

    def watched(self, is_write: bool, ipa: int, size: int, value: int) -> None:
        """An access to a watched range of RAM."""
        self._moment = (int(self._state.event_position), self.engine.event_ns())
        try:
            self._tell_access(is_write, ipa, size, value)
        finally:
            self._moment = None

    def capture_full(self, table: int) -> None:
        """A thick table's buffer is full: capture goes on in another one."""
        full = self.engine.swap_columns(table, self._buffers.take())
        self._aim(table, int(full.count))
        self._sink.thick_buffer(THICK_TABLES[table], full, int(full.count), partial(self._buffers.give_back, full))

    def _charge_exit(self) -> None:
        if self.config.exit_cost_ns:
            self._state.clock_ns += self.config.exit_cost_ns
            self.engine.replan()

    # --- devices ----------------------------------------------------------------------------------------------------------------------

    def _gicd_read(self, vcpu: int, offset: int, size: int) -> int:
        return self.gic.distributor_read(vcpu, offset, size)

    def _gicd_write(self, vcpu: int, offset: int, size: int, value: int) -> None:
        self.gic.distributor_write(vcpu, offset, size, value)
        self.refresh_lines()

    def _gicc_read(self, vcpu: int, offset: int, size: int) -> int:
        value = self.gic.interface_read(vcpu, offset, size)
        self.refresh_lines()
        return value

    def _gicc_write(self, vcpu: int, offset: int, size: int, value: int) -> None:
        self.gic.interface_write(vcpu, offset, size, value)
        self.refresh_lines()

    def _uart_read(self, vcpu: int, offset: int, size: int) -> int:
        return self.uart.read(offset, size)

    def _uart_write(self, vcpu: int, offset: int, size: int, value: int) -> None:
        self.uart.write(offset, size, value)

    def _transmit(self, byte: int) -> None:
        vcpu = self.engine.vcpu
        if not self.console.accepts(vcpu):
            self.console.close()
            position, ns = self.here()
            self.console.open((position, self.sequence(position), ns, vcpu))
        head, index = self.console.add(byte)
        self._sink.console_byte(head, index, byte)
        self.console.close_if_full()

    def _uart_flags(self, value: int) -> None:
        self._state.plain_value = value  # a load of FR is answered without asking here

    def _uart_level(self, asserted: bool) -> None:
        self.gic.set_level(UART_INTID, asserted, None)
        self.refresh_lines()

    def _observe_interrupt(self, event: str, intid: int, vcpu: int | None) -> None:
        self.emit("interrupts", vcpu, event, intid, None)

    def _send_sgi(self, source: int, target: int, intid: int) -> None:
        position, ns = self.here()
        landed = ns if source == target else self._director.deliver_sgi(source, target, intid, ns)
        if landed is not None:
            with self.at(position, max(ns, landed)):
                self.gic.pend_sgi(target, intid, source)

    def land_sgi(self, source: int, target: int, intid: int) -> None:
        """An SGI that was on its way takes effect here()."""
        self.gic.pend_sgi(target, intid, source)
        self.refresh_lines()

    def receive(self, data: bytes) -> None:
        """Bytes from outside arrive at the UART here()."""
        self.uart.receive(data)
        self.refresh_lines()

    def refresh_lines(self) -> None:
        """Carry the interrupt controller's lines to the vCPUs."""
        state = self._state
        for vcpu in range(self.config.vcpu_count):
            level = self.gic.line(vcpu)
            if bool(state.line[vcpu]) != level:
                self.engine.set_line(vcpu, level)
                if level:
                    self._director.line_raised(vcpu, self.here()[1])

    # --- timers --------------------------------------------------------------------------------------------------------------------------

    def update_timer(self, vcpu: int, which: int, now_ns: int) -> None:
        """Bring a timer's line to what its registers and the time say."""
        timer = self._state.timer[vcpu][which]
        level = timer.ctl & 3 == 1 and timer.cval << 4 <= now_ns
        if level != bool(timer.asserted):
            timer.asserted = level
            self.gic.set_level(TIMER_PPIS[which], level, vcpu)
            self.refresh_lines()

    def update_timers(self, vcpu: int, now_ns: int) -> None:
        """Both timers of a vCPU."""
        for which in range(len(TIMER_PPIS)):
            self.update_timer(vcpu, which, now_ns)

    def timer_due_ns(self, vcpu: int) -> int | None:
        """When the next enabled timer of a vCPU raises its line; None if none will."""
        due = [
            timer.cval << 4
            for timer in self._state.timer[vcpu]
            if timer.ctl & 3 == 1 and not timer.asserted and timer.cval < 1 << 58
        ]
        return min(due, default=None)

    # --- stolen-time structures ---------------------------------------------------------------------------------------------------------------

    def _pv_read(self, ipa: int, size: int) -> int:
        try:
            value = self.memory.read(ipa, size)
        except GuestFault:
            return 0
        self._tell_access(False, ipa, size, value)
        return value

    def _pv_write(self, ipa: int, size: int, value: int) -> None:
        try:
            self.memory.write(ipa, size, value)
        except GuestFault:
            return
        self._tell_access(True, ipa, size, value)

    def _tell_access(self, is_write: bool, ipa: int, size: int, value: int) -> None:
        vcpu, pc = self.engine.vcpu, int(self._state.event_pc)
        if is_write:
            self.emit("memory_writes", vcpu, "guest", ipa, size, value, pc, None)
            return
        self.emit("memory_reads", vcpu, "guest", ipa, size, value, pc)
        for base in self.config.pv_structures:
            field_at = base + PV_STOLEN_OFFSET
            if ipa < field_at + 8 and ipa + size > field_at:
                self.emit("pvtime", vcpu, "read", base, *self.pv_fields(base))

    def pv_fields(self, base: int) -> tuple[int, int, int]:
        """(stolen_ns, revision, attributes) of the structure at `base`, as it stands in memory."""
        raw = self.memory.read_bytes(base, 16)
        fields = (raw[8:16], raw[0:4], raw[4:8])
        stolen, revision, attributes = (int.from_bytes(part, "little") for part in fields)
        return stolen, revision, attributes

    def host_store(self, ipa: int, size: int, value: int, cause: str, vcpu: int | None) -> None:
        """One single-copy-atomic store by the host. Errors: GuestFault."""
        self.memory.write(ipa, size, value)
        if ipa >= RAM_BASE and not any(b <= ipa < b + PV_STRUCTURE_SIZE for b in self.config.pv_structures):
            self.engine.flush_code()
        self.emit("memory_writes", vcpu, "host", ipa, size, value & ((1 << 8 * size) - 1), None, cause)

    # --- running --------------------------------------------------------------------------------------------------------------------------------

    def power_on(self, vcpu: int, entry: int, context: int) -> None:
        """PSCI CPU_ON: architectural reset, then entry with X0 = context."""
        for which, ppi in enumerate(TIMER_PPIS):
            if self._state.timer[vcpu][which].asserted:
                self._state.timer[vcpu][which].asserted = 0
                self.gic.set_level(ppi, False, vcpu)
        self.engine.reset_vcpu(vcpu, entry, context)
        self.gic.reset_vcpu(vcpu)
        self.refresh_lines()

    def enter(self, vcpu: int, now_ns: int) -> None:
        """Give the engine to a vCPU whose local time is now_ns."""
        self.engine.switch(vcpu)
        self.engine.set_clock(now_ns, self._remainder[vcpu])
        self.local_ns[vcpu] = now_ns
        self.engine.set_line(vcpu, self.gic.line(vcpu))

    def run(self, limit_position: int, horizon_ns: int) -> StopReason:
        """Run the loaded vCPU. Timers that come due are handled here; everything else is for the caller."""
        vcpu = self.engine.vcpu
        while True:
            reason = self.engine.run(limit_position, horizon_ns)
            now = self.engine.now_ns()
            self.local_ns[vcpu] = now
            self._remainder[vcpu] = self.engine.clock_remainder()
            if reason is not StopReason.TIMER:
                return reason
            self.update_timers(vcpu, now)

    def hypercall(self) -> HypercallEvent:
        """The call that run() stopped for."""
        engine, state = self.engine, self._state
        position = engine.position - 1
        elapsed = (position - state.clock_position) * state.ns_numerator + state.clock_remainder
        ns = state.clock_ns + elapsed // state.ns_denominator
        conduit = "smc" if state.hypercall_is_smc else "hvc"
        return HypercallEvent(
            vcpu=engine.vcpu,
            conduit=conduit,
            immediate=int(state.hypercall_immediate),
            pc=engine.pc() - 4,
            el=engine.exception_level(),
            x=engine.general(18),
            position=position,
            ns=int(ns),
        )

    def finish_hypercall(self, call: HypercallEvent, sequence: int, ret: Iterable[int], function: str | None) -> None:
        """Put the results into X0..X3 and tell the call as the row whose sequence number was taken before its effects."""
        results = tuple(ret)
        for n, value in enumerate(results):
            self.engine.set_x(n, value)
        after = self.engine.general(18)
        changed = sum(1 << n for n in range(4, 18) if after[n] != call.x[n])
        row = (
            call.position, sequence, call.ns, call.vcpu, call.pc, call.el, call.conduit, call.immediate,
            call.x[0] & 0xFFFF_FFFF, function, *call.x[:8], *results, changed,
        )  # fmt: skip
        self._sink.row("hypercalls", row)
        if self.config.exit_cost_ns:
            self._state.clock_ns += self.config.exit_cost_ns
            self.local_ns[self.engine.vcpu] = self.engine.now_ns()

    def take_interrupt(self) -> None:
        """Enter the IRQ vector of the loaded vCPU and tell where."""
        vcpu = self.engine.vcpu
        self.emit("interrupts", vcpu, "take", self.gic.highest(vcpu), self.engine.pc())
        self.engine.take_interrupt()

    # --- digests and state --------------------------------------------------------------------------------------------------------------------------

    def device_bytes(self) -> bytes:
        """Devices, timers and counter as `states.devices` hashes them. Spec: formats/SPEC.md "Portable state digests"."""
        out = bytearray(self.gic.digest_bytes() + self.uart.digest_bytes())
        for vcpu in range(self.config.vcpu_count):
            for timer in self._state.timer[vcpu]:
                out += int(timer.cval).to_bytes(8, "little") + bytes((timer.ctl, bool(timer.asserted)))
        out += int(self._state.counter_high_ns).to_bytes(8, "little") + int(self._state.random_state).to_bytes(8, "little")
        return bytes(out)

    def mark(self) -> None:
        """Make a place where portable values describe the machine: no exclusive monitor is set, no straight run is open. It is part of
        the run, so a replay makes it at the same places. Spec: formats/SPEC.md "Time"."""
        if self.config.marks:
            self.engine.mark()

    def registers(self, vcpu: int) -> Registers:
        """The portable registers of a vCPU."""
        return self.engine.registers(vcpu)

    def save(self) -> MachineState:
        """The whole machine as a plain value."""
        return replace(self.save_here(), pages=dict(self.memory.pages()))

    def save_here(self) -> MachineState:
        """The machine without pages, between any two instructions; for restore_here() in this process."""
        saved = self.save_portable()
        vcpus = tuple(replace(one, context=self.engine.context(vcpu)) for vcpu, one in enumerate(saved.vcpus))
        return replace(saved, engine_build=self.engine_build(), vcpus=vcpus)

    def restore_here(self, saved: MachineState, pages: Mapping[int, Page]) -> None:
        """Become what save_here() gave. pages, errors: as for restore_portable()."""
        assert saved.engine_build == self.engine_build()
        self.engine.forget()
        self._become(saved, pages, with_contexts=True)

    def save_portable(self) -> MachineState:
        """The machine without pages and contexts: at a mark, its portable values and memory are all of it."""
        state = self._state
        return MachineState(
            engine_build="",
            position=self.engine.position,
            loaded_vcpu=self.engine.vcpu,
            counter_high_ns=int(state.counter_high_ns),
            random_state=int(state.random_state),
            sequence=(int(state.sequence_position), int(state.sequence_next)),
            clock_ns=self.engine.now_ns(),
            vcpus=tuple(
                VcpuState(
                    registers=portable.registers,
                    further=portable.further,
                    sve=portable.sve,
                    context=b"",
                    timers=tuple(TimerState(int(t.cval), int(t.ctl), bool(t.asserted)) for t in state.timer[vcpu]),
                    local_ns=self.local_ns[vcpu],
                    remainder=self.engine.clock_remainder() if vcpu == self.engine.vcpu else self._remainder[vcpu],
                )
                for vcpu, portable in enumerate(map(self.engine.portable, range(self.config.vcpu_count)))
            ),
            gic=self.gic.save(),
            uart=self.uart.save(),
            console=self.console.open_row(),
            pages={},
        )

    def portable_gap(self) -> str | None:
        """What save_portable() would not hold, in words; None where it is the whole machine. Ask at a mark."""
        for vcpu in range(self.config.vcpu_count):
            gap = self.engine.portable_gap(vcpu)
            if gap is not None:
                return f"vCPU {vcpu} has state that no portable register holds (at byte {gap} of the engine's context)"
        return enabled_breakpoint(self.save_portable())

    def restore(self, saved: MachineState) -> None:
        """Become the saved machine; the engine's own contexts are used where they fit, the portable registers otherwise."""
        for index in [index for index, _ in self.memory.pages()]:
            self.memory.write_bytes(index << 12, bytes(4096))
        self._become(saved, saved.pages, with_contexts=saved.engine_build == self.engine_build())

    def restore_portable(self, saved: MachineState, pages: Mapping[int, Page]) -> None:
        """Become what save_portable() gave at a mark, of this run or of a recording of it, as often and in any order.

        pages: content of 4096 bytes by ipa >> 12, of every page that differs from the present memory; others may be among them.
        Rows that the engine has buffered are forgotten: drain_all() first, if they are wanted.
        Errors: GuestFault where a page lies outside memory.
        """
        self.engine.forget()
        self._become(saved, pages, with_contexts=False)
        self.engine.mark()

    def _become(self, saved: MachineState, pages: Mapping[int, Page], *, with_contexts: bool) -> None:
        state, engine = self._state, self.engine
        assert len(saved.vcpus) == self.config.vcpu_count
        for index, content in pages.items():
            self.memory.write_bytes(index << 12, content)
        engine.flush_code()
        state.position = saved.position
        engine.switch(saved.loaded_vcpu)
        for vcpu, one in enumerate(saved.vcpus):
            if with_contexts:
                engine.set_context(vcpu, one.context)
            else:
                engine.set_portable(vcpu, Portable(one.registers, one.further, one.sve))
            for timer, value in zip(state.timer[vcpu], one.timers, strict=True):
                timer.cval, timer.ctl, timer.asserted = value.cval, value.ctl, value.asserted
            self.local_ns[vcpu], self._remainder[vcpu] = one.local_ns, one.remainder
        state.counter_high_ns, state.random_state = saved.counter_high_ns, saved.random_state
        state.sequence_position, state.sequence_next = saved.sequence
        self.gic.restore(saved.gic)
        self.uart.restore(saved.uart)
        self.console.restore(saved.console)
        engine.set_clock(saved.clock_ns, self._remainder[saved.loaded_vcpu])
        for vcpu in range(self.config.vcpu_count):
            engine.set_line(vcpu, self.gic.line(vcpu))

    def roll_back(self, saved: MachineState) -> None:
        """Become what save() gave earlier in this run, while position, order of events, time and console go on. Every exclusive monitor
        is cleared, as by any return from the host."""
        self.console.close()
        state = self._state
        kept = [(self.local_ns[vcpu], self._remainder[vcpu]) for vcpu in range(self.config.vcpu_count)]
        self.restore(
            replace(
                saved,
                position=self.engine.position,
                sequence=(int(state.sequence_position), int(state.sequence_next)),
                counter_high_ns=int(state.counter_high_ns),
                clock_ns=self.engine.now_ns(),
                vcpus=tuple(replace(one, local_ns=ns, remainder=rest) for one, (ns, rest) in zip(saved.vcpus, kept)),
                console=None,
            )
        )
        for vcpu in range(self.config.vcpu_count):  # a switch clears the monitor of whom it goes to
            self.engine.switch(vcpu)
        self.engine.switch(0)

    def reset(self, segments: Iterable[tuple[int, bytes]], entry: int, x0: int) -> None:
        """The machine starts anew: registers, devices and RAM as before the first instruction; the stolen-time page keeps its content."""
        self.console.close()
        gic, uart = self._devices_at_reset
        self.gic.restore(gic)
        self.uart.restore(uart)
        for index in [index for index, _ in self.memory.pages() if index << 12 >= RAM_BASE]:
            self.memory.write_bytes(index << 12, bytes(4096))
        self.load(segments)
        for vcpu in range(self.config.vcpu_count):
            for timer in self._state.timer[vcpu]:
                timer.asserted = 0
            self.engine.reset_vcpu(vcpu, entry, x0 if vcpu == 0 else 0)
            self.engine.set_line(vcpu, False)

    def engine_build(self) -> str:
        """What must be equal for contexts to be exchanged."""
        return self.engine.build()

    def load(self, segments: Iterable[tuple[int, bytes]]) -> None:
        """Place the guest's initial memory. Errors: GuestFault."""
        for ipa, data in segments:
            self.memory.write_bytes(ipa, data)
        self.engine.flush_code()
