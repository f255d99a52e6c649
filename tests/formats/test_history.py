"""Writes to an address out of the table: against every row read plainly, with and without the manifest's page ranges."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from handmade import Handmade
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.formats import manifest as manifests
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.history import captured_backwards, writes_backwards
from tracekit.formats.pages import RANGES_MAX, ROWS_MIN, may_touch, outside, page_ranges
from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.formats.writer import TraceWriter

RAM = 0x4000_0000
ADDRESSES = st.lists(st.integers(0, (1 << 64) - 1) | st.integers(RAM, RAM + 0x3_0000), min_size=1, max_size=300)


@given(ADDRESSES, st.lists(st.integers(0, (1 << 64) - 2), max_size=5))
@settings(deadline=None)
def test_page_ranges_hold_every_row(addresses: list[int], others: list[int]) -> None:
    """No address is left out; the ranges are few, ascending, apart, and of pages that rows begin and end."""
    ipa = pa.array(addresses, pa.uint64())
    ranges = page_ranges(ipa)
    flat = [page for pair in ranges for page in pair]
    assert len(ranges) <= RANGES_MAX and flat == sorted(flat) and all(b > a + 1 for a, b in zip(flat[1::2], flat[2::2]))
    entry = {"pages": ranges}
    assert all(may_touch(entry, one, one + 1) for one in addresses) and outside(entry, ipa) is None
    pages = {one >> 12 for one in addresses}
    assert set(flat) <= pages
    if len(ranges) < RANGES_MAX:
        assert {page for low, high in ranges for page in range(low, high + 1)} == pages
        assert all(may_touch(entry, one, one + 1) == (one >> 12 in pages) for one in others)


def many_writes(path: Path, rows: int, *, seed: int = 0, spread: int = 0x8000) -> list[dict[str, Any]]:
    """A trace with batches of 700 rows; stores of 1 to 8 bytes, some by the host."""
    chance, made = random.Random(seed), Handmade()
    made.begin()
    for at in range(rows):
        size = chance.choice((1, 2, 4, 8))
        ipa = RAM + chance.randrange(spread) // size * size + (0x10_0000 if at // 2000 % 2 else 0)
        made.store(at, 0, ipa, chance.getrandbits(8 * size), size, cause=chance.choice((None, None, "fault")))
    made.write(path, batch_rows=700)
    return made.rows["memory_writes"]


def with_pages(path: Path, spoil: Any = None) -> None:
    """Add the page ranges that our own writer would have written."""
    manifest = Trace.open(path).manifest
    for index, entry in enumerate(manifest["tables"]["memory_writes"]["batches"]):
        entry["pages"] = page_ranges(Trace.open(path).batch("memory_writes", index).column(5))
    if spoil is not None:
        spoil(manifest["tables"]["memory_writes"]["batches"][0])
    (path / manifests.NAME).write_bytes(manifests.encode(manifest))


def expected(rows: list[dict[str, Any]], begin: int, end: int, before: int, first: int) -> list[tuple[int, int, int]]:
    """(number, position, value), the newest first, by looking at every row."""
    found = [
        (number, row["position"], row["value"])
        for number, row in enumerate(rows)
        if row["ipa"] < end and row["ipa"] + row["size"] > begin and first <= row["position"] < before
    ]
    return found[::-1]


@pytest.mark.parametrize("has_pages", [False, True])
def test_against_every_row(tmp_path: Path, has_pages: bool) -> None:
    """Hot, rare and never written addresses, ranges over pages, positions in the middle."""
    path = tmp_path / "run.tkt"
    rows = many_writes(path, 9000)
    if has_pages:
        with_pages(path)
    trace, last = Trace.open(path), rows[-1]["position"]
    chance = random.Random(1)
    hits = 0
    for _ in range(60):
        begin = chance.choice((RAM, RAM + 0x10_0000)) + chance.randrange(0x9000)
        end = begin + chance.choice((1, 1, 4, 8, 64, 5000))
        before, first = chance.choice((last + 1, last, last // 2)), chance.choice((0, 0, last // 3))
        found = writes_backwards(trace, begin, end, before=before, from_position=first)
        answer = [(number, row[0], row[7]) for number, row in found]
        assert answer == expected(rows, begin, end, before, first)
        hits += bool(answer)
    assert 20 < hits < 60


def test_what_cannot_hold_it_is_not_read(tmp_path: Path) -> None:
    """Batches without the page are left alone; the newest write needs no older batch; a damaged one is named when it is needed."""
    path = tmp_path / "run.tkt"
    rows = many_writes(path, 6000)
    with_pages(path)
    batches = Trace.open(path).manifest["tables"]["memory_writes"]["batches"]
    spoiled = next(entry for entry in batches if not may_touch(entry, RAM, RAM + 0x8000))
    file = path / "memory_writes.arrow"
    raw = bytearray(file.read_bytes())
    raw[spoiled["offset"] + spoiled["length"] // 2] ^= 1
    file.write_bytes(raw)
    trace = Trace.open(path)
    end = rows[-1]["position"] + 1
    assert [(number, row[0], row[7]) for number, row in writes_backwards(trace, RAM, RAM + 8, before=end)] == expected(
        rows, RAM, RAM + 8, end, 0
    )
    with pytest.raises(TraceDamaged, match="memory_writes"):
        list(writes_backwards(trace, RAM + 0x10_0000, RAM + 0x10_8000, before=end))
    newest = list(islice(writes_backwards(trace, RAM, RAM + 0x20_0000, before=end), 1))
    assert [(number, row[0], row[7]) for number, row in newest] == expected(rows, RAM, RAM + 0x20_0000, end, 0)[:1]


def test_captured_rows(tmp_path: Path) -> None:
    """Raw columns, as the engine fills them: the same rows, the newest first."""
    chance = random.Random(3)
    count = 1000
    values = {
        "position": (8, [10 * at for at in range(count)]),
        "sequence": (4, [0x8000_0000] * count),
        "vtime_ns": (8, list(range(count))),
        "vcpu": (2, [0] * count),
        "origin": (1, [0] * count),
        "ipa": (8, [RAM + 4 * chance.randrange(64) for _ in range(count)]),
        "size": (1, [chance.choice((1, 4)) for _ in range(count)]),
        "value": (8, [chance.getrandbits(8) for _ in range(count)]),
        "pc": (8, [RAM] * count),
    }
    columns: dict[str, Any] = {
        name: memoryview(b"".join(value.to_bytes(width, "little") for value in column))
        for name, (width, column) in values.items()
    }
    columns["cause"] = None
    rows = [dict(zip(values, row, strict=True)) for row in zip(*(column for _, column in values.values()), strict=True)]
    for begin in (RAM, RAM + 2, RAM + 101, RAM + 0x5000):
        found = [(row[0], row[7]) for row in captured_backwards(columns, count, begin, begin + 2)]
        assert found == [one[1:] for one in expected(rows, begin, begin + 2, 1 << 40, 0)]
    assert not list(captured_backwards(columns, count, RAM + 0x5000, RAM + 0x5008))


def test_the_writer_tells_pages(tmp_path: Path) -> None:
    """A batch that is worth it gets its ranges, and verify finds them to hold."""
    manifest = {
        "scenario": {"host": {"pcpus": 1}},
        "machine": {"vcpus": 1, "segments": [], "pv_structures": []},
        "threads": [{"thread": 0, "kind": "vcpu", "name": "vcpu0"}],
    }
    for rows in (ROWS_MIN - 1, ROWS_MIN):
        path = tmp_path / f"{rows}.tkt"
        writer = TraceWriter(path, manifest)
        for at in range(rows):
            writer.append("memory_writes", (at, 0, at, 0, "guest", RAM + (at % 3 << 16), 8, at, RAM, None))
        writer.append("states", (rows, 0, rows, None, "board", None, bytes(32), bytes(32)))
        writer.close({"reason": "power_off", "position": rows, "sequence": 1, "vtime_ns": rows})
        entry = Trace.open(path).manifest["tables"]["memory_writes"]["batches"][0]
        pages = [[RAM >> 12, RAM >> 12], [0x4_0010, 0x4_0010], [0x4_0020, 0x4_0020]]
        assert entry.get("pages") == (pages if rows >= ROWS_MIN else None)
        assert verify(path) == []


def test_verify_finds_ranges_that_lie(tmp_path: Path) -> None:
    """A query would miss a row: damage, though every hash holds."""
    path = tmp_path / "run.tkt"
    many_writes(path, 1000)

    def shorten(entry: dict[str, Any]) -> None:
        entry["pages"][-1][1] -= 1

    with_pages(path, shorten)
    assert any("pages of batch 0" in finding.what for finding in verify(path))


@pytest.mark.parametrize("pages", [[], 3, [[1]], [[2, 1]], [[1, 2], [2, 3]], [[-1, 2]], [[0, 1 << 52]], [["0", 1]], [[0, True]], [[n * 2, n * 2] for n in range(33)]])  # fmt: skip
def test_ranges_of_another_form(tmp_path: Path, pages: Any) -> None:
    """Named when the trace is opened."""
    path = tmp_path / "run.tkt"
    many_writes(path, 10)
    with_pages(path, lambda entry: entry.update(pages=pages))
    with pytest.raises(TraceDamaged, match="form"):
        Trace.open(path)
