"""`tracekit who-wrote`: the same answer out of columns and by replaying, against every row read plainly."""

from __future__ import annotations

import json
import random
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, recorded, rows, scenario, tracekit

from tracekit.formats import manifest as manifests
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive
from tracekit.machine.map import PVTIME_BASE
from tracekit.recorder.record import record
from tracekit.replay.wanted import ROWS_MAX
from tracekit.replay.who_wrote import Answer, Write, place_of, who_wrote

MS = 1_000_000
RAM = 0x4000_0000


def pair(folder: Path, guest: str, **changes: Any) -> tuple[Path, Path]:
    """The same run captured `writes` and thin."""
    for level in ("writes", "thin"):
        recorded(folder / f"{level}.tkt", guest, capture=level, max_vtime_ns=6 * MS, **changes)
    return folder / "writes.tkt", folder / "thin.tkt"


def plain(write: Write) -> Write:
    """Without its proof, which tells where the row was had from."""
    return replace(write, row=None, command="")


def oracle(table: list[dict[str, Any]], ipa: int, size: int, before: int, limit: int | None) -> list[tuple[int, int]]:
    """(position, value) of the wanted rows of a trace that has all of them, the newest first."""
    left, out = set(range(ipa, ipa + size)), []
    for row in reversed(table):
        told = set(range(row["ipa"], row["ipa"] + row["size"])) & set(range(ipa, ipa + size))
        if row["position"] < before and told and (left if limit is None else len(out) < limit):
            out.append((row["position"], row["value"]))
            left -= told
    return out


def addresses(table: list[dict[str, Any]], count: int) -> list[int]:
    """Some of RAM that are written, some that are not."""
    chance = random.Random(5)
    written = sorted({row["ipa"] for row in table if row["ipa"] >= RAM})
    return [chance.choice(written) + chance.choice((0, 0, 1, 7)) for _ in range(count)] + [RAM + 0xF0_0000]


@pytest.mark.parametrize("guest", ["hello", "steal", "memory"])
def test_columns_and_replay_agree(tmp_path: Path, guest: str) -> None:
    """Any address, size, place and limit."""
    whole, thin = pair(tmp_path, guest, host=busy_host())
    table, end = rows(whole, "memory_writes"), Trace.open(whole).manifest["end"]["position"]
    chance, found, replayed = random.Random(7), 0, 0
    for ipa in addresses(table, 4):
        size, limit, before = chance.choice((1, 8, 24)), chance.choice((None, 1, 5)), chance.choice((None, end, end - end // 4))
        mine = who_wrote(Trace.open(whole), ipa, size=size, limit=limit, before=before)
        again = who_wrote(Trace.open(thin), ipa, size=size, limit=limit, before=before)
        assert [plain(one) for one in mine.writes] == [plain(one) for one in again.writes]
        assert (mine.is_all, mine.initial, mine.before) == (again.is_all, again.initial, again.before)
        assert [(one.position, one.value) for one in mine.writes] == oracle(table, ipa, size, mine.before, limit)
        found += bool(mine.writes)
        replayed += bool(again.replayed)
        assert not mine.replayed
    assert found >= 3 and replayed >= 4


def test_columns_that_a_thin_trace_has(tmp_path: Path) -> None:
    """Stolen-time structures and watched ranges are answered without a replay; a range that is watched in part is not."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host(), max_vtime_ns=4 * MS, watches=((RAM + 0x8_2000, RAM + 0x8_3000),))
    trace = Trace.open(tmp_path / "a.tkt")
    assert not who_wrote(trace, PVTIME_BASE + 8, size=8).replayed
    watched = who_wrote(trace, RAM + 0x8_2110)
    assert not watched.replayed and watched.writes[0].origin == "guest" and watched.writes[0].row is not None
    assert who_wrote(trace, RAM + 0x8_2FFC, size=8).replayed


def test_what_no_write_accounts_for(tmp_path: Path) -> None:
    """An image's byte, a zero, and the bytes of a range that only partly was written."""
    whole, thin = pair(tmp_path, "hello")
    for path in (whole, thin):
        trace = Trace.open(path)
        entry = trace.manifest["machine"]["entry"]
        image = who_wrote(trace, entry)
        assert image.writes == () and image.is_all and "kernel" in str(image.initial)
        assert "zero" in str(who_wrote(trace, RAM + 0xF0_0000).initial)
        last = rows(whole, "memory_writes")[-1]["ipa"]
        newest = who_wrote(trace, last - 512, size=1024, limit=1)
        assert len(newest.writes) == 1 and not newest.is_all and newest.initial is None
        part = who_wrote(trace, last - 512, size=1024)
        assert part.writes[:1] == newest.writes and part.is_all and f"{last - 512:#x} is zero" in str(part.initial)


def test_memory_that_was_set_anew(tmp_path: Path) -> None:
    """A roll-back or a reset accounts for every byte: nothing before it needs to be looked at."""
    steps = (Directive(2 * MS, "snapshot"), Directive(4 * MS, "restore", value=0))
    whole, thin = pair(tmp_path, "steal", host=busy_host(directives=steps))
    restore = next(row for row in rows(whole, "directives") if row["kind"] == "restore")
    for path in (whole, thin):
        trace = Trace.open(path)
        answer = who_wrote(trace, RAM + 0xF0_0000)
        assert [(one.origin, one.cause, one.position) for one in answer.writes] == [("directive", "restore", restore["position"])]
        assert answer.initial is None and rows(path, "directives")[answer.writes[0].row or 0] == restore
        assert who_wrote(trace, RAM + 0xF0_0000, before=restore["position"]).writes == ()
        newer = who_wrote(trace, RAM + 0x8_2110, limit=3)
        assert [one.origin for one in newer.writes][:1] == ["guest"] and newer.writes[0].position > restore["position"]
        hot = who_wrote(trace, RAM + 0x8_2110, limit=600)
        order = [one.position for one in hot.writes]
        assert order == sorted(order, reverse=True) and any(one.origin == "directive" for one in hot.writes)


def test_an_answer_is_bounded(tmp_path: Path) -> None:
    """A range of many bytes ends at ROWS_MAX writes, and says that there may be more."""
    whole, _ = pair(tmp_path, "memory")
    answer = who_wrote(Trace.open(whole), RAM, size=1 << 20)
    assert len(answer.writes) <= ROWS_MAX and answer.is_all == (len(answer.writes) < ROWS_MAX)


@pytest.mark.parametrize(
    ("ipa", "options", "message"),
    [
        (0x0900_0000, {}, "no memory there"),
        (RAM - 1, {"size": 8}, "no memory there"),
        (RAM + (16 << 20) - 1, {"size": 2}, "no memory there"),
        (RAM, {"size": 0}, "0 bytes"),
        (RAM, {"size": 1 << 30}, "bytes"),
        (RAM, {"before": -1}, "before = -1"),
    ],
)
def test_ranges_that_cannot_be_asked_for(tmp_path: Path, ipa: int, options: dict[str, Any], message: str) -> None:
    """One line."""
    recorded(tmp_path / "a.tkt", "hello")
    with pytest.raises(InputError, match=message):
        who_wrote(Trace.open(tmp_path / "a.tkt"), ipa, **options)


def test_places(tmp_path: Path) -> None:
    """Numbers in two forms, and the stolen time of a vCPU."""
    recorded(tmp_path / "a.tkt", "steal")
    trace = Trace.open(tmp_path / "a.tkt")
    assert place_of(trace, "0x40000010") == place_of(trace, "1073741840") == (RAM + 16, 1)
    assert place_of(trace, "pvtime:1") == (PVTIME_BASE + 64 + 8, 8)
    for text in ("pvtime:2", "pvtime:", "here", "", "0x"):
        with pytest.raises(InputError):
            place_of(trace, text)


def test_command(tmp_path: Path) -> None:
    """Rows for people and programs; what is replayed is said on stderr; the proofs are commands that show the row."""
    record(scenario("steal", host=busy_host(), max_vtime_ns=6 * MS), tmp_path / "it's thin.tkt")
    thin, ipa = tmp_path / "it's thin.tkt", f"{RAM + 0x8_2110:#x}"
    told = tracekit("who-wrote", thin, ipa, "--json")
    assert told.returncode == 0 and "replaying" in told.stderr
    answer = json.loads(told.stdout)
    (write,) = answer["writes"]
    assert write["row"] is None and write["origin"] == "guest" and not answer["is_all"]
    shown = tracekit("who-wrote", thin, ipa)
    assert (
        str(write["position"]) in shown.stdout
        and "replayed" in shown.stdout
        and shown.stdout.splitlines()[-1].startswith("proof: ")
    )

    stolen = tracekit("who-wrote", thin, "pvtime:0", "--limit", 2, "--json")
    assert stolen.stderr == ""
    for one in json.loads(stolen.stdout)["writes"]:
        command = shlex.split(one["command"])
        assert command[:2] == ["tracekit", "dump"]
        proof = [json.loads(line) for line in tracekit(*command[1:], "--json").stdout.splitlines()]
        assert any(row["ipa"] == one["ipa"] and row["value"] == one["value"] and row["cause"] == "pvtime" for row in proof)
        assert rows(thin, "memory_writes")[one["row"]]["position"] == one["position"]
    nobody = tracekit("who-wrote", thin, "0x40f00000")
    assert nobody.returncode == 0 and "no write to 0x40f00000" in nobody.stdout and "zero from the beginning" in nobody.stdout
    wrong = tracekit("who-wrote", thin, "somewhere")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "no address" in wrong.stderr


def test_a_run_that_does_not_replay(tmp_path: Path) -> None:
    """Inconclusive, exit code 3: what such a replay shows is no proof."""
    recorded(tmp_path / "a.tkt", "steal")
    manifest = Trace.open(tmp_path / "a.tkt").manifest
    manifest["machine"]["ns_per_instruction"] = [2, 1]
    (tmp_path / "a.tkt" / manifests.NAME).write_bytes(manifests.encode(manifest))
    done = tracekit("who-wrote", tmp_path / "a.tkt", "0x40082110")
    assert done.returncode == 3 and "diverged" in done.stderr and done.stdout == ""


def test_answers_are_values() -> None:
    """Programs get every field by its name."""
    write = Write(1, 2, 0, 3, 4, 8, 5, "guest", None, "memory_writes", 6, "x")
    assert write.as_dict()["row"] == 6 and len(write.as_dict()) == 12
    assert Answer(0, 1, 2, (write,), False, None, ()) == Answer(0, 1, 2, (write,), False, None, ())
