"""`tracekit report`: the values behind the page, what is kept of many intervals, strings that are somebody else's, the command."""

from __future__ import annotations

import base64
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import Handmade
from support import busy_host, environment, recorded, tracekit

from tracekit.analyzers.report.content import content_of
from tracekit.analyzers.report.data import data_of
from tracekit.analyzers.report.histogram import Bin, aligned, histogram
from tracekit.analyzers.report.lanes import occupants, pieces_of, states_over, waited_for, wakeup_latencies
from tracekit.analyzers.report.make import page_of
from tracekit.analyzers.report.markup import table, tag, text
from tracekit.analyzers.report.thinning import AROUND, LONGEST, thin
from tracekit.analyzers.steal import per_vcpu
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

MS = 1_000_000


def handmade(path: Path) -> Trace:
    """vCPU 0 runs, waits for vCPU 1 and then for a neighbour, sleeps, is woken, waits for nobody, runs; on one physical CPU."""
    made = Handmade(2, neighbours=1).begin()
    made.schedule(0, 0, "run", "start")
    made.schedule(100, 1, "online", "power_on")
    made.schedule(1000, 0, "preempt", "slice")
    made.schedule(1000, 1, "run", "slice")
    made.schedule(1600, 1, "block", "wfi")
    made.schedule(1600, 2, "online", "start")
    made.schedule(1600, 2, "run", "neighbour")
    made.schedule(2000, 2, "block", "neighbour")
    made.schedule(2000, 0, "run", "slice")
    made.schedule(3000, 0, "block", "wfi")
    made.schedule(5000, 0, "wake", "timer")
    made.schedule(5250, 0, "run", "wakeup")
    made.schedule(6000, 1, "wake", "sgi")
    made.end_ns = 7000
    return Trace.open(made.write(path))


def test_pieces_are_each_threads_life(tmp_path: Path) -> None:
    """Who was in which state, from when to when, on which physical CPU."""
    pieces = pieces_of(handmade(tmp_path / "a.tkt")).filter(pl.col("end_ns") > pl.col("start_ns"))
    assert [row[:1] + row[1:2] + row[3:5] for row in pieces.select("thread", "state", "pcpu", "start_ns", "end_ns").iter_rows()] == [
        (0, "run", 0, 1000), (0, "wait", 1000, 2000), (0, "run", 2000, 3000), (0, "sleep", 3000, 5000), (0, "woken", 5000, 5250),
        (0, "run", 5250, 7000),
        (1, "offline", 0, 100), (1, "wait", 100, 1000), (1, "run", 1000, 1600), (1, "sleep", 1600, 6000), (1, "woken", 6000, 7000),
        (2, "run", 1600, 2000), (2, "sleep", 2000, 7000),
    ]  # fmt: skip
    assert pieces.filter(pl.col("thread") < 2, pl.col("is_wakeup"))["start_ns"].to_list() == [5000, 6000]


def test_waits_are_blamed_on_who_ran(tmp_path: Path) -> None:
    """On the same physical CPU, in ns, most first; nobody ran: the host's own latency."""
    pieces = pieces_of(handmade(tmp_path / "a.tkt"))
    waits = pieces.filter(
        pl.col("thread") == 0, pl.col("state").cast(pl.String).is_in(["wait", "woken"]), pl.col("end_ns") > pl.col("start_ns")
    )
    assert occupants(waits, pieces) == [[(1, 600), (2, 400)], []]
    assert waited_for(pieces, 2).rows() == [(0, 1, 600), (0, 2, 400), (0, None, 250), (1, 0, 1900)]


def test_latency_is_from_the_wake_up_to_the_run(tmp_path: Path) -> None:
    """A wait that ends with the trace is none."""
    assert wakeup_latencies(pieces_of(handmade(tmp_path / "a.tkt"))).rows() == [(0, 5000, 250)]


@pytest.mark.parametrize("policy", ["round-robin", "fair", "chaos"])
def test_pieces_agree_with_the_ledger(tmp_path: Path, policy: str) -> None:
    """The same RUN, WAIT and BLOCK as `analyze steal`; every wait is blamed on somebody or on nobody, to the ns."""
    recorded(tmp_path / "a.tkt", "timer", host=busy_host(policy, pcpus=2, halt_poll_ns=50_000))
    trace = Trace.open(tmp_path / "a.tkt")
    spent = states_over(pieces_of(trace)).filter(pl.col("thread") < 2)
    whole = per_vcpu(trace)
    kinds = {
        "run_ns": ["run", "poll"],
        "wait_ns": ["wait", "woken", "yield"],
        "block_ns": ["sleep", "offline", "pause", "suspend"],
    }
    for name, states in kinds.items():
        of = spent.filter(pl.col("state").cast(pl.String).is_in(states)).group_by("thread").agg(pl.col("ns").sum()).sort("thread")
        found = dict(of.iter_rows())
        assert [found.get(vcpu, 0) for vcpu in range(2)] == whole[name].to_list(), name
    blamed = dict(waited_for(pieces_of(trace), 2).group_by("vcpu").agg(pl.col("ns").sum()).iter_rows())
    assert [blamed.get(vcpu, 0) for vcpu in range(2)] == whole["wait_ns"].to_list()


def many(count: int) -> pl.DataFrame:
    """Two threads that take turns of 10 ns on one physical CPU; turn 700 of each is 35 ns long."""
    rows, now = [], 0
    for turn in range(count):
        length = 35 if turn // 2 == 700 else 10
        for thread in range(2):
            state = "run" if thread == turn % 2 else "wait"
            rows.append((thread, state, 0, now, now + length, turn, 0, None, None, False))
        now += length
    frame = pl.DataFrame(rows, schema=dict(pieces_schema()), orient="row")
    return frame.sort("thread", "position", maintain_order=True)


def pieces_schema() -> list[tuple[str, Any]]:
    """Columns of `lanes.pieces_of`, from a trace without rows to speak of."""
    from tracekit.analyzers.report import lanes

    return list(lanes._PIECES.items())


def test_few_pieces_are_all_kept() -> None:
    """Nothing is merged that need not be."""
    pieces = many(100)
    thinned = thin(pieces, [], 0, 1000, pieces_max=200)
    assert thinned.bin_ns == 0 and thinned.kept.equals(pieces) and thinned.vcpus == {}


def test_thinning_keeps_extremes_and_what_lies_around_findings() -> None:
    """And the bins together hold each state's whole time."""
    pieces = many(4000)
    end_ns = int(pieces["end_ns"].max())  # type: ignore[arg-type]
    mark = 20_005
    thinned = thin(pieces, [mark], 0, end_ns, pieces_max=300, bins_max=512)
    assert thinned.total == 8000 and 0 < thinned.kept.height <= 300 and thinned.bin_ns > 10
    longest = thinned.kept.filter(pl.col("end_ns") - pl.col("start_ns") == 35)
    assert longest.height == 4 and LONGEST >= 4
    for thread in range(2):
        near = pieces.filter(pl.col("thread") == thread).with_row_index("at")
        hit = int(near.filter(pl.col("start_ns") <= mark)["at"].max())  # type: ignore[arg-type]
        wanted = near[hit - AROUND + 1 : hit + AROUND + 1].drop("at")
        assert wanted.join(thinned.kept, on=["thread", "start_ns"], how="semi").height == wanted.height
    for lanes in (thinned.vcpus[0], {str(thread): shares for thread, shares in thinned.pcpus[0].items()}):
        shares = [base64.b64decode(one) for one in lanes.values()]
        assert len(shares) == 2 and all(250 <= sum(pair) <= 255 for pair in list(zip(*shares, strict=True))[:-1])
        assert all(min(one[:-1]) > 0 for one in shares)


def test_a_share_that_is_not_nothing_is_never_0() -> None:
    """A wait of 1 ns in a bin of 2 us is still there."""
    pieces = many(4000)
    short = pieces.with_columns(end_ns=pl.when(pl.col("state") == "wait").then(pl.col("start_ns") + 1).otherwise("end_ns"))
    thinned = thin(short, [], 0, 40_050, pieces_max=300, bins_max=512)
    share = base64.b64decode(thinned.vcpus[0]["wait"])
    assert min(share[:-1]) >= 1


def test_thinning_does_not_depend_on_chance() -> None:
    """Of pieces of one length either all are kept or none."""
    pieces = many(4000)
    kept = thin(pieces, [], 0, 40_050, pieces_max=300, bins_max=512).kept
    assert kept.equals(thin(pieces.clone(), [], 0, 40_050, pieces_max=300, bins_max=512).kept)
    extremes = 4 * LONGEST
    assert kept.height == extremes


def test_bins() -> None:
    """1, 2, 5; zeros apart; side by side the same bins."""
    counts = pl.DataFrame({"value": [0, 7, 19, 20, 49], "count": [5, 1, 2, 3, 4]}, schema={"value": pl.Int64, "count": pl.Int64})
    left = histogram(counts)
    assert left == [Bin(0, 1, 5), Bin(5, 10, 1), Bin(10, 20, 2), Bin(20, 50, 7)]
    right = histogram(counts.filter(pl.col("value") == 20))
    assert aligned(left, right)[1] == [Bin(0, 1, 0), Bin(5, 10, 0), Bin(10, 20, 0), Bin(20, 50, 3)]
    assert histogram(counts.clear()) == [] and aligned([], []) == [[], []]


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;", "</script><b>", "'"])
def test_text_is_never_markup(bad: str) -> None:
    """Whatever it is, as a cell, an attribute or a caption."""
    made = table(bad, [bad], [[bad]]) + tag("a", bad, title=bad)
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
            seen.append(name)
            assert all(name in ("class", "tabindex", "role", "aria-label", "scope", "title") for name, _ in attributes)

    Reader().feed(made)
    assert set(seen) <= {"div", "table", "caption", "thead", "tr", "th", "tbody", "td", "a"}
    assert text(None) != "" and text(1234567) == "1,234,567"


def test_hostile_trace(tmp_path: Path) -> None:
    """Names, guest and console of a trace that mean harm stay text, in the page and in its data."""
    evil = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    made = Handmade(1, neighbours=1).begin()
    made._manifest["threads"][1]["name"] = evil
    made._manifest["scenario"]["image"] = evil
    made.schedule(0, 0, "run", "start")
    made.row("console", 10, 0, data=(evil + "\x1b[31m\x07\n").encode())
    made.end_ns = 100
    page = page_of([made.write(tmp_path / "a.tkt")])
    assert (
        page.count("<script") == 3
        and page.count("</script") == 3
        and "<img" not in page.split('<script type="application/json"')[0]
    )
    assert "\x1b" not in page and "\x07" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["runs"][0]["threads"][1] == evil


def test_same_trace_same_bytes(tmp_path: Path) -> None:
    """No date, no chance."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host())
    assert page_of([tmp_path / "a.tkt"]) == page_of([tmp_path / "a.tkt"])


def test_findings_come_with_their_row_and_command(tmp_path: Path) -> None:
    """The row that breaks the invariant, as the table has it."""
    made = Handmade(1).begin()
    made.schedule(0, 0, "run", "start")
    at = made.enable(5, 0)
    made.schedule(10, 0, "preempt", "slice")
    made.schedule(30, 0, "run", "slice")
    told = made.publish(30, 0, 25)
    made.end_ns = 100
    path = made.write(tmp_path / "a.tkt")
    content = content_of(Trace.open(path))
    shown = {one.finding.invariant: dict(one.row) for one in content.findings}
    assert shown["S4"]["position"] == told > at and shown["S4"]["stolen_ns"] == 25
    assert f"tracekit dump {path} pvtime --from {told} --to {told + 1}" in page_of([path])


def test_findings_of_one_place_are_one_mark(tmp_path: Path) -> None:
    """Marks that lie on each other would hide each other."""
    made = Handmade(1).begin()
    made.schedule(0, 0, "run", "start")
    made.enable(5, 0)
    for now, told in ((30, 20), (60, 5)):  # the second one steps back
        made.schedule(now - 20, 0, "preempt", "slice")
        made.schedule(now, 0, "run", "slice")
        made.publish(now, 0, told)
    made.end_ns = 100
    content = content_of(Trace.open(made.write(tmp_path / "a.tkt")))
    assert len(content.findings) > 1
    marks = [one for one in data_of(content, [], [])["marks"] if one["kind"] == "finding"]
    assert [(one["at"], one["title"]) for one in marks] == [(60, "S1, S2, S4 are broken")] and len(marks[0]["lines"]) == 3


def test_nobody_asked(tmp_path: Path) -> None:
    """It is not said to be right what nobody was told."""
    page = page_of([handmade(tmp_path / "a.tkt").path])
    assert "the guest never asked for its stolen time" in page and "no error in any published" not in page


def test_window(tmp_path: Path) -> None:
    """--from and --to cut the timeline, not the rest."""
    trace = handmade(tmp_path / "a.tkt")
    whole, part = content_of(trace), content_of(trace, from_ns=1200, to_ns=3500)
    kept = part.thinned.kept
    assert kept["start_ns"].min() == 1200 and kept["end_ns"].max() == 3500 and kept.height < whole.thinned.kept.height
    assert part.spent.equals(whole.spent)
    with pytest.raises(InputError, match="nothing between"):
        content_of(trace, from_ns=9000)


def test_command(tmp_path: Path) -> None:
    """It says where the page is and how large; it does not write over anything unasked."""
    handmade(tmp_path / "a.tkt")
    page = tmp_path / "page.html"
    done = tracekit("report", tmp_path / "a.tkt", "-o", page, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"page": str(page), "bytes": page.stat().st_size}
    again = tracekit("report", tmp_path / "a.tkt", "-o", page)
    assert again.returncode == 2 and "--force" in again.stderr
    assert tracekit("report", tmp_path / "a.tkt", "-o", page, "--force").returncode == 0
    assert tracekit("report", tmp_path / "none.tkt", "-o", tmp_path / "b.html").returncode == 2
    assert not (tmp_path / "b.html").exists()
    away = tracekit("report", tmp_path / "a.tkt", "-o", tmp_path / "no" / "b.html")
    assert away.returncode == 2 and "cannot be written" in away.stderr
    inside = tracekit("report", tmp_path / "a.tkt", "-o", page / "b.html")
    assert inside.returncode == 2 and "cannot be written" in inside.stderr
    device = tracekit("report", tmp_path / "a.tkt", "-o", "/dev/stdout", "--force")
    assert device.returncode == 2 and "no regular file" in device.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tkt", "page.html"]


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """What to install, in one line."""
    handmade(tmp_path / "a.tkt")
    (tmp_path / "vl_convert.py").write_text("raise ImportError('not here')\n")
    path = ":".join([str(tmp_path), *(one for one in sys.path if one)])
    done = tracekit("report", tmp_path / "a.tkt", "-o", tmp_path / "p.html", env=environment(PYTHONPATH=path))
    assert done.returncode == 2 and 'pip install "tracekit[report]"' in done.stderr and not (tmp_path / "p.html").exists()


def test_two_runs(tmp_path: Path) -> None:
    """Side by side, and what differs."""
    recorded(tmp_path / "a.tkt", "steal", host=busy_host())
    recorded(tmp_path / "b.tkt", "steal", host=busy_host(slice_ns=2 * MS))
    page = page_of([tmp_path / "a.tkt", tmp_path / "b.tkt"])
    assert 'id="differences"' in page and "First difference" in page and "Metrics that differ" in page
    same = page_of([tmp_path / "a.tkt", tmp_path / "a.tkt"])
    assert "both traces are the same" in same and "First difference" not in same
