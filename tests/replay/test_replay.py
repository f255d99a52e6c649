"""Replaying: the same run to the bit in every mode, and a first divergence where something was changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import GUESTS, busy_host, files_of, recorded, replayed, rows, scenario, tracekit

from tracekit.formats import manifest as manifests
from tracekit.formats.arrow import rows_of
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import TraceWriter
from tracekit.machine.map import RAM_BASE
from tracekit.recorder.record import record
from tracekit.replay.divergence import Cause

POLICIES = ("round-robin", "fair", "chaos")


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_guest_under_every_policy(tmp_path: Path, guest: str, policy: str) -> None:
    """Two recordings are equal in every byte; the replay of one is identical, in every engine mode."""
    host = busy_host(policy, pcpus=2)
    recorded(tmp_path / "a.tkt", guest, host=host, seed=3)
    recorded(tmp_path / "b.tkt", guest, host=host, seed=3)
    assert files_of(tmp_path / "a.tkt") == files_of(tmp_path / "b.tkt")
    for options in ({}, {"page_size": 1024}, {"mode": "exact"}, {"mode": "safe"}):
        result = replayed(tmp_path / "a.tkt", **options)
        assert result.is_identical, (options, result.divergence)


@pytest.mark.parametrize("guest", GUESTS)
def test_thin_becomes_thick(tmp_path: Path, guest: str) -> None:
    """Recording thin and replaying with a capture level gives the tables that recording with it gives."""
    host = busy_host("fair", pcpus=2)
    limit = 300_000
    recorded(tmp_path / "thin.tkt", guest, host=host, max_instructions=limit)
    for level in ("writes", "full"):
        recorded(tmp_path / f"{level}.tkt", guest, host=host, max_instructions=limit, capture=level)
        done = tracekit("replay", tmp_path / "thin.tkt", "--capture", level, "-o", tmp_path / f"{level}2.tkt")
        assert done.returncode == 0, done.stdout + done.stderr
        mine, theirs = files_of(tmp_path / f"{level}.tkt"), files_of(tmp_path / f"{level}2.tkt")
        assert {n: c for n, c in mine.items() if n.endswith(".arrow")} == {
            n: c for n, c in theirs.items() if n.endswith(".arrow")
        }
        assert replayed(tmp_path / f"{level}.tkt").is_identical
        assert replayed(tmp_path / f"{level}.tkt", counting="instruction").is_identical
        assert tracekit("verify", tmp_path / f"{level}.tkt").returncode == 0


@pytest.mark.parametrize("placement", ["page", "ram"])
def test_structures_are_watched(tmp_path: Path, placement: str) -> None:
    """Every read of a structure is a row, in its own page and in the middle of a RAM page beside the guest's data."""
    chosen = scenario("steal", host=busy_host("fair"))
    if placement == "ram":
        chosen = replace(chosen, hypervisor=replace(chosen.hypervisor, pv_base=RAM_BASE + 0x3FF_F40 % (8 << 20)))
    record(chosen, tmp_path / "a.tkt")
    base = chosen.hypervisor.pv_base
    reads = [row for row in rows(tmp_path / "a.tkt", "memory_reads") if row["ipa"] in (base + 8, base + 72)]
    told = [row for row in rows(tmp_path / "a.tkt", "pvtime") if row["event"] == "read"]
    published = [row for row in rows(tmp_path / "a.tkt", "memory_writes") if row["cause"] == "pvtime"]
    assert len(reads) == len(told) > 100
    assert all(read["value"] == tell["stolen_ns"] and read["size"] == 8 for read, tell in zip(reads, told, strict=True))
    assert published and all(row["size"] == 8 and row["origin"] == "host" for row in published)
    assert max(row["stolen_ns"] for row in told) > 0
    for options in ({}, {"mode": "exact"}, {"mode": "safe"}, {"counting": "instruction"}):
        assert replayed(tmp_path / "a.tkt", **options).is_identical


def test_watched_ranges(tmp_path: Path) -> None:
    """--watch records each access to a range, whatever the capture level, and the columns agree with full capture."""
    watch = ((0x4008_0000, 0x4009_0000),)
    recorded(tmp_path / "thin.tkt", "spinlock", watches=watch, max_instructions=20_000)
    recorded(tmp_path / "full.tkt", "spinlock", capture="full", max_instructions=20_000)
    for table in ("memory_reads", "memory_writes"):
        keys = ("position", "ipa", "size", "value", "pc")
        mine = [tuple(row[key] for key in keys) for row in rows(tmp_path / "thin.tkt", table) if row["origin"] == "guest"]
        theirs = [
            tuple(row[key] for key in keys)
            for row in rows(tmp_path / "full.tkt", table)
            if row["origin"] == "guest" and watch[0][0] <= row["ipa"] < watch[0][1]
        ]
        assert mine == theirs != []
    assert replayed(tmp_path / "thin.tkt").is_identical


def test_blocks_cover_every_instruction(tmp_path: Path) -> None:
    """At capture level full each instruction stands in exactly one row of `blocks`."""
    recorded(tmp_path / "a.tkt", "timer", capture="full", host=busy_host("chaos", pcpus=2))
    at = 0
    for row in rows(tmp_path / "a.tkt", "blocks"):
        assert row["position"] == at, row
        at += row["instructions"]
    assert at == Trace.open(tmp_path / "a.tkt").manifest["end"]["position"]


def test_lost_updates_need_a_schedule(tmp_path: Path) -> None:
    """The race of `spinlock` shows under some schedules only, and a recorded one always shows it again."""
    lost = {}
    for seed in range(8):
        path = tmp_path / f"{seed}.tkt"
        recorded(path, "spinlock", host=busy_host("chaos", pcpus=1, slice_ns=300_000), seed=seed)
        text = b"".join(row["data"] for row in rows(path, "console")).decode()
        lost[seed] = int(text.split("lost ")[1].split("\n")[0])
        assert "locked total 24000" in text
    assert len(set(lost.values())) > 1
    seed = max(lost, key=lambda one: lost[one])
    assert lost[seed] > 0
    assert replayed(tmp_path / f"{seed}.tkt").is_identical


def altered(source: Path, target: Path, table: str, change: Any) -> None:
    """A whole trace with one row changed: hashes are right, the content is not what happened."""
    trace = Trace.open(source)
    manifest = {
        key: value
        for key, value in trace.manifest.items()
        if key not in ("digest", "tables", "complete", "end", "images", "format")
    }
    writer = TraceWriter(target, manifest)
    for image in trace.manifest["images"]:
        writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
    for name in TABLES:
        for batch in trace.batches(name):
            for row in rows_of(batch):
                writer.append(name, change(row) if name == table else row)
    writer.close(trace.manifest["end"])


def changed(column: str, table: str, nth: int, value: Any) -> Any:
    """A change of the nth row's column."""
    index, count = TABLES[table].index(column), iter(range(10**9))

    def change(row: tuple[Any, ...]) -> tuple[Any, ...]:
        if next(count) != nth:
            return row
        return (*row[:index], value(row[index]) if callable(value) else value, *row[index + 1 :])

    return change


ALTERED = {
    # table, column, row, new value, expected cause
    "hypercall argument": ("hypercalls", "x1", 3, lambda x: x + 1, Cause.DRIFT),
    "hypercall result": ("hypercalls", "ret0", 0, 0, Cause.DRIFT),
    "console byte": ("console", "data", 1, lambda data: data.replace(b"v", b"w", 1), Cause.DRIFT),
    "published time": ("memory_writes", "value", 18, lambda v: v + 1, Cause.DRIFT),
    "state digest": ("states", "registers", 0, bytes(32), Cause.DRIFT),
    "place of an interrupt": ("interrupts", "position", None, lambda p: p - 3, None),
    "a decision's time": ("schedule", "vtime_ns", 12, lambda t: t + 16, Cause.DRIFT),
}


@pytest.mark.parametrize("name", [name for name in ALTERED if ALTERED[name][2] is not None])
def test_an_altered_row_is_found(tmp_path: Path, name: str) -> None:
    """The first divergence is told with both sides, all differing fields and the events before it."""
    table, column, nth, value, cause = ALTERED[name]
    recorded(tmp_path / "a.tkt", "steal", host=busy_host("fair"))
    altered(tmp_path / "a.tkt", tmp_path / "b.tkt", table, changed(column, table, nth, value))
    result = replayed(tmp_path / "b.tkt")
    assert result.divergence is not None
    assert result.divergence.cause is cause, result.divergence
    if name in ("hypercall argument", "console byte", "state digest"):
        assert column in [field.name for field in result.divergence.fields]
        assert result.divergence.recorded and result.divergence.replayed
    done = tracekit("replay", tmp_path / "b.tkt")
    assert done.returncode == 1 and "DIVERGED at position" in done.stdout and "events before it" in done.stdout
    parsed = json.loads(tracekit("replay", tmp_path / "b.tkt", "--json").stdout)
    assert parsed["verdict"] == "diverged" and parsed["divergence"]["position"] == result.divergence.position


def test_an_interrupt_elsewhere_cannot_be_applied(tmp_path: Path) -> None:
    """A take moved to where interrupts are masked is a decision that cannot be applied."""
    recorded(tmp_path / "a.tkt", "timer", vcpus=1)
    takes = [i for i, row in enumerate(rows(tmp_path / "a.tkt", "interrupts")) if row["event"] == "take"]

    change = changed("position", "interrupts", takes[0], lambda p: p - 1)
    altered(tmp_path / "a.tkt", tmp_path / "b.tkt", "interrupts", change)
    result = replayed(tmp_path / "b.tkt")
    assert result.divergence is not None
    assert result.divergence.cause in (Cause.DECISION, Cause.DRIFT)


def test_another_guest_image_is_refused(tmp_path: Path) -> None:
    """A trace whose image was exchanged, even with a right manifest digest, is named before anything runs."""
    recorded(tmp_path / "a.tkt", "hello")
    image = next((tmp_path / "a.tkt" / "images").iterdir())
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    done = tracekit("replay", tmp_path / "a.tkt")
    assert done.returncode == 2 and "images/" in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    """One changed number in trace.json; and one with a right digest that describes no machine."""
    recorded(tmp_path / "a.tkt", "hello")
    path = tmp_path / "a.tkt" / "trace.json"
    whole = path.read_text()
    path.write_text(whole.replace('"vcpus":2', '"vcpus":1', 1))
    assert "digest does not agree" in tracekit("replay", tmp_path / "a.tkt").stderr
    manifest = json.loads(whole)
    for key, value in (("vcpus", 99), ("ram_size", 1 << 60), ("cpu", "z80"), ("ns_per_instruction", [0, 0]), ("segments", 5)):
        other = {**manifest, "machine": {**manifest["machine"], key: value}}
        del other["digest"]
        other["digest"] = hashlib.sha256(manifests.canonical(other)).hexdigest()
        path.write_bytes(manifests.canonical(other) + b"\n")
        done = tracekit("replay", tmp_path / "a.tkt")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, (key, done.stderr)


def test_stopping_early(tmp_path: Path) -> None:
    """--to stops at a position and says so."""
    recorded(tmp_path / "a.tkt", "timer")
    with pytest.raises(InputError, match="to_position = -1"):
        replayed(tmp_path / "a.tkt", to_position=-1)
    done = tracekit("replay", tmp_path / "a.tkt", "--to", 1000)
    assert done.returncode == 0 and "identical to position 1,000" in done.stdout


def test_an_sgi_wakes_at_the_later_time(tmp_path: Path) -> None:
    """An SGI to a vCPU that had gone further and slept wakes it when it slept, not before."""
    recorded(tmp_path / "a.tkt", "timer", host=busy_host(pcpus=2).__class__(pcpus=2))
    asleep: dict[int, int] = {}
    woken = 0
    for row in rows(tmp_path / "a.tkt", "schedule"):
        if row["event"] == "block":
            asleep[row["vcpu"]] = row["vtime_ns"]
        elif row["event"] == "wake":
            assert row["vtime_ns"] >= asleep[row["vcpu"]]
            woken += 1
    assert woken > 5


@pytest.mark.slow
@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_twenty_seeds_in_separate_processes(tmp_path: Path, guest: str, policy: str) -> None:
    """Each sample x policy x 20 seeds: recorded twice and replayed once, each in a process of its own: all identical."""
    for seed in range(20):
        arguments = [
            "--vcpus",
            2,
            "--pcpus",
            1 + seed % 2,
            "--policy",
            policy,
            "--neighbour",
            "40%:2ms",
            "--seed",
            seed,
            "--ram",
            "16M",
        ]
        cpu = "max" if guest == "lse" else "a53"
        for name in "ab":
            image = scenario(guest).image
            done = tracekit("record", image, "-o", tmp_path / f"{name}{seed}.tkt", "--cpu", cpu, "--max-vtime", "5s", *arguments)
            assert done.returncode == 0, done.stderr
        assert files_of(tmp_path / f"a{seed}.tkt") == files_of(tmp_path / f"b{seed}.tkt")
        done = tracekit("replay", tmp_path / f"a{seed}.tkt")
        assert done.returncode == 0, done.stdout


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path, target=None):
        if name in ("numpy", "polars") or name.startswith("tracekit.host"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from tracekit.formats.reader import Trace
from tracekit.replay.session import Replay
assert Replay(Trace.open(sys.argv[1])).run().is_identical
sys.meta_path.pop(0)
import tracekit.recorder.record
assert "polars" not in sys.modules
"""


def test_replay_needs_neither_host_nor_polars(tmp_path: Path) -> None:
    """Where host model, polars and numpy (which pyarrow takes where it finds it) cannot be imported; recording loads no polars either."""
    recorded(tmp_path / "a.tkt", "hello")
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path / "a.tkt")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
