"""`diff`: what it names on traces made by hand, and what always holds."""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from handmade import Handmade
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trace import RandomTrace

from tracekit.analyzers.diff import diff
from tracekit.analyzers.diff_text import lines
from tracekit.analyzers.difference import Counts, Difference
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace


def life(calls: int = 40, vcpus: int = 2) -> Handmade:
    """Two vCPUs in turns, each turn with its update and a hypercall."""
    made = Handmade(vcpus, pcpus=vcpus, neighbours=1).begin()
    for turn in range(calls):
        vcpu, now = turn % vcpus, 1000 * turn
        made.schedule(now, vcpu, "run", "slice", pcpu=vcpu)
        made.publish(now, vcpu, 700 * turn)
        made.call(now + 10, vcpu, 0x8400_0000, turn // 3, 0x1_0001, function="PSCI_VERSION")
        made.read(now + 20, vcpu, 700 * turn)
        made.schedule(now + 900, vcpu, "preempt", "slice", pcpu=vcpu)
    return made


def compared(a: Handmade, b: Handmade, batch_rows: int = 65_536, **options: Any) -> Difference:
    """Written, and compared."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [made.write(Path(folder) / f"{name}.tkt", batch_rows) for name, made in (("a", a), ("b", b))]
        return diff(*(Trace.open(path) for path in paths), **options)


def changed(made: Handmade, table: str, index: int, **columns: Any) -> Handmade:
    """A copy with another row."""
    other = copy.deepcopy(made)
    assert set(columns) <= set(other.rows[table][index])
    other.rows[table][index].update(columns)
    return other


def shifted(made: Handmade, position: int, by: int) -> Handmade:
    """A copy whose rows from a position on stand later."""
    other = copy.deepcopy(made)
    for rows in other.rows.values():
        for row in rows:
            if row["position"] >= position:
                row["position"] += by
                row["vtime_ns"] += by
    other.position += by
    return other


# --- made by hand ---------------------------------------------------------------------------------------------------------------------


def test_equal_traces_are_not_read() -> None:
    """Their hashes answer."""
    found = compared(life(), life(), batch_rows=7)
    assert found.is_same and found.batches_read == 0 and found.cause is None and found.changes["schedule"] == ()
    assert found.counts["schedule"] == Counts(same=82) and list(lines(found, 5))[-1] == "verdict: same (246 events)"


def test_equal_parts_are_not_read() -> None:
    """One row that differs costs one batch of each side, before and after which all hashes agree."""
    made = life(1000)
    found = compared(made, changed(made, "memory_writes", 500, value=1 << 40), batch_rows=16)
    assert found.batches_read <= 20  # of 16 rows each: also the 64 rows of each vCPU that are searched behind it; of 1,100
    assert found.total == Counts(same=6005, changed=1)
    assert found.first is not None and [(one.name, one.a, one.b) for one in found.first.fields] == [("value", 350_000, 1 << 40)]


def test_an_inserted_hypercall() -> None:
    """Its position is shared by rows that it renumbers; it is the only one that counts as different, also among its like."""
    made = life()
    other = copy.deepcopy(made)
    at = made.rows["hypercalls"][20]["position"]
    copied = {**made.rows["hypercalls"][20], "x1": 77, "position": at - 10, "sequence": 0}
    for row in other.rows["pvtime"]:
        if row["position"] == at - 10:
            row["sequence"] = 1
    other.rows["hypercalls"].insert(20, copied)
    found = compared(made, other)
    assert found.first is not None and (found.first.kind, found.first.table) == ("only_b", "hypercalls")
    assert found.first.b is not None and found.first.b.row["x1"] == 77 and found.first.a is None
    assert found.total == Counts(same=246, moved=1, only_b=1)
    assert found.cause is None and "does not show a cause" in found.no_cause
    assert found.before[-1].place < found.first.place <= found.after_a[0].place
    assert found.after_b[0].row["x1"] == 77 and found.after_a[0].table == "pvtime"


def test_a_shifted_position() -> None:
    """What comes after it is the same, elsewhere; the decision is named with the instructions that lie between."""
    made = life()
    at = made.rows["schedule"][41]["position"]
    assert made.rows["schedule"][41]["event"] == "preempt"
    found = compared(made, shifted(made, at, 212))
    assert found.first is not None and found.first.kind == "moved" and found.first.place[0] == at
    behind = sum(row["position"] >= at for rows in made.rows.values() for row in rows)
    assert found.total == Counts(same=246, moved=behind)
    assert found.cause is not None and found.cause.kind == "schedule"
    assert (
        found.cause.sentence
        == f"decision 41: A preempted vCPU 1 at position {at:,} (reason slice), B ran it 212 instructions longer"
    )
    assert [(proof.side, proof.event.index) for proof in found.cause.proofs] == [("a", 41), ("b", 41)]
    assert compared(made, shifted(made, at, 212), ignore=("position", "vtime_ns")).is_same


def test_rows_that_begin_earlier_than_they_differ() -> None:
    """A line of the console and a block of instructions stand where they begin: what happens before they end comes first."""
    made = life()
    made.say(90_000, 0, "told 1")
    made.row("blocks", 90_100, 0, pc=64, instructions=10)
    made.schedule(90_200, 0, "preempt", "slice")
    made.say(90_300, 0, "told 2")
    other = shifted(made, made.rows["schedule"][-1]["position"], 5)
    other.rows["blocks"][0]["instructions"] += 5
    other.rows["console"][0]["data"] = b"told 7\n"
    found = compared(made, other)
    assert found.first is not None and (found.first.table, found.first.kind) == ("schedule", "moved")
    assert found.cause is not None and found.cause.kind == "schedule"
    assert found.counts["blocks"].changed == found.counts["console"].changed == 1
    assert {event.table for event in found.before}.isdisjoint({"blocks", "console"})  # those before it are not the same


def test_a_decision_that_one_side_lacks() -> None:
    """What the other side did with the thread instead."""
    made = life()
    other = copy.deepcopy(made)
    del other.rows["schedule"][41]
    found = compared(made, other)
    assert found.first is not None and found.first.kind == "only_a" and found.total.only_a == 1
    assert found.cause is not None and "A preempted vCPU 1" in found.cause.sentence and "B did not" in found.cause.sentence


@pytest.mark.parametrize(
    ("table", "columns", "kind", "told"),
    [
        ("hypercalls", {"ret0": 5}, "hypercall", "answer PSCI_VERSION of vCPU 1 at position {}"),
        ("hypercalls", {"x1": 99}, None, ""),
        ("memory_writes", {"value": 3}, "publication", "store by the host (pvtime) for vCPU 1"),
        ("memory_writes", {"cause": "directive"}, "publication", "cause pvtime in A, directive in B"),
        ("memory_writes", {"origin": "guest", "cause": None}, "publication", "origin host in A, guest in B"),
        ("schedule", {"reason": "quota"}, "schedule", "reason slice in A, quota in B"),
        ("schedule", {"pcpu": 0}, "schedule", "pcpu 1 in A, 0 in B"),
        ("pvtime", {"revision": 3}, "publication", "revision 0 in A, 3 in B"),
        ("directives", {"ipa": 64}, "directive", "directive attribute_set on vCPU 0"),
    ],
)
def test_what_is_told_of_a_row(table: str, columns: dict[str, Any], kind: str | None, told: str) -> None:
    """One row differs: the cause that it shows."""
    made = life()
    index = {"schedule": 5, "directives": 2}.get(table, 1 if table == "hypercalls" else next(
        n for n, row in enumerate(made.rows[table]) if row["vcpu"] == 1 and row.get("event") != "read"
    ))  # fmt: skip
    found = compared(made, changed(made, table, index, **columns))
    assert found.first is not None and found.first.table == table
    assert found.first.place[0] == made.rows[table][index]["position"]
    assert (found.cause and found.cause.kind) == kind
    if found.cause is not None:
        assert told.format(found.first.place[0]) in found.cause.sentence
        assert found.cause.proofs and found.as_json()["cause"]["rows"][0]["command"].startswith("tracekit dump ")


def test_what_is_ignored() -> None:
    """Columns and tables that are not compared; names that are not there are refused."""
    made = life()
    other = changed(changed(made, "memory_writes", 9, value=5), "hypercalls", 2, x1=3)
    assert compared(made, other, ignore=("value", "x1")).is_same
    found = compared(made, other, tables=("memory_writes", "schedule"))
    assert list(found.counts) == ["schedule", "memory_writes"] and found.total.changed == 1
    assert any("only schedule, memory_writes compared" in note for note in found.notes)
    assert {event.table for event in found.before} <= {"schedule", "memory_writes"}
    for wrong in ({"ignore": ("valu",)}, {"tables": ("schedules",)}, {"tables": ()}):
        with pytest.raises(InputError, match="there are"):
            compared(made, other, **wrong)


def test_context_and_limit() -> None:
    """As many events and changes as were asked for, in order."""
    made = life()
    other = copy.deepcopy(made)
    for row in other.rows["pvtime"][10:]:
        row["stolen_ns"] += 1
    found = compared(made, other, context=9, limit=3)
    assert [len(events) for events in (found.before, found.after_a, found.after_b)] == [9, 9, 9]
    places = [event.place for event in (*found.before, *found.after_a)]
    assert places == sorted(set(places))
    assert len(found.changes["pvtime"]) == 3 and found.counts["pvtime"].changed == 70
    none = compared(made, other, context=0, limit=0)
    assert none.before == none.after_a == () and none.changes["pvtime"] == () and none.first == found.first


def test_a_recovered_trace_is_compared_to_its_end() -> None:
    """What the longer one has behind is no difference, and that is said."""
    made = life(40)
    short = copy.deepcopy(made)
    cut = made.rows["schedule"][50]["position"]
    short.rows = {name: [row for row in rows if row["position"] < cut] for name, rows in made.rows.items()}
    short.position, short.recovered = cut, ["the rest"]
    found = compared(made, short)
    assert found.is_same and any(f"before position {cut:,}" in note for note in found.notes)
    assert any("B ends early" in note and "recovered" in note for note in found.notes)
    assert found.total == Counts(same=sum(len(rows) for rows in short.rows.values()))
    late = changed(made, "schedule", 60, reason="quota")
    assert compared(late, short).is_same
    assert not compared(late, made).is_same
    early = compared(changed(made, "schedule", 20, reason="quota"), short)
    assert early.first is not None and early.first.table == "schedule" and early.total.changed == 1


def test_other_guests_and_vcpus() -> None:
    """Compared by the kind of event, with what differs said first."""
    made = life()
    other = life()
    other._manifest["images"] = []
    other._manifest["machine"]["entry"] = 64
    for row in other.rows["hypercalls"]:
        row["pc"] += 0x1000
    found = compared(made, other)
    assert found.cause is not None and found.cause.kind == "image" and "the guests differ" in found.cause.sentence
    assert found.counts["hypercalls"] == Counts(changed=40) and any("the guests differ" in note for note in found.notes)
    more = compared(life(), life(60, vcpus=3))
    assert any("A has 2 vCPUs, B 3" in note for note in more.notes) and more.total.only_b > 0


# --- what always holds ------------------------------------------------------------------------------------------------------------------


PLANTED = (
    ("memory_writes", "value", (1 << 62) + 5),
    ("pvtime", "stolen_ns", (1 << 62) + 5),
    ("schedule", "from_pcpu", 77),
    ("directives", "value", (1 << 62) + 5),
    ("hypercalls", "x3", (1 << 62) + 5),
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([3, 11, 65_536]), st.sampled_from(PLANTED))
def test_a_planted_change_is_found(seed: int, batch_rows: int, planted: tuple[str, str, int]) -> None:
    """Exactly, wherever it is; a trace is the same as itself."""
    table, column, value = planted
    made = RandomTrace(seed, "kvm").trace
    rows = sum(len(one) for one in made.rows.values())
    assert compared(made, made, batch_rows).total == Counts(same=rows)
    if not made.rows[table]:
        return
    index = random.Random(seed).randrange(len(made.rows[table]))
    found = compared(made, changed(made, table, index, **{column: value}), batch_rows)
    assert found.first is not None and found.first.table == table and found.first.kind == "changed"
    assert found.first.a is not None and found.first.a.index == index
    assert [(one.name, one.b) for one in found.first.fields] == [(column, value)]
    assert found.total == Counts(same=rows - 1, changed=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 1 << 32), st.sampled_from([5, 65_536]))
def test_sides_can_be_exchanged(seed: int, other: int, batch_rows: int) -> None:
    """The counts are those of the exchanged traces, every row of both is in them, and the first difference is the first."""
    a, b = (RandomTrace(one, "kvm", 30).trace for one in (seed, other))
    there, back = compared(a, b, batch_rows), compared(b, a, batch_rows)
    for name, counts in there.counts.items():
        mirror = back.counts[name]
        assert (counts.same, counts.moved, counts.changed) == (mirror.same, mirror.moved, mirror.changed)
        assert (counts.only_a, counts.only_b) == (mirror.only_b, mirror.only_a)
        assert counts.same + counts.changed + counts.only_a == len(a.rows[name])
        assert counts.same + counts.changed + counts.only_b == len(b.rows[name])
    flat = [{(name, *row.values()) for name, rows in made.rows.items() for row in rows} for made in (a, b)]
    lone = flat[0] ^ flat[1]
    assert there.is_same == (not lone)
    if there.first is not None:
        assert there.first.place[0] == min(row[1] for row in lone)


def test_an_interrupt_taken_elsewhere() -> None:
    """Its place is a decision; of the guest's own doing there is no cause, and of tables that were not asked none is claimed."""
    made = life()
    made.row("interrupts", 90_000, 1, event="take", intid=27, pc=64)
    made.read(90_100, 1, 5)
    found = compared(made, shifted(made, made.rows["interrupts"][0]["position"], 3))
    assert found.cause is not None and found.cause.kind == "interrupt"
    assert found.cause.sentence.startswith("interrupt 27 of vCPU 1 is taken at position ")
    assert found.cause.sentence.endswith("in B 3 instructions and 3 ns later")
    other = changed(made, "pvtime", -1, stolen_ns=6)
    assert compared(made, other).cause is None
    assert "without --tables" in compared(made, other, tables=("pvtime",)).as_json()["no_cause"]


def test_other_engines() -> None:
    """Where only the engine differs and then the guest does, that is said."""
    made = life()
    made._manifest["engine"] = {"unicorn": "2.1"}
    other = changed(made, "pvtime", 1, stolen_ns=6)
    assert made.rows["pvtime"][1]["event"] == "read"
    other._manifest["engine"] = {"unicorn": "9.9"}
    found = compared(made, other)
    assert found.cause is not None and found.cause.kind == "machine" and "engine.unicorn" in found.cause.sentence
