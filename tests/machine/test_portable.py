"""The machine's state as JSON values: one form for one state, and nothing believed on the way back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Quiet, running

from tracekit.machine.board import Board, BoardConfig
from tracekit.machine.engine import EngineConfig
from tracekit.machine.further import BREAKPOINTS, FURTHER, FurtherValues
from tracekit.machine.gic import SHARED_VALUES, GicState
from tracekit.machine.pl011 import REGISTER_MASKS, Pl011State
from tracekit.machine.portable import StateError, decode, encode
from tracekit.machine.registers import NAMES, Registers
from tracekit.machine.state import MachineState, TimerState, VcpuState
from tracekit.machine.vectors import SVE_BYTES

POSITION = 30_000

u32, u64, byte = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, 255)
times = st.integers(0, (1 << 62) - 1)
pstates = st.builds(lambda mode, bits: mode | bits & 0xF3F0_1FC0, st.sampled_from((0, 4, 5)), u32)
timers = st.builds(TimerState, u64, st.integers(0, 3), st.booleans())
sve = st.just(b"") | st.binary(min_size=1, max_size=4).map(lambda seed: (seed * SVE_BYTES)[:SVE_BYTES])
running_interrupts = st.lists(st.tuples(byte, st.integers(0, 287)), max_size=64).map(
    lambda pairs: [x for pair in pairs for x in pair]
)
banks = st.builds(
    lambda words, interface, lists, active: (*words, *interface, *lists, *active),
    st.lists(u32, min_size=6, max_size=6),
    st.tuples(st.integers(0, 0x201), byte, st.integers(0, 7)),
    st.lists(byte, min_size=48, max_size=48),
    running_interrupts,
)


@st.composite
def registers(draw: st.DrawFn) -> Registers:
    narrow = {"pstate": pstates, "fpcr": u32, "fpsr": u32}
    return Registers(tuple(draw(narrow.get(name, u64)) for name in NAMES))


@st.composite
def further(draw: st.DrawFn) -> FurtherValues:
    """Some of the registers beyond the list, no breakpoint enabled."""
    values = [(one.name, draw(st.integers(0, one.value_max))) for one in FURTHER if draw(st.booleans())]
    return tuple((name, value & ~1 if name in BREAKPOINTS else value) for name, value in values)


@st.composite
def states(draw: st.DrawFn) -> MachineState:
    """Any machine that may exist, of one or two vCPUs."""
    count, position = draw(st.integers(1, 2)), draw(st.integers(0, (1 << 63) - 1))
    sources = {"words": u32, "priorities": byte, "targets": st.integers(0, (1 << count) - 1)}
    shared = tuple(x for kind, length in SHARED_VALUES for x in draw(st.lists(sources[kind], min_size=length, max_size=length)))
    head = st.tuples(st.integers(0, position), st.integers(0, 1 << 30), times, st.integers(0, count - 1))
    row = st.builds(lambda head, data: (*head, data), head, st.binary(min_size=1, max_size=255))
    vcpu = st.builds(
        VcpuState, registers(), st.just(b""), st.tuples(timers, timers), times, st.integers(0, (1 << 16) - 1), further(), sve
    )  # fmt: skip
    return MachineState(
        engine_build="",
        position=position,
        loaded_vcpu=draw(st.integers(0, count - 1)),
        counter_high_ns=draw(times),
        random_state=draw(u64),
        sequence=(draw(st.integers(0, position)), draw(st.integers(0, (1 << 31) - 1))),
        clock_ns=draw(times),
        vcpus=tuple(draw(vcpu) for _ in range(count)),
        gic=GicState(draw(st.booleans()), tuple(draw(banks) for _ in range(count)), shared),
        uart=Pl011State(
            tuple(draw(st.integers(0, mask)) for mask in REGISTER_MASKS.values()),
            draw(st.integers(0, 0x7FF)),
            draw(st.integers(0, 0x7FF)),
            draw(st.binary(max_size=40)),
        ),
        console=draw(st.none() | row),
        pages={},
    )


@settings(max_examples=40, deadline=None)
@given(state=states())
def test_round_trip(state: MachineState) -> None:
    """Through real JSON, to an equal value and an equal form."""
    form = encode(state)
    text = json.dumps(form, sort_keys=True)
    again = decode(json.loads(text), len(state.vcpus))
    assert again == state
    assert json.dumps(encode(again), sort_keys=True) == text


def test_round_trip_of_running_machines() -> None:
    """What a board gives is what decode() takes."""
    for guest in ("memory", "faults"):
        with running(guest, vcpus=2, position=POSITION) as board:
            state = board.save_portable()
            assert decode(json.loads(json.dumps(encode(state))), 2) == state


# --- hostile ------------------------------------------------------------------------------------------------------------------


def example() -> dict[str, Any]:
    with running("memory", vcpus=2, position=POSITION) as board:
        form = encode(board.save_portable())
    form["console"] = [1, 2, 3, 0, "41"]
    return form


EXAMPLE = example()
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


PLACES = places(EXAMPLE)[1:]


def changed(place: tuple[Any, ...], how: Any) -> dict[str, Any]:
    form = copy.deepcopy(EXAMPLE)
    holder: Any = form
    for key in place[:-1]:
        holder = holder[key]
    if how == "remove":
        del holder[place[-1]]
    else:
        holder[place[-1]] = how
    return form


@settings(max_examples=1500, deadline=None)
@given(place=st.sampled_from(PLACES), how=st.just("remove") | junk)
def test_hostile_values(place: tuple[Any, ...], how: Any) -> None:
    """A wrong value anywhere is a StateError that names a place, or still a state."""
    form = changed(place, how)
    try:
        state = decode(form, 2)
    except StateError as error:
        assert str(error).startswith("state")
    else:
        assert encode(state) == form


@pytest.fixture(scope="module")
def small_board() -> Any:
    engine = EngineConfig(takes_interrupts=False)
    quiet = Quiet()
    rate = 1 << 16  # so that every remainder that decode() lets through is one
    config = BoardConfig(vcpu_count=2, ram_size=1 << 20, ns_numerator=rate, ns_denominator=rate, engine=engine)
    board = Board(config, quiet, quiet)
    yield board
    board.close()


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(PLACES), number=st.integers(0, (1 << 64) - 1))
def test_whatever_is_valid_can_be_restored(small_board: Board, place: tuple[Any, ...], number: int) -> None:
    """And run, however absurd: the guest's code is not even there."""
    try:
        state = decode(changed(place, number), 2)
    except StateError:
        return
    small_board.restore_portable(state, {})
    taken = small_board.save_portable()  # bits that a register does not have are gone
    small_board.restore_portable(decode(encode(taken), 2), {})
    assert small_board.save_portable() == taken
    small_board.run(state.position + 100, 1 << 60)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("vcpus", 0, "registers", "pstate"), 0x3CD, "neither EL0 nor EL1"),
        (("vcpus", 0, "registers", "pstate"), 0x1D0, "neither EL0 nor EL1"),
        (("vcpus", 0, "registers", "x0"), 1 << 64, "x0: not a number"),
        (("vcpus", 0, "registers", "x0"), True, "x0: not a number"),
        (("vcpus", 0, "registers", "x0"), 1.0, "x0: not a number"),
        (("vcpus", 0, "timers", 0, 1), 4, "timers"),
        (("vcpus", 0, "further", "dbgbcr3_el1"), 1, "dbgbcr3_el1: an enabled hardware breakpoint"),
        (("vcpus", 0, "sve"), "00", "sve: 1 bytes instead of"),
        (("vcpus", 0, "further", "x31"), 1, "further: 1 registers that no vCPU has"),
        (("vcpus", 0, "further", "pmselr_el0"), 32, "pmselr_el0: not a number"),
        (("vcpus",), [], "vcpus: not a list of 2"),
        (("loaded_vcpu",), 2, "loaded_vcpu"),
        (("sequence", 0), POSITION + 1, "behind position"),
        (("gic", "banks", 0, 5), 1 << 32, "banks"),
        (("uart", "waiting"), "4", "hexadecimal"),
        (("uart", "waiting"), "4G", "hexadecimal"),
        (("uart", "waiting"), "4A", "lower-case"),
        (("console", 4), "", "1 to 255 bytes"),
        (("console", 3), 2, "console"),
    ],
)
def test_what_is_said(place: tuple[Any, ...], value: Any, message: str) -> None:
    """Where and what."""
    with pytest.raises(StateError, match=message):
        decode(changed(place, value), 2)
