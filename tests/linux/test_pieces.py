"""Checkpoints of Debian's boot: the verdict of several processes, and any position reached from the nearest one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY, tracekit

from tracekit.formats.reader import Trace
from tracekit.machine.portable import encode
from tracekit.replay.seek import Session
from tracekit.replay.session import Replay

pytestmark = pytest.mark.slow


def test_a_boot_in_pieces(tmp_path: Path) -> None:
    """Two vCPUs: --jobs 3 says what one process says; at random positions a session is what a straight replay is."""
    path = tmp_path / "a.tkt"
    script = REPOSITORY / "samples" / "linux" / "record.py"
    done = subprocess.run([sys.executable, script, path, "--vcpus", "2", "--neighbour", "50%:2ms"])
    if done.returncode == 2:
        pytest.skip("Debian's kernel cannot be had")
    assert len(Trace.open(path).checkpoints().entries) > 10
    serial, shared = (tracekit("replay", path, "--json", "--jobs", jobs) for jobs in (1, 3))
    assert serial.returncode == 0 and serial.stdout == shared.stdout, shared.stderr
    assert json.loads(serial.stdout)["whole"]
    trace = Trace.open(path)
    session, straight = Session(trace), Replay(trace)
    wanted = random.Random(2).sample(range(session.end_position), 8)
    expected = {}
    for position in sorted(wanted):
        straight.run_to(position)
        expected[position] = encode(straight.board.save_portable()), straight.board.memory.digest(), straight.standing.sgis
    for position in wanted:
        session.goto(position)
        assert (encode(session.board.save_portable()), session.board.memory.digest(), session.standing.sgis) == expected[position]
    session.close()
    straight.board.close()
