"""One Unicorn engine with N vCPU contexts: the only room that touches Unicorn.

Order of set-up, what is fixed at translation time, and why each call stands where it stands: docs/machine.md.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Protocol

import unicorn
from unicorn import arm64_const as arm
from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import uclib

from tracekit.formats.errors import TracekitError
from tracekit.machine import native
from tracekit.machine.capture import new_columns
from tracekit.machine.further import Portable, further_of, system_ids
from tracekit.machine.memory import anonymous
from tracekit.machine.registers import PLAIN, PLAIN_IDS, SYSTEM, SYSTEM_IDS, VALUES, Registers, canonical
from tracekit.machine.vectors import sve_of, with_sve

CPU_MODELS = {"a53": arm.UC_CPU_ARM64_A53, "a72": arm.UC_CPU_ARM64_A72, "max": arm.UC_CPU_ARM64_MAX}
_NATIVE_ERRORS = {-1: "out of memory", -2: f"Unicorn {unicorn.__version__} does not tell of its translations; use 2.1.4"}
_SYSTEM_END = len(PLAIN) + len(SYSTEM)
_INSTRUCTION_SYS = arm.UC_ARM64_INS_SYS


class EngineError(TracekitError):
    """The engine cannot do what was asked; the text says what."""


class StopReason(IntEnum):
    """Why Engine.run returned."""

    LIMIT = native.STOP_LIMIT
    WFI = native.STOP_WFI
    HYPERCALL = native.STOP_HYPERCALL
    INTERRUPT = native.STOP_INTERRUPT
    TIMER = native.STOP_TIMER
    REQUESTED = native.STOP_REQUESTED
    LOCKUP = native.STOP_LOCKUP
    ERROR = native.STOP_ERROR
    WFE = native.STOP_WFE


_REASONS = {int(reason): reason for reason in StopReason}


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine is built. None of it changes what a guest does; all of it stands in a trace's manifest.

    mode: "exact" (stale code is cured at IC IVAU), "fast" (the same, and Unicorn's check after each load and store is left out;
    ask probe.settled() for a configuration that may have it) or "safe" (every store is checked for changed code). fallback: why it
    is "exact" although "fast" was asked for. page_size: the engine's own granule, 4096 or 1024 bytes. counting: "block" or
    "instruction" (the slow reference: one callback for each instruction).
    stops_at_wfe: run() returns StopReason.WFE behind every WFE, unless stop_at_wfe() says otherwise. leaves_hints: WFE and YIELD are not
    made cheap (probe.settled() says so where that is not proven).
    """

    cpu: str = "a53"
    mode: str = "fast"
    fallback: str | None = None
    page_size: int = 4096
    counting: str = "block"
    capture: str = "thin"
    watches: tuple[tuple[int, int], ...] = ()
    takes_interrupts: bool = True
    stops_at_wfe: bool = False
    leaves_hints: bool = False

    @property
    def eases_hints(self) -> bool:
        """Whether WFE and YIELD are made cheap (native/hints.c)."""
        return self.mode != "safe" and self.counting == "block" and not self.leaves_hints

    def hook_set(self) -> list[str]:
        """Names of the hooks that this configuration installs (they explain a divergence, they never gate a replay)."""
        hooks = ["intr", "block", "mrs", "msr", "sys", "unmapped-everywhere" if self.mode == "safe" else "unmapped"]
        if self.counting == "instruction":
            hooks.append("code")
        if self.capture != "thin" or self.watches:
            hooks.append("write")
        if self.capture == "full" or self.watches:
            hooks.append("read")
        if self.stops_at_wfe or self.eases_hints:
            hooks.append("edge")
        return hooks


class EngineClient(Protocol):
    """Who answers the engine's rare callbacks. `position` and `pc` of the cause: Engine.event_position, .event_pc."""

    def mmio_read(self, ipa: int, size: int) -> int: ...
    def mmio_write(self, ipa: int, size: int, value: int) -> None: ...
    def timer_changed(self, which: int) -> None: ...
    def watched(self, is_write: bool, ipa: int, size: int, value: int) -> None: ...
    def capture_full(self, table: int) -> None: ...


def version() -> str:
    """Version of the Unicorn library in use."""
    return str(unicorn.__version__)


def _control(kind: int, arguments: int, direction: int = const.UC_CTL_IO_WRITE) -> int:
    return ctypes.c_int32(kind | arguments << 26 | direction << 30).value


def _ids() -> native.Ids:
    ids = native.Ids()
    for name in "x0 x29 x30 sp pc pstate nzcv cp_reg elr_el1 esr_el1 far_el1 vbar_el1 sp_el0 sp_el1 q0".split():
        setattr(ids, name, getattr(arm, "UC_ARM64_REG_" + name.upper()))
    ids.hook_intr = const.UC_HOOK_INTR
    ids.hook_insn = const.UC_HOOK_INSN
    ids.hook_code = const.UC_HOOK_CODE
    ids.hook_block = const.UC_HOOK_BLOCK
    ids.hook_mem_unmapped = const.UC_HOOK_MEM_UNMAPPED
    ids.hook_mem_prot = const.UC_HOOK_MEM_READ_PROT | const.UC_HOOK_MEM_WRITE_PROT
    ids.hook_mem_write = const.UC_HOOK_MEM_WRITE
    ids.hook_mem_read_after = const.UC_HOOK_MEM_READ_AFTER
    ids.hook_edge = const.UC_HOOK_EDGE_GENERATED
    ids.insn_mrs, ids.insn_msr, ids.insn_sys = arm.UC_ARM64_INS_MRS, arm.UC_ARM64_INS_MSR, _INSTRUCTION_SYS
    ids.ctl_exits_on = ids.ctl_exits_off = _control(const.UC_CTL_UC_USE_EXITS, 1)
    ids.ctl_remove_cache = _control(const.UC_CTL_TB_REMOVE_CACHE, 2)
    ids.ctl_request_cache = _control(const.UC_CTL_TB_REQUEST_CACHE, 2, const.UC_CTL_IO_READ_WRITE)
    ids.ctl_flush_tlb = _control(const.UC_CTL_TLB_FLUSH, 0)
    ids.ctl_flush_tb = _control(const.UC_CTL_TB_FLUSH, 0)
    ids.err_read_unmapped = const.UC_ERR_READ_UNMAPPED
    ids.err_write_unmapped = const.UC_ERR_WRITE_UNMAPPED
    ids.err_fetch_unmapped = const.UC_ERR_FETCH_UNMAPPED
    ids.prot_read, ids.prot_exec = const.UC_PROT_READ, const.UC_PROT_EXEC
    ids.mem_write_prot, ids.mem_write_unmapped = const.UC_MEM_WRITE_PROT, const.UC_MEM_WRITE_UNMAPPED
    return ids


def _api() -> native.Api:
    api = native.Api()
    for name in native.API_NAMES:
        function = getattr(uclib, "uc_" + name)
        setattr(api, name, ctypes.cast(function, c_void_p).value)
    return api


@cache
def _offsets(cpu: str) -> tuple[int, int]:
    """Where a saved context holds the exception syndrome and the exclusive monitor's address: found, not assumed.

    A scratch engine executes `svc #0x1a2b` and an LDXR of a marked address; each marker occurs exactly once.
    """
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, CPU_MODELS[cpu])
    code, marked = 0x1000, 0x7BC54320
    uc.mem_map(code, 0x1000)
    uc.mem_map(marked & ~0xFFF, 0x1000)
    uc.mem_write(code, struct.pack("<III", 0xD4000001 | 0x1A2B << 5, 0xC85F7C20, 0xD2800001))
    size = int(uclib.uc_context_size(uc._uch))
    found: list[int] = []

    def context() -> bytes:
        saved = uc.context_save()
        return ctypes.string_at(saved.context, size)

    def find(needle: int, width: str) -> int:
        raw, wanted = context(), struct.pack(width, needle)
        hits = [at for at in range(0, len(raw) - len(wanted) + 1, 4) if raw[at : at + len(wanted)] == wanted]
        if len(hits) != 1:
            raise EngineError(f"Unicorn {version()}: cannot find its exception record ({len(hits)} places); use 2.1.4")
        return hits[0]

    def on_exception(engine: Any, number: int, _: object) -> None:
        found.append(find(0x56001A2B, "<I"))
        engine.emu_stop()

    uc.hook_add(const.UC_HOOK_INTR, on_exception)
    uc.emu_start(code, code + 4)
    uc.reg_write(arm.UC_ARM64_REG_X1, marked)
    uc.emu_start(code + 4, code + 12)
    return found[0], find(marked, "<Q")


@cache
def _clock_offset(cpu: str) -> int:
    """Where a saved context holds the host's clock: reading the cycle counter changes it, and nothing else."""
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, CPU_MODELS[cpu])
    code, size = 0x1000, int(uclib.uc_context_size(uc._uch))
    uc.mem_map(code, 0x1000)
    uc.mem_write(code, struct.pack("<I", 0xD53B9D1F))  # MRS XZR, PMCCNTR_EL0

    def words() -> tuple[int, ...]:
        uc.emu_start(code, code + 4)
        saved = uc.context_save()
        raw = ctypes.string_at(saved.context, size)
        return struct.unpack(f"<{size // 8}Q", raw[: size // 8 * 8])

    first, second = words(), words()
    head = size - first[0]  # the body of a context follows its size
    changed = [at * 8 for at, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1] and at * 8 >= head]
    if len(changed) != 1:
        raise EngineError(f"Unicorn {version()}: cannot find the clock in its contexts ({len(changed)} places); use 2.1.4")
    return changed[0]


class Engine:
    """Guest code and the vCPUs' registers over one RAM buffer.

    `ram` is anonymous memory that stays the same for the engine's life; whoever writes code into it from outside calls
    flush_code(). Times are ns, positions are instructions retired on the board.
    """

    def __init__(self, config: EngineConfig, vcpu_count: int, ram_base: int, ram_size: int, client: EngineClient) -> None:
        assert 1 <= vcpu_count <= native.VCPUS_MAX
        self.config = config
        self._lib = native.library()
        self._client = client
        self._failure: BaseException | None = None
        self.ram = anonymous(ram_size)
        self._ram_pin = ctypes.c_char.from_buffer(self.ram)
        ram_address = ctypes.addressof(self._ram_pin)
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, CPU_MODELS[config.cpu])
        uc.ctl_set_page_size(config.page_size)
        uc.ctl_exits_enabled(True)
        uc.mem_map_ptr(ram_base, ram_size, const.UC_PROT_ALL, c_void_p(ram_address))
        self._set_exception_levels()
        self._callbacks = self._guarded_callbacks(client)
        self._handle = self._lib.tk_new(
            ctypes.byref(_api()), ctypes.byref(_ids()), ctypes.byref(self._callbacks), uc._uch, c_void_p(ram_address)
        )
        if not self._handle:
            raise EngineError("out of memory while building the engine")
        self.state = self._lib.tk_state(self._handle).contents
        state = self.state
        state.ram_base, state.ram_size, state.vcpu_count = ram_base, ram_size, vcpu_count
        state.takes_interrupts = config.takes_interrupts
        state.cures_stale_code = config.mode != "safe"
        state.leaves_out_checks = config.mode == "fast" and config.counting == "block"  # else a hook stops in mid-block
        state.finds_wfe = state.stops_at_wfe = config.stops_at_wfe
        state.eases_hints = config.eases_hints
        state.counts_each_instruction = config.counting == "instruction"
        state.captures_writes = config.capture in ("writes", "full")
        state.captures_reads = state.captures_blocks = config.capture == "full"
        state.has_pan = state.has_rndr = config.cpu == "max"
        state.page_size = config.page_size
        state.random_state = 0x9E3779B97F4A7C15
        state.watch_count = len(config.watches)
        for index, (begin, end) in enumerate(config.watches):
            state.watch_begin[index], state.watch_end[index] = begin, end
        self._columns: dict[int, native.Columns] = {}
        for table in (native.WRITES, native.READS, native.BLOCKS):
            if self.captures(table):
                self._columns[table] = new_columns()
                self._lib.tk_capture_into(self._handle, table, ctypes.byref(self._columns[table]))
        syndrome, exclusive = _offsets(config.cpu)
        self._check(self._lib.tk_install(self._handle, syndrome, exclusive, config.mode == "safe"), "install its hooks")
        self._after_reset = self.context(0) if config.cpu == "max" else b""

    def _set_exception_levels(self) -> None:
        """EL1 is AArch64, HVC is allowed, and what the `max` model could trap to EL2 and EL3 is let through."""
        is_max = self.config.cpu == "max"
        self._write_system(1, 1, 3, 6, 0, 0x501 | (3 << 16 if is_max else 0))  # SCR_EL3: RW, HCE, NS, APK, API
        self._write_system(1, 1, 3, 4, 0, 1 << 31 | (3 << 40 if is_max else 0))  # HCR_EL2: RW, APK, API
        if is_max:
            self._write_system(1, 1, 3, 6, 2, 0x100)  # CPTR_EL3.EZ
            self._write_system(1, 2, 3, 6, 0, 0xF)  # ZCR_EL3
            self._write_system(1, 2, 3, 4, 0, 0xF)  # ZCR_EL2
        self._write_system(1, 0, 3, 0, 0, 0x30D00800)  # SCTLR_EL1: MMU and caches off
        self._uc.reg_write(arm.UC_ARM64_REG_PSTATE, 0x3C5)
        self._write_system(1, 1, 3, 4, 0, 1 << 31 | (3 << 40 if is_max else 0))  # again: rebuilds the cached flags

    def _write_system(self, crn: int, crm: int, op0: int, op1: int, op2: int, value: int) -> None:
        self._uc.reg_write(arm.UC_ARM64_REG_CP_REG, (crn, crm, op0, op1, op2, value))

    def _guarded_callbacks(self, client: EngineClient) -> native.Callbacks:
        """An exception must not cross C: it is kept, the run is stopped, and run() raises it."""

        def guard(function: Callable[..., Any], fallback: Any) -> Callable[..., Any]:
            def call(*arguments: int) -> Any:
                try:
                    return function(*arguments)
                except BaseException as error:  # also Ctrl-C: it must come out of run(), not vanish in C
                    if self._failure is None:
                        self._failure = error
                    self.request_stop()
                    return fallback

            return call

        return native.Callbacks(
            native.MMIO_READ(guard(client.mmio_read, 0)),
            native.MMIO_WRITE(guard(client.mmio_write, None)),
            native.TIMER_CHANGED(guard(client.timer_changed, None)),
            native.WATCHED(guard(lambda w, a, s, v: client.watched(bool(w), a, s, v), None)),
            native.CAPTURE_FULL(guard(client.capture_full, None)),
        )

    @staticmethod
    def _check(error: int, what: str) -> None:
        if error:
            text = uclib.uc_strerror(error).decode() if error > 0 else _NATIVE_ERRORS[error]
            raise EngineError(f"the engine cannot {what}: {text}")

    def close(self) -> None:
        """Give the engine's memory back; nothing may be called afterwards."""
        if self._handle:
            self._lib.tk_free(self._handle)
            self._handle = None
            del self.state
            del self._uc

    # --- memory --------------------------------------------------------------------------------------------------------

    def map_device(self, base: int, size: int) -> None:
        """Accesses to [base, base + size) go to client.mmio_read and mmio_write, with exact PC, position and size."""
        self._check(self._lib.tk_map_device(self._handle, base, size), f"map a device at {base:#x}")

    def flush_code(self) -> None:
        """Forget translated code and cached translations: RAM was changed from outside."""
        self._lib.tk_flush_code(self._handle)

    def forget(self) -> None:
        """The machine is about to become another: buffered rows and whatever else stands for what has just run go."""
        self._lib.tk_forget(self._handle)

    # --- running -----------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Instructions retired on the board; exact between runs."""
        return int(self.state.position)

    @property
    def vcpu(self) -> int:
        """The vCPU whose context is loaded."""
        return int(self.state.vcpu)

    def switch(self, vcpu: int) -> None:
        """Load another vCPU's context; its exclusive monitor is cleared."""
        self._check(self._lib.tk_switch(self._handle, vcpu), "switch contexts")

    def mark(self) -> None:
        """Clear every vCPU's exclusive monitor and cached address translations; end the straight run that is being captured."""
        self._check(self._lib.tk_mark(self._handle), "clear its monitors and its TLB")

    def set_clock(self, now_ns: int, remainder: int = 0) -> None:
        """Local time of the loaded vCPU at the present position."""
        state = self.state
        state.clock_position, state.clock_ns, state.clock_remainder = state.position, now_ns, remainder

    def clock_remainder(self) -> int:
        """Parts of a ns (of ns_denominator) that the loaded vCPU's clock holds beyond now_ns()."""
        state = self.state
        if state.ns_denominator == 1:
            return 0
        return int(((state.position - state.clock_position) * state.ns_numerator + state.clock_remainder) % state.ns_denominator)

    def now_ns(self) -> int:
        """Local time at the present position."""
        return int(self._lib.tk_now_ns(self._handle))

    def event_ns(self) -> int:
        """Local time of the event being told, inside a callback."""
        return int(self.state.event_ns)

    def run(self, limit_position: int, horizon_ns: int) -> StopReason:
        """Run the loaded vCPU until the position, the time, or until something happens.

        Errors: whatever a callback raised.
        """
        reason = self._lib.tk_run(self._handle, limit_position, min(1 << 62, horizon_ns))
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return _REASONS[reason]

    def request_stop(self) -> None:
        """From a callback: stop at the next place where the engine can."""
        self._lib.tk_request_stop(self._handle)

    def replan(self) -> None:
        """From a callback: a limit, a timer or the clock has changed."""
        self._lib.tk_plan(self._handle)

    def set_line(self, vcpu: int, level: bool) -> None:
        """The IRQ input of a vCPU."""
        if self.state.line[vcpu] != level:
            self._lib.tk_set_line(self._handle, vcpu, level)

    def take_interrupt(self) -> None:
        """Enter the loaded vCPU's IRQ vector, whatever PSTATE.I says (ask irq_masked() first)."""
        self._lib.tk_take_interrupt(self._handle)

    def stop_at_wfe(self, wanted: bool) -> None:
        """Whether a WFE ends run() from now on (only with EngineConfig.stops_at_wfe)."""
        self.state.stops_at_wfe = wanted

    def irq_masked(self) -> bool:
        """PSTATE.I of the loaded vCPU."""
        return bool(self._uc.reg_read(arm.UC_ARM64_REG_PSTATE) & 0x80)

    # --- breakpoints ----------------------------------------------------------------------------------------------------------

    def watch_pc(self, pc: int, reached: Callable[[int, int, int], None]) -> int:
        """From now on tell reached(position, vcpu, pc) whenever a vCPU is about to execute the instruction at this virtual address, and
        go on. It must not raise. Memory is not touched, no other instruction pays; translated code is forgotten once. Gives a handle.
        """
        state = self.state

        def hook(_uc: object, address: int, _size: int, _user: object) -> None:
            if state.block_end > address:  # else its block was refused: it will be told when it runs
                reached(int(state.stop_position) - (int(state.left) + int(state.block_end) - address >> 2), self.vcpu, address)

        handle = int(self._uc.hook_add(const.UC_HOOK_CODE, hook, None, pc, pc))
        self.flush_code()
        return handle

    def unwatch_pc(self, handle: int) -> None:
        """What watch_pc() gave is not told any more."""
        self._uc.hook_del(handle)
        self.flush_code()

    # --- registers ------------------------------------------------------------------------------------------------------------

    def pc(self) -> int:
        """PC of the loaded vCPU."""
        return int(self._uc.reg_read(arm.UC_ARM64_REG_PC))

    def exception_level(self) -> int:
        """Exception level of the loaded vCPU, 0 or 1."""
        return int(self._uc.reg_read(arm.UC_ARM64_REG_PSTATE)) >> 2 & 3

    def x(self, n: int) -> int:
        """General register Xn of the loaded vCPU, n in 0..28."""
        return int(self._uc.reg_read(arm.UC_ARM64_REG_X0 + n))

    def general(self, count: int) -> tuple[int, ...]:
        """X0..X(count-1) of the loaded vCPU."""
        return tuple(self.x(n) for n in range(count))

    def set_x(self, n: int, value: int) -> None:
        """Write general register Xn of the loaded vCPU."""
        self._uc.reg_write(arm.UC_ARM64_REG_X0 + n, value)

    def set_vectors(self, address: int) -> None:
        """VBAR_EL1 of the loaded vCPU."""
        self._uc.reg_write(arm.UC_ARM64_REG_VBAR_EL1, address)

    def reset_vcpu(self, vcpu: int, entry: int, x0: int) -> None:
        """Architectural reset of one vCPU: EL1h, MMU off, interrupts masked, PC = entry, X0 = x0, timers off."""
        self._check(self._lib.tk_reset_vcpu(self._handle, vcpu, entry, x0), "reset a vCPU")

    def registers(self, vcpu: int) -> Registers:
        """The portable register list of one vCPU."""
        raw = (c_uint64 * VALUES)()
        self._lib.tk_read_registers(self._handle, vcpu, PLAIN_IDS, len(PLAIN), SYSTEM_IDS, len(SYSTEM), raw)
        return canonical(list(raw))

    def set_registers(self, vcpu: int, registers: Registers) -> None:
        """Load a vCPU from its portable list (the exclusive monitor is cleared)."""
        raw = (c_uint64 * VALUES)(*registers.values)
        error = self._lib.tk_write_registers(self._handle, vcpu, PLAIN_IDS, len(PLAIN), SYSTEM_IDS, len(SYSTEM), raw, None)
        self._check(error, "load registers")

    def portable(self, vcpu: int) -> Portable:
        """All that a vCPU is between two runs at a mark, in portable form."""
        names = further_of(self.config.cpu)
        raw, ids = (c_uint64 * (VALUES + len(names)))(), system_ids(names)
        self._lib.tk_read_registers(self._handle, vcpu, PLAIN_IDS, len(PLAIN), ids, len(SYSTEM) + len(names), raw)
        values = list(raw)
        end = _SYSTEM_END + len(names)
        registers = canonical(values[:_SYSTEM_END] + values[end:])
        sve = sve_of(self.context(vcpu)) if self.config.cpu == "max" else b""
        return Portable(registers, tuple(zip(names, values[_SYSTEM_END:end], strict=True)), sve)

    def set_portable(self, vcpu: int, portable: Portable) -> None:
        """Load a vCPU from what portable() gave; further registers that are not among them are as after a reset."""
        lists, raw = self._portable_lists(portable)
        error = self._lib.tk_write_registers(self._handle, vcpu, *lists, raw, self._portable_base(portable))
        self._check(error, "load registers")

    def portable_gap(self, vcpu: int) -> int | None:
        """Offset in a vCPU's context of something that portable() does not hold; None if there is nothing."""
        portable = self.portable(vcpu)
        lists, raw = self._portable_lists(portable)
        clock = _clock_offset(self.config.cpu)
        base = self._portable_base(portable)
        gap = int(self._lib.tk_portable_gap(self._handle, vcpu, *lists, raw, clock, base))
        self._check(-1 if gap == -2 else 0, "compare contexts")
        return None if gap < 0 else gap

    def _portable_lists(self, portable: Portable) -> tuple[tuple[Any, ...], ctypes.Array[c_uint64]]:
        mine = [(name, value) for name, value in portable.further if name in further_of(self.config.cpu)]
        values = portable.registers.values
        raw = (*values[:_SYSTEM_END], *(value for _, value in mine), *values[_SYSTEM_END:])
        ids = system_ids(tuple(name for name, _ in mine))
        return (PLAIN_IDS, len(PLAIN), ids, len(SYSTEM) + len(mine)), (c_uint64 * len(raw))(*raw)

    def _portable_base(self, portable: Portable) -> bytes | None:
        return with_sve(self._after_reset, portable.sve) if portable.sve and self.config.cpu == "max" else None

    def build(self) -> str:
        """Engine version, host and CPU model: contexts may be exchanged between equal builds."""
        return f"unicorn {version()} {sys.platform} {platform.machine()} {self.config.cpu}"

    def context(self, vcpu: int) -> bytes:
        """The engine's own form of a vCPU: exact, but only for this build of the engine."""
        blob = ctypes.create_string_buffer(self._lib.tk_context_size(self._handle))
        self._lib.tk_context_get(self._handle, vcpu, blob)
        return blob.raw

    def set_context(self, vcpu: int, blob: bytes) -> None:
        """Load what context() gave."""
        if len(blob) != self._lib.tk_context_size(self._handle):
            raise EngineError("a saved context is of another engine build; restore the portable registers instead")
        self._check(self._lib.tk_context_set(self._handle, vcpu, blob), "load a context")

    # --- capture -----------------------------------------------------------------------------------------------------------------

    def columns(self, table: int) -> native.Columns:
        """The buffered rows of a thick table."""
        return self._columns[table]

    def swap_columns(self, table: int, empty: native.Columns) -> native.Columns:
        """Capture goes on in another buffer, which must live on until it is swapped again; gives the one with the rows so far."""
        full, self._columns[table] = self._columns[table], empty
        self._lib.tk_capture_into(self._handle, table, ctypes.byref(empty))
        return full

    def captures(self, table: int) -> bool:
        """Whether that thick table is being captured."""
        state = self.state
        return bool((state.captures_writes, state.captures_reads, state.captures_blocks)[table])

    def drop_rows(self, table: int, count: int) -> None:
        """The first `count` buffered rows have been taken over."""
        self._lib.tk_capture_drop(self._handle, table, count)

    def close_run(self) -> None:
        """End the straight run of instructions that is being captured."""
        if self.state.captures_blocks:
            self._lib.tk_close_run(self._handle)
