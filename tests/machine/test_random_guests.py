"""Random guests give the same trace in every mode, page size and way of counting, at every capture level, and replay from anywhere in it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from a64 import NOP, assemble, branch
from random_guest import guest
from small_engine import CODE, RAM, engine, stops
from support import rows

from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.host.config import HostConfig, Neighbour
from tracekit.machine.engine import EngineConfig
from tracekit.machine.registers import Registers
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.verify import verify

THICK = ("memory_writes", "memory_reads", "blocks")
ENGINES: tuple[dict[str, Any], ...] = (
    {}, {"mode": "exact"}, {"mode": "safe"}, {"counting": "instruction"}, {"page_size": 1024}, {"mode": "safe", "page_size": 1024},
)  # fmt: skip
RECORDINGS: tuple[dict[str, Any], ...] = (
    {}, {"engine_counting": "instruction"}, {"engine_page_size": 1024}, {"engine_mode": "exact"}, {"engine_mode": "safe"},
    {"capture": "full"}, {"capture": "full", "engine_mode": "safe", "engine_page_size": 1024}, {"checkpoints": False},
    {"capture": "full", "engine_counting": "instruction"},
)  # fmt: skip


def random_scenario(folder: Path, seed: int, exit_cost_ns: int, instructions: int) -> Scenario:
    """A guest with 1 or 2 vCPUs on 1 or 2 pCPUs; a mark each few thousand instructions, a checkpoint at each mark."""
    chance = random.Random(seed)
    el, mmu, vcpus, has_lse = chance.choice((0, 1, 1)), chance.random() < 0.7, chance.choice((1, 2, 2)), chance.random() < 0.4
    image = folder / "guest.bin"
    image.write_bytes(guest(seed, el, mmu, vcpus, has_lse, crosses=not exit_cost_ns))
    host = HostConfig(
        pcpus=chance.choice((1, 2)),
        quantum_ns=chance.choice((300_000, 2_000_000)),
        slice_ns=chance.choice((500_000, 10_000_000)),
        policy=chance.choice(("round-robin", "fair", "chaos")),
        neighbours=(Neighbour("neighbour0", 500_000, 2_000_000),) if chance.random() < 0.5 else (),
    )
    return Scenario(
        image=str(image),
        guest_format="flat",
        vcpus=vcpus,
        ram=16 << 20,
        cpu="max" if has_lse else chance.choice(("a53", "a72")),
        ns_per_instruction=(chance.choice((3000, 10_000)), chance.choice((1, 3))),
        exit_cost_ns=exit_cost_ns,
        host=host,
        max_instructions=instructions,
        checkpoint_every=1,
    )


def compare_recordings(folder: Path, scenario: Scenario, recordings: tuple[dict[str, Any], ...]) -> Path:
    """Record it in each of these ways; thin rows are the same everywhere, thick rows where they are kept. The first recording."""
    tables: dict[bool, dict[str, Any]] = {}
    thin = [name for name in TABLES if name not in THICK]
    for number, changes in enumerate(recordings):
        path = folder / f"{number}.tkt"
        done = record(replace(scenario, **changes), path)
        assert done.end.position == scenario.max_instructions, (changes, done.end)
        is_full = changes.get("capture") == "full"
        for names, kept in ((thin, tables.setdefault(False, {})), (THICK if is_full else (), tables.setdefault(True, {}))):
            for name in names:
                found = rows(path, name)
                assert found == kept.setdefault(name, found), (changes, name)
    return folder / "0.tkt"


def compare_replays(path: Path, chance: random.Random, engines: tuple[dict[str, Any], ...]) -> None:
    """Replay on each of these, from the beginning and from a checkpoint, as recorded and with everything captured: to the same memory."""
    trace = Trace.open(path, verify="all")
    count = len(trace.checkpoints().entries)
    assert count > 3
    memories = set()
    for one in engines:
        for start, capture in ((None, None), (chance.randrange(count), "full"), (chance.randrange(count), None)):
            session = Replay(trace, ReplayOptions(capture=capture, **one), start=start)
            result = session.run()
            memories.add(session.board.memory.digest())
            session.board.close()
            assert result.is_identical, (one, start, capture, str(result.divergence))
    assert len(memories) == 1


@pytest.mark.parametrize("exit_cost_ns", [0, 77_777])
@pytest.mark.parametrize("seed", [0, 12])
def test_a_random_guest(tmp_path: Path, seed: int, exit_cost_ns: int) -> None:
    """Interrupts that a vCPU sends itself, or that are due because an access took time, are taken behind the access, wherever blocks end."""
    scenario = random_scenario(tmp_path, seed, exit_cost_ns, 12_000)
    path = compare_recordings(tmp_path, scenario, RECORDINGS[:3])
    compare_replays(path, random.Random(seed), ENGINES[2:5])


KNOWN = {
    16: "mode safe takes an SGI one turn of a loop (18 instructions) earlier than fast, exact and counting, which agree; not understood"
}
SEEDS = [pytest.param(n, marks=pytest.mark.xfail(strict=True, reason=KNOWN[n]) if n in KNOWN else ()) for n in range(30)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_random_guests(tmp_path: Path, seed: int) -> None:
    """The same with more of everything, and in parallel."""
    scenario = random_scenario(tmp_path, seed, (0, 77_777)[seed % 2], 50_000)
    path = compare_recordings(tmp_path, scenario, RECORDINGS)
    compare_replays(path, random.Random(seed), ENGINES)
    assert verify(Trace.open(path), ReplayOptions(), jobs=2).is_identical


@pytest.mark.parametrize("word", [0xD53BE042, 0xD53BE022], ids=["CNTVCT", "CNTPCT"])
def test_a_stop_behind_what_is_trapped(word: int) -> None:
    """At EL0 the end of a block's head is no exception of the guest, and an exception of the guest is not the end of the head."""
    images = {
        CODE: assemble("a", NOP, NOP, word, NOP, NOP, NOP, branch("a")),
        RAM + 0x400: assemble(0xD5384036, 0x910012D6, 0xD5184036, 0xD69F03E0),
    }
    found = []
    for config in (EngineConfig(), EngineConfig(mode="exact", counting="instruction")):
        with engine(config, images) as made:
            start = made.registers(0).as_dict() | {"vbar_el1": RAM, "pstate": 0x3C0}
            made.set_registers(0, Registers(tuple(start.values())))
            found.append([(stops(made, limit), made.registers(0).digest()) for limit in range(1, 60)])
    assert found[0] == found[1]
