"""WFE and YIELD are translated as something cheaper: no guest can tell, and nothing that is counted changes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from a64 import NOP, WFE, Word, add, adr, assemble, branch, cbnz, cbz, movz, store, sub
from small_engine import CODE, RAM, REWRITTEN, SIZE, engine, lock_scenario, stops
from support import busy_host, files_of, replayed

from tracekit.host.config import HostConfig
from tracekit.machine import engine as engine_module
from tracekit.machine import native, probe
from tracekit.machine.engine import EngineConfig
from tracekit.machine.registers import Registers
from tracekit.recorder.record import record

YIELD = 0xD503203F
REFERENCE = EngineConfig(counting="instruction")
EASED = [pytest.param(EngineConfig(page_size=page_size), id=str(page_size)) for page_size in (1024, 4096)]

READS_ITSELF = assemble(  # sums up the words of the loop that it is in, hints and all, for ever
    "a", adr(1, "a"), movz(2, 12), "b",
    0xB8404423, 0x8B030084, YIELD, WFE,  # LDR W3, [X1], #4; ADD X4, X4, X3
    sub(2, 2, 1), cbnz(2, "b"), WFE, YIELD, add(5, 5, 1), branch("a"),
)  # fmt: skip


def state_at(config: EngineConfig, code: bytes, limits: list[int]) -> tuple[list[tuple[int, bytes]], int]:
    """Position and digest of the registers at each limit; how many blocks were translated without their hint. RAM must stay what it is."""
    out = []
    with engine(config, {CODE: code}) as made:
        before = bytes(made.ram)
        for limit in limits:
            stops(made, limit)
            out.append((made.position, made.registers(0).digest()))
        assert bytes(made.ram) == before
        return out, int(made.state.hints)


@pytest.mark.parametrize("config", EASED)
def test_the_guest_reads_its_own_words(config: EngineConfig) -> None:
    """A load from the block itself gives the hint, also at the block's first run; stops fall on every instruction."""
    limits = [*range(1, 150), 1_000, 20_000]
    found, hints = state_at(config, READS_ITSELF, limits)

    assert found == state_at(REFERENCE, READS_ITSELF, limits)[0]
    assert hints >= 4
    assert state_at(EngineConfig(mode="safe"), READS_ITSELF, limits) == (found, 0)


@pytest.mark.parametrize("config", EASED)
def test_rewritten_code(config: EngineConfig) -> None:
    """An instruction becomes a WFE and something else again."""
    limits = list(range(1, 61))
    found = []
    for one in (config, REFERENCE):
        with engine(one, {CODE: REWRITTEN.code}) as made:
            found.append(
                [(stops(made, limit), made.registers(0).digest(), made.ram.find(WFE.to_bytes(4, "little"))) for limit in limits]
            )

    assert found[0] == found[1]
    assert {place for _, _, place in found[0]} == {-1, REWRITTEN.wfes[0][1] - 4 + CODE - 0x4000_0000}


@pytest.mark.parametrize("config", EASED)
@pytest.mark.parametrize("hint", [WFE, YIELD])
def test_at_the_end_of_memory(config: EngineConfig, hint: int) -> None:
    """Behind the hint there is nothing: an external abort with the address behind it."""
    end = RAM + SIZE
    found = []
    for one in (config, REFERENCE):
        with engine(one, {end - 8: assemble(NOP, hint), RAM + 0x200: assemble("a", branch("a"))}, end - 8) as made:
            made.set_registers(0, Registers(tuple((made.registers(0).as_dict() | {"vbar_el1": RAM}).values())))
            found.append([(stops(made, limit), made.registers(0).digest()) for limit in (1, 2, 5)])
            assert made.registers(0)["far_el1"] == end
    assert found[0] == found[1]


@pytest.mark.parametrize("config", EASED)
@pytest.mark.parametrize("seed", range(4))
def test_random_code(config: EngineConfig, seed: int) -> None:
    """Hints, jumps and stores into the code (without effect on it) over three pages, stopped at random places."""
    chance = random.Random(seed)
    words: list[Word] = ["w0", adr(6, "end"), movz(1, 1)]
    for index in range(1, 700):
        words.append(f"w{index}")
        target = f"w{chance.randrange(700)}"
        kinds: list[Word] = [
            NOP,
            WFE,
            YIELD,
            store(1, 6),
            add(1, 1, 1),
            ("tbz", 0x36000001 | chance.randrange(4) << 19, target),
            branch(target),
        ]
        chosen = chance.choices(kinds, [20, 4, 4, 4, 20, 8, 1])[0]
        words.append(
            cbz(2 if chance.random() < 0.3 else 1, target) if isinstance(chosen, tuple) and chosen[0] == "tbz" else chosen
        )
    words += [branch("w0"), "end", NOP]
    limits = sorted(chance.sample(range(1, 20_000), 150))
    digests = []
    for one in (config, REFERENCE):
        with engine(one, {CODE: assemble(*words)}) as made:
            digests.append([(stops(made, limit), made.registers(0).digest()) for limit in limits])
            hints = int(made.state.hints)
            assert (hints > 10) == (one is config)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "host", [HostConfig(pcpus=2), HostConfig(pcpus=2, quantum_ns=700), busy_host("chaos", 1, slice_ns=20_000)]
)
def test_recordings_are_the_same(tmp_path: Path, host: HostConfig) -> None:
    """Two vCPUs that wait for each other with WFE: every table is that of the safe mode, and every mode replays it."""
    for mode in ("fast", "safe"):
        assert record(lock_scenario(tmp_path, host, engine_mode=mode), tmp_path / f"{mode}.tkt").end.reason.value == "power_off"
    fast, safe = (
        {name: data for name, data in files_of(tmp_path / f"{mode}.tkt").items() if name.endswith(".arrow")}
        for mode in ("fast", "safe")
    )
    assert fast == safe
    for options in ({}, {"counting": "instruction"}, {"page_size": 1024, "mode": "safe"}):
        result = replayed(tmp_path / "fast.tkt", **options)
        assert result.is_identical, str(result.divergence)


@pytest.mark.parametrize("cpu", ["a53", "a72", "max"])
@pytest.mark.parametrize("page_size", [1024, 4096])
def test_it_is_proven(cpu: str, page_size: int) -> None:
    """With this Unicorn nothing speaks against it."""
    assert probe.hint_objection.__wrapped__(cpu, page_size) is None
    assert probe.settled(EngineConfig(cpu=cpu, page_size=page_size)).eases_hints


def test_where_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that keeps the old translation executes the hints themselves: the probe sees it, and they are left alone."""
    ids = engine_module._ids

    def crippled() -> native.Ids:
        made = ids()
        made.ctl_remove_cache = made.ctl_flush_tlb
        return made

    monkeypatch.setattr(engine_module, "_ids", crippled)
    said = probe.hint_objection.__wrapped__("a53", 4096)
    assert said is not None and said.startswith("WFE and YIELD: ")
    monkeypatch.setattr(probe, "hint_objection", lambda cpu, page_size: said)
    config = probe.settled(EngineConfig(mode="exact"))
    assert (config.leaves_hints, config.eases_hints, "edge" in config.hook_set()) == (True, False, False)
