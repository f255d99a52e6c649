"""The machine's state as plain JSON values: what a checkpoint keeps, without pages and without any engine's private form.

encode() gives one form for one state; decode() believes nothing. Spec: formats/SPEC.md "Checkpoints".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tracekit.formats.errors import TracekitError
from tracekit.machine.console import ROW_BYTES_MAX
from tracekit.machine.events import Row
from tracekit.machine.further import BREAKPOINTS, FURTHER, FurtherValues
from tracekit.machine.gic import ACTIVE_DEPTH_MAX, INTERRUPTS, SHARED_VALUES, GicState
from tracekit.machine.map import TIMER_PPIS
from tracekit.machine.native import VCPUS_MAX
from tracekit.machine.pl011 import REGISTER_MASKS, Pl011State
from tracekit.machine.registers import NAMES, Registers
from tracekit.machine.state import MachineState, TimerState, VcpuState
from tracekit.machine.vectors import SVE_BYTES

T = TypeVar("T")

_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1
_PLACE_MAX = (1 << 63) - 1  # positions and times of rows
_NS_MAX = (1 << 62) - 1  # times of the board
_SEQUENCE_MAX = (1 << 31) - 1
_REMAINDER_MAX = (1 << 16) - 1
_WAITING_BYTES_MAX = 16 << 20
_PSTATE_MODES = (0x0, 0x4, 0x5)  # EL0t, EL1t, EL1h
_PSTATE_BITS = 0xF3F0_1FC0  # NZCV, TCO, DIT, UAO, PAN, SS, IL, SSBS, BTYPE, DAIF
_REGISTER_MAX = {"pstate": _U32, "fpcr": _U32, "fpsr": _U32}
# Of each vCPU's bank, as GicState has it: enabled, pending, level, active, group, config, ctlr, pmr, bpr, then lists.
_BANK_MAX = (*[_U32] * 6, 0x201, 0xFF, 7, *[0xFF] * 32, *[0xFF] * 16)


class StateError(TracekitError):
    """A saved state that describes no machine; the text says where."""


# --- writing ------------------------------------------------------------------------------------------------------------------


def encode(state: MachineState) -> dict[str, Any]:
    """Plain values of everything but pages and contexts."""
    return {
        "position": state.position,
        "sequence": list(state.sequence),
        "loaded_vcpu": state.loaded_vcpu,
        "clock_ns": state.clock_ns,
        "counter_high_ns": state.counter_high_ns,
        "random_state": state.random_state,
        "vcpus": [_encode_vcpu(vcpu) for vcpu in state.vcpus],
        "gic": {
            "enabled": state.gic.enabled,
            "banks": [list(bank) for bank in state.gic.banks],
            "shared": list(state.gic.shared),
        },
        "uart": {
            "registers": list(state.uart.registers),
            "mask": state.uart.mask,
            "raw": state.uart.raw,
            "waiting": state.uart.waiting.hex(),
        },
        "console": None if state.console is None else [*state.console[:4], state.console[4].hex()],
    }


def _encode_vcpu(vcpu: VcpuState) -> dict[str, Any]:
    return {
        "registers": vcpu.registers.as_dict(),
        "further": dict(vcpu.further),
        "sve": vcpu.sve.hex(),
        "timers": [[timer.cval, timer.ctl, timer.asserted] for timer in vcpu.timers],
        "local_ns": vcpu.local_ns,
        "remainder": vcpu.remainder,
    }


def enabled_breakpoint(state: MachineState) -> str | None:
    """In words, a hardware breakpoint that is on: the engine keeps more behind it than registers, so decode() takes none."""
    for number, vcpu in enumerate(state.vcpus):
        for name, value in vcpu.further:
            if name in BREAKPOINTS and value & 1:
                return f"vCPU {number} has a hardware breakpoint ({name})"
    return None


# --- reading ------------------------------------------------------------------------------------------------------------------


def decode(value: object, vcpu_count: int) -> MachineState:
    """What encode() gave, for a board of vcpu_count vCPUs. Keys that are not known are left alone.

    Errors: StateError for anything that no machine can be.
    """
    assert 1 <= vcpu_count <= VCPUS_MAX
    root = _mapping(value, "state")
    position = _field(root, "state", "position", _number(_PLACE_MAX))
    sequence = _field(root, "state", "sequence", _numbers((_PLACE_MAX, _SEQUENCE_MAX)))
    if sequence[0] > position:
        raise StateError(f"state.sequence: {sequence[0]} is behind position {position}")
    gic = _field(root, "state", "gic", _mapping)
    banks = _field(gic, "state.gic", "banks", _list_of(_bank, vcpu_count))
    uart = _field(root, "state", "uart", _mapping)
    return MachineState(
        engine_build="",
        position=position,
        loaded_vcpu=_field(root, "state", "loaded_vcpu", _number(vcpu_count - 1)),
        counter_high_ns=_field(root, "state", "counter_high_ns", _number(_NS_MAX)),
        random_state=_field(root, "state", "random_state", _number(_U64)),
        sequence=(sequence[0], sequence[1]),
        clock_ns=_field(root, "state", "clock_ns", _number(_NS_MAX)),
        vcpus=_field(root, "state", "vcpus", _list_of(_vcpu, vcpu_count)),
        gic=GicState(
            enabled=_field(gic, "state.gic", "enabled", _flag),
            banks=banks,
            shared=_field(gic, "state.gic", "shared", _numbers(_shared_max(vcpu_count))),
        ),
        uart=Pl011State(
            registers=_field(uart, "state.uart", "registers", _numbers(tuple(REGISTER_MASKS.values()))),
            mask=_field(uart, "state.uart", "mask", _number(0x7FF)),
            raw=_field(uart, "state.uart", "raw", _number(0x7FF)),
            waiting=_field(uart, "state.uart", "waiting", _bytes(0, _WAITING_BYTES_MAX)),
        ),
        console=_field(root, "state", "console", lambda row, where: _console(row, where, position, vcpu_count)),
        pages={},
    )


def _vcpu(value: object, where: str) -> VcpuState:
    vcpu = _mapping(value, where)
    timers = _field(vcpu, where, "timers", _list_of(_timer, len(TIMER_PPIS)))
    return VcpuState(
        registers=_field(vcpu, where, "registers", _registers),
        context=b"",
        further=_field(vcpu, where, "further", _further),
        sve=_field(vcpu, where, "sve", _sve),
        timers=timers,
        local_ns=_field(vcpu, where, "local_ns", _number(_NS_MAX)),
        remainder=_field(vcpu, where, "remainder", _number(_REMAINDER_MAX)),
    )


def _registers(value: object, where: str) -> Registers:
    given = _mapping(value, where)
    if len(given) != len(NAMES):
        raise StateError(f"{where}: {len(given)} registers instead of {len(NAMES)}")
    values = tuple(_field(given, where, name, _number(_REGISTER_MAX.get(name, _U64))) for name in NAMES)
    registers = Registers(values)
    pstate = registers["pstate"]
    if pstate & 0x1F not in _PSTATE_MODES or pstate & ~_PSTATE_BITS & ~0x1F:
        raise StateError(f"{where}.pstate: {pstate:#x} is neither EL0 nor EL1 in AArch64")
    return registers


def _further(value: object, where: str) -> FurtherValues:
    given = _mapping(value, where)
    values = tuple((one.name, _field(given, where, one.name, _number(one.value_max))) for one in FURTHER if one.name in given)
    if len(values) != len(given):
        raise StateError(f"{where}: {len(given) - len(values)} registers that no vCPU has")
    for name, number in values:
        if name in BREAKPOINTS and number & 1:
            raise StateError(f"{where}.{name}: an enabled hardware breakpoint cannot be restored")
    return values


def _sve(value: object, where: str) -> bytes:
    sve = _bytes(0, SVE_BYTES)(value, where)
    if len(sve) not in (0, SVE_BYTES):
        raise StateError(f"{where}: {len(sve)} bytes instead of {SVE_BYTES}")
    return sve


def _timer(value: object, where: str) -> TimerState:
    parts = _list(value, where, 3)
    return TimerState(
        cval=_number(_U64)(parts[0], f"{where}[0]"),
        ctl=_number(3)(parts[1], f"{where}[1]"),
        asserted=_flag(parts[2], f"{where}[2]"),
    )


def _bank(value: object, where: str) -> tuple[int, ...]:
    values = _list(value, where, None)
    fixed, running = values[: len(_BANK_MAX)], values[len(_BANK_MAX) :]
    if len(running) % 2 or len(running) > 2 * ACTIVE_DEPTH_MAX:
        raise StateError(f"{where}: {len(values)} values")
    limits = (0xFF, INTERRUPTS - 1) * (len(running) // 2)
    return (*_numbers(_BANK_MAX)(fixed, where), *_numbers(limits)(running, where))


def _shared_max(vcpu_count: int) -> tuple[int, ...]:
    maxima = {"words": _U32, "priorities": 0xFF, "targets": (1 << vcpu_count) - 1}
    return tuple(maxima[kind] for kind, count in SHARED_VALUES for _ in range(count))


def _console(value: object, where: str, position: int, vcpu_count: int) -> Row | None:
    if value is None:
        return None
    row = _list(value, where, 5)
    head = _numbers((position, _SEQUENCE_MAX, _PLACE_MAX, vcpu_count - 1))(row[:4], where)
    return (*head, _bytes(1, ROW_BYTES_MAX - 1)(row[4], f"{where}[4]"))


# --- the pieces ---------------------------------------------------------------------------------------------------------------


def _field(holder: Mapping[str, object], where: str, name: str, read: Callable[[object, str], T]) -> T:
    if name not in holder:
        raise StateError(f"{where}.{name}: missing")
    return read(holder[name], f"{where}.{name}")


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise StateError(f"{where}: not an object")
    return value


def _list(value: object, where: str, length: int | None) -> list[object]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise StateError(f"{where}: not a list{f' of {length}' if length is not None else ''}")
    return value


def _list_of(read: Callable[[object, str], T], length: int) -> Callable[[object, str], tuple[T, ...]]:
    return lambda value, where: tuple(read(one, f"{where}[{n}]") for n, one in enumerate(_list(value, where, length)))


def _number(maximum: int) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise StateError(f"{where}: not a number of 0 to {maximum}")
        return value

    return read


def _numbers(maxima: tuple[int, ...]) -> Callable[[object, str], tuple[int, ...]]:
    def read(value: object, where: str) -> tuple[int, ...]:
        values = _list(value, where, len(maxima))
        return tuple(_number(maximum)(one, f"{where}[{n}]") for n, (one, maximum) in enumerate(zip(values, maxima, strict=True)))

    return read


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise StateError(f"{where}: neither true nor false")
    return value


def _bytes(least: int, most: int) -> Callable[[object, str], bytes]:
    def read(value: object, where: str) -> bytes:
        if not isinstance(value, str) or not 2 * least <= len(value) <= 2 * most:
            raise StateError(f"{where}: not {least} to {most} bytes in hexadecimal")
        try:
            data = bytes.fromhex(value)
        except ValueError:
            raise StateError(f"{where}: not hexadecimal") from None
        if data.hex() != value:
            raise StateError(f"{where}: not written as lower-case hexadecimal")
        return data

    return read
