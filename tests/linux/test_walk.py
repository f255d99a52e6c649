"""Walking through a boot of Debian's kernel: exact at random places, through the kernel's own page tables."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

import tracekit
from tracekit.formats.reader import Trace
from tracekit.machine.portable import encode
from tracekit.replay.session import Replay
from tracekit.replay.stops import Reason
from tracekit.replay.translation import NotMapped
from tracekit.replay.walk import Walk

pytestmark = pytest.mark.slow
LDR, LDR_MASK = 0xF9400000, 0xFFC00000  # LDR Xt, [Xn, #imm]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two vCPUs that share a physical CPU with a neighbour."""
    path = tmp_path_factory.mktemp("walk") / "a.tkt"
    script = REPOSITORY / "samples" / "linux" / "record.py"
    done = subprocess.run([sys.executable, script, path, "--vcpus", "2", "--neighbour", "50%:2ms"])
    if done.returncode == 2:
        pytest.skip("Debian's kernel cannot be had")
    return path


def state(session: Any) -> tuple[Any, ...]:
    """All that a place is."""
    return encode(session.board.save_portable()), session.board.memory.digest(), session.standing.sgis


def test_random_places(boot: Path) -> None:
    """Each is what a straight replay has there, after steps away and back too; both ways show the same."""
    replay = Replay(Trace.open(boot))
    wanted = random.Random(4).sample(range(replay.end_position), 30)
    expected = {}
    for position in sorted(wanted):
        replay.run_to(position)
        replay.decide_here()
        expected[position] = state(replay)
    replay.board.close()
    with tracekit.session(boot) as walk:
        for position in wanted:
            walk.goto(position)
            assert state(walk._session) == expected[position], position
            forwards = []
            for _ in range(20):
                forwards.append((walk.position, walk.pc, walk.vcpu))
                walk.step()
            backwards = []
            while walk.position > position:
                walk.step(-1)
                backwards.append((walk.position, walk.pc, walk.vcpu))
            assert backwards[::-1] == forwards
            walk.step(-700_000)
            walk.step(700_000)
            assert state(walk._session) == expected[position], position


def loads(walk: Walk, count: int) -> int:
    """How many of the next instructions are loads whose memory was read right: as the load finds it."""
    found = 0
    for _ in range(count):
        word = int.from_bytes(walk.read(walk.pc, 4), "little")
        before, pc, vcpu = walk.registers(), walk.pc, walk.vcpu
        names = [*(f"x{n}" for n in range(31)), "sp"]
        address = before[names[word >> 5 & 31]] + 8 * (word >> 10 & 0xFFF)
        try:
            value = int.from_bytes(walk.read(address, 8), "little") if word & LDR_MASK == LDR else None
        except NotMapped:
            value = None
        walk.step()
        if value is not None and word & 31 != 31 and (walk.vcpu, walk.pc) == (vcpu, pc + 4):
            assert walk.registers()[f"x{word & 31}"] == value
            found += 1
    return found


def test_virtual_memory_and_breakpoints(boot: Path) -> None:
    """Loads of the kernel find what read() finds; a breakpoint finds every place, both ways; what is not mapped is named."""
    with tracekit.session(boot) as walk:
        found = 0
        for position in random.Random(6).sample(range(walk.end_position // 4, walk.end_position), 20):
            walk.goto(position)
            found += loads(walk, 60)
        assert found > 10
        with pytest.raises(NotMapped, match=r"not mapped|outside"):
            walk.read(0xFFFF_FFFF_FFFF_F000, 8)
        walk.goto(walk.end_position // 2)
        pc = walk.registers()["vbar_el1"] + 0x280  # IRQs taken in the kernel
        taken = [
            event.row[0] for event in walk.events(walk.position, walk.end_position, ["interrupts"]) if event.row[4] == "take"
        ]
        forwards = []
        for _ in range(6):
            assert walk.run_until(pc=pc).reason is Reason.BREAKPOINT
            forwards.append((walk.position, walk.pc, walk.vcpu))
        assert {place for place, _, _ in forwards} <= set(taken)
        backwards = [forwards[-1]]
        for _ in range(5):
            assert walk.run_until(pc=pc, backwards=True).reason is Reason.BREAKPOINT
            backwards.append((walk.position, walk.pc, walk.vcpu))
        assert backwards[::-1] == forwards
