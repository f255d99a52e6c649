"""The saved machine: plain values, usable in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tracekit.machine.events import Row
from tracekit.machine.further import FurtherValues
from tracekit.machine.gic import GicState
from tracekit.machine.pl011 import Pl011State
from tracekit.machine.registers import Registers


@dataclass(frozen=True, slots=True)
class TimerState:
    """One generic timer: compare value (ticks of 16 ns), CTL bits 1:0, level of its line."""

    cval: int
    ctl: int
    asserted: bool


@dataclass(frozen=True, slots=True)
class VcpuState:
    """One vCPU. `context` is the engine's own form, good for one engine build; `registers`, `further` and `sve` are the truth everywhere else."""

    registers: Registers
    context: bytes
    timers: tuple[TimerState, ...]
    local_ns: int
    remainder: int
    further: FurtherValues = ()
    sve: bytes = b""


@dataclass(frozen=True, slots=True)
class MachineState:
    """The whole machine between two instructions. pages: non-zero 4 KiB pages by (ipa >> 12)."""

    engine_build: str
    position: int
    loaded_vcpu: int
    counter_high_ns: int
    random_state: int
    sequence: tuple[int, int]
    clock_ns: int
    vcpus: tuple[VcpuState, ...]
    gic: GicState
    uart: Pl011State
    console: Row | None
    pages: Mapping[int, bytes]
