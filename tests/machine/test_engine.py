"""Counting, stopping, exceptions and state of the machine on bundled guests."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, console, recorded, replayed, rows, scenario

from tracekit.formats.reader import Trace
from tracekit.machine.board import Board
from tracekit.machine.engine import StopReason
from tracekit.machine.events import Row
from tracekit.recorder.record import load_guest
from tracekit.recorder.session import Recording, board_config


class Quiet:
    """A sink and director that keeps console bytes and lets SGIs land at once."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.rows: list[tuple[str, Row]] = []

    def row(self, table: str, row: Row) -> None:
        self.rows.append((table, row))

    def console_byte(self, row: Row, index: int, byte: int) -> None:
        self.bytes.append(byte)

    def thick_rows(self, table: str, columns: Any, count: int) -> None:
        pass

    def thick_buffer(self, table: str, columns: Any, count: int, release: Callable[[], None]) -> None:
        try:
            self.thick_rows(table, columns, count)
        finally:
            release()

    def deliver_sgi(self, source: int, target: int, intid: int, at_ns: int) -> int | None:
        return at_ns

    def line_raised(self, vcpu: int, at_ns: int) -> None:
        pass


def board(guest: str, **changes: Any) -> tuple[Board, Quiet]:
    """A bare board with a guest at its entry, no host and no hypervisor."""
    chosen = scenario(guest, vcpus=1, **changes)
    loaded = load_guest(chosen)
    quiet = Quiet()
    made = Board(board_config(chosen), quiet, quiet)
    made.load(loaded.segments)
    made.engine.reset_vcpu(0, loaded.entry, loaded.x0)
    made.enter(0, 0)
    return made, quiet


def run_to(made: Board, position: int) -> None:
    """Run to exactly this position; calls are answered with NOT_SUPPORTED."""
    while made.engine.position < position:
        reason = made.run(position, 1 << 60)
        if reason is StopReason.INTERRUPT:
            made.take_interrupt()
        elif reason is StopReason.HYPERCALL:
            call = made.hypercall()
            with made.at(call.position, call.ns):
                made.finish_hypercall(call, made.sequence(call.position), ((1 << 64) - 1, 0, 0, 0), None)
        elif reason is StopReason.WFI:  # nobody is there to sleep: go on at the timer's time
            due = made.timer_due_ns(0)
            assert due is not None
            made.enter(0, due)
            made.update_timers(0, due)
        else:
            assert reason in (StopReason.LIMIT, StopReason.REQUESTED), reason


@pytest.mark.parametrize("guest", ["faults", "memory", "timer", "spinlock"])
@pytest.mark.parametrize("mode", ["fast", "exact", "safe"])
def test_block_counts_are_instruction_counts(tmp_path: Path, guest: str, mode: str) -> None:
    """A whole run counted by blocks equals one counted instruction by instruction, event for event."""
    host = busy_host("fair", pcpus=2)
    recorded(tmp_path / "block.tkt", guest, host=host, engine_mode=mode)

    assert replayed(tmp_path / "block.tkt", counting="instruction").is_identical
    assert replayed(tmp_path / "block.tkt", page_size=1024).is_identical


@pytest.mark.parametrize("guest", ["faults", "memory"])
def test_stops_at_every_position(guest: str) -> None:
    """Stopping at any instruction changes nothing: registers agree with the per-instruction reference."""
    exact, _ = board(guest)
    reference, _ = board(guest, engine_counting="instruction")
    for position in [*range(1, 200), *range(1_000, 30_000, 997)]:
        run_to(exact, position)
        run_to(reference, position)
        assert exact.engine.position == position
        assert exact.registers(0) == reference.registers(0), position


def test_every_exception_class(tmp_path: Path) -> None:
    """The guest checks syndrome, fault address, return address and saved state of each class itself."""
    recorded(tmp_path / "faults.tkt", "faults", vcpus=1)
    text = console(tmp_path / "faults.tkt")

    assert text.endswith("PASS\n"), text
    assert text.count("ok   EL1") == 16
    assert text.count("ok   EL0") == 21


@pytest.mark.parametrize("page_size", [1024, 4096])
@pytest.mark.parametrize("mode", ["fast", "exact", "safe"])
def test_no_stale_code(tmp_path: Path, mode: str, page_size: int) -> None:
    """Self-modifying code, and code patched through a W^X alias, also with DC ZVA."""
    recorded(tmp_path / "memory.tkt", "memory", engine_mode=mode, engine_page_size=page_size)

    assert console(tmp_path / "memory.tkt").endswith("PASS\n"), console(tmp_path / "memory.tkt")


@pytest.mark.parametrize("guest", ["hello", "steal", "spinlock", "timer", "faults", "memory", "lse"])
def test_writes_explain_memory(tmp_path: Path, guest: str) -> None:
    """Initial RAM plus every memory_writes row is final RAM, byte for byte."""
    chosen = scenario(guest, capture="writes", host=busy_host())
    collected: list[tuple[int, int, int]] = []
    session = Recording(chosen, load_guest(chosen), None)
    before = dict(session.board.memory.pages())

    def thick(table: str, columns: Any, count: int) -> None:
        if table == "memory_writes":
            collected.extend((columns.ipa[i], columns.size[i], columns.value[i]) for i in range(count))

    def row(table: str, one: Row) -> None:
        if table == "memory_writes":
            collected.append((one[5], one[6], one[7]))

    session.board._sink.thick_rows = thick  # type: ignore[method-assign]
    session.board._sink.row = row  # type: ignore[method-assign]
    session.run()

    memory = {index: bytearray(content) for index, content in before.items()}
    for ipa, size, value in collected:
        for at, byte in enumerate(int(value).to_bytes(size, "little"), start=ipa):
            memory.setdefault(at >> 12, bytearray(4096))[at & 0xFFF] = byte
    expected = {index: bytes(page) for index, page in memory.items() if any(page)}
    assert expected == dict(session.board.memory.pages())
    assert len(collected) > 2


@pytest.mark.parametrize("guest", ["memory", "timer"])
def test_saved_state_continues_in_another_process(tmp_path: Path, guest: str) -> None:
    """A machine saved in the middle becomes the same machine elsewhere: by contexts, and by the portable registers."""
    straight, _ = board(guest)
    run_to(straight, 1_500)
    (tmp_path / "state").write_bytes(pickle.dumps(straight.save()))
    run_to(straight, 3_000)
    expected = (straight.registers(0).digest() + straight.memory.digest()).hex()

    program = f"""
import pickle, sys, dataclasses
sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from test_engine import board, run_to
state = pickle.loads(open({str(tmp_path / "state")!r}, "rb").read())
for build in (state.engine_build, "another engine"):
    made, _ = board({guest!r})
    made.restore(dataclasses.replace(state, engine_build=build))
    run_to(made, 3_000)
    print((made.registers(0).digest() + made.memory.digest()).hex())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, expected]


def test_two_pcpus_progress_evenly(tmp_path: Path) -> None:
    """Two vCPUs on two physical CPUs each retire vtime / ns_per_instruction instructions."""
    for ratio in ((1, 1), (3, 2)):
        path = tmp_path / f"{ratio[0]}.tkt"
        recorded(path, "spinlock", host=busy_host(pcpus=2).__class__(pcpus=2), ns_per_instruction=ratio, max_vtime_ns=1_000_000)
        trace = Trace.open(path)
        end = trace.manifest["end"]
        started = next(row["vtime_ns"] for row in rows(path, "schedule") if row["vcpu"] == 1 and row["event"] == "online")
        expected = (end["vtime_ns"] + end["vtime_ns"] - started) * ratio[1] // ratio[0]
        assert abs(end["position"] - expected) <= 2


def test_counters_never_step_back(tmp_path: Path) -> None:
    """Along position, what guests read from the counter is monotone over all vCPUs: timer guests see none early."""
    recorded(tmp_path / "timer.tkt", "timer", host=busy_host("chaos", pcpus=2), seed=5)

    assert "early 0" in console(tmp_path / "timer.tkt")


NOT_MODELLED = {
    # what: (code, what the architecture would do)
    "floating-point access with CPACR_EL1.FPEN = 0": ([0xD2800000, 0xD5181040, 0xD5033FDF, 0x1E604000], "trap, EC 0x07"),
    "alignment check with SCTLR_EL1.A = 1": (
        [0xD5381000, 0xB27F0000, 0xD5181000, 0xD5033FDF, 0xD2A80001, 0xF8401020],
        "data abort, alignment",
    ),
}


@pytest.mark.parametrize("what", NOT_MODELLED)
def test_not_modelled(what: str) -> None:
    """docs/machine.md lists what the engine cannot raise; if this fails, the engine has learnt it and the list must shrink."""
    made, _ = board("hello")
    code, _ = NOT_MODELLED[what]
    made.load([(0x40400000, b"".join(word.to_bytes(4, "little") for word in [*code, 0x14000000]))])
    made.engine.reset_vcpu(0, 0x40400000, 0)
    made.enter(0, 0)
    run_to(made, len(code))

    assert made.engine.pc() == 0x40400000 + 4 * len(code)
