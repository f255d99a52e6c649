"""Chrome's trace event JSON: valid by the format's rules, and the same content as the tables'."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import busy_host, recorded

from tracekit.analyzers.export.export import export
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.timeline import intervals
from tracekit.formats.reader import Trace

PHASES = {"X", "M", "C", "i", "s", "f"}
# Which fields an event of each phase must have besides ph, pid and name.
NEEDS = {"X": {"tid", "ts", "dur", "cat"}, "M": {"args"}, "C": {"ts", "args"}, "i": {"tid", "ts", "s", "cat"}, "s": {"tid", "ts", "id", "cat"},
         "f": {"tid", "ts", "id", "cat", "bp"}}  # fmt: skip
METADATA = {"process_name": "name", "process_sort_index": "sort_index", "thread_name": "name", "thread_sort_index": "sort_index"}
COLOURS = {"thread_state_running", "thread_state_runnable", "thread_state_sleeping"}


def ns(us: Any) -> int:
    """Microseconds as the file writes them in ns, exactly."""
    whole, _, part = str(us).partition(".")
    assert len(part) <= 3, us
    return int(whole) * 1000 + int(part.ljust(3, "0") if part else 0)


def valid(path: Path) -> list[dict[str, Any]]:
    """The events; each is checked against the rules."""
    raw = path.read_bytes()
    document = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw, parse_float=str)
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"} and document["displayTimeUnit"] == "ns"
    events = document["traceEvents"]
    for event in events:
        assert event["ph"] in PHASES and isinstance(event["pid"], int) and isinstance(event["name"], str), event
        assert NEEDS[event["ph"]] <= set(event), event
        if event["ph"] == "M":
            assert METADATA[event["name"]] in event["args"]
        else:
            event["ts"] = ns(event["ts"])
        if event["ph"] == "X":
            event["dur"] = ns(event["dur"])
            assert event["dur"] > 0 and event.get("cname", "thread_state_running") in COLOURS
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] == "t"
    return events


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two vCPUs on a contended physical CPU."""
    path = tmp_path_factory.mktemp("chrome") / "run.tkt"
    recorded(path, "accounting", host=busy_host())
    return path


def test_slices_and_flows(run: Path, tmp_path: Path) -> None:
    """States are those of the analyzers, nothing overlaps on a thread, and each flow begins and ends inside a run of one vCPU."""
    export(run, "chrome", tmp_path / "a.json")
    events = valid(tmp_path / "a.json")
    lanes: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault((event["pid"], event["tid"]), []).append(event)
    for slices in lanes.values():
        assert all(one["ts"] + one["dur"] <= other["ts"] for one, other in pairwise(sorted(slices, key=lambda one: one["ts"])))
    pieces = intervals(Trace.open(run))
    pieces = pieces.filter(pieces["start_ns"] < pieces["end_ns"])
    for vcpu in (0, 1):
        shown = [(one["cat"], one["name"], one["ts"], one["ts"] + one["dur"]) for one in lanes[2, vcpu]]
        assert shown == pieces.filter(pieces["vcpu"] == vcpu).select("kind", "state", "start_ns", "end_ns").rows()
    of_vcpus = sum(one["dur"] for one in lanes[1, 0] if one["name"].startswith("vcpu"))
    assert of_vcpus == sum(one["dur"] for vcpu in (0, 1) for one in lanes[2, vcpu] if one["cat"] == "run")
    begins, ends = ({one["id"]: one for one in events if one["ph"] == phase} for phase in "sf")
    assert begins and set(begins) == set(ends) and len(begins) == sum(one["ph"] == "s" for one in events)
    for flow, begin in begins.items():
        end = ends[flow]
        assert (begin["pid"], begin["tid"], begin["name"], begin["cat"]) == (end["pid"], end["tid"], end["name"], end["cat"])
        assert begin["ts"] < end["ts"]
        for point in (begin, end):
            (around,) = [one for one in lanes[2, point["tid"]] if one["ts"] <= point["ts"] < one["ts"] + one["dur"]]
            assert around["cat"] == "run"


def test_the_same_as_perfetto(run: Path, tmp_path: Path) -> None:
    """Instants and counters: as many, at the same times, with the same names."""
    from perfetto_reader import read

    export(run, "chrome", tmp_path / "a.json.gz")
    export(run, "perfetto", tmp_path / "a.pftrace")
    events, other = valid(tmp_path / "a.json.gz"), read(tmp_path / "a.pftrace")
    shown = sorted((one["ts"], one["cat"], one["name"], one["args"]["position"]) for one in events if one["ph"] == "i")
    instants = [one for instants in other.instants.values() for one in instants]
    assert shown == sorted((one.start, one.category, one.name, one.arguments["position"]) for one in instants)
    samples = sorted((one["name"].removesuffix(" (ns)"), one["ts"], one["args"]["ns"]) for one in events if one["ph"] == "C")
    assert samples == sorted((name, at_ns, value) for name, of in other.counters.items() for at_ns, value in of)


def test_tables_and_window(run: Path, tmp_path: Path) -> None:
    """Only what was asked for."""
    done = export(run, "chrome", tmp_path / "a.json", tables=["hypercalls"], window=Window(from_ns=1, to_ns=1_000_000_000))
    events = valid(tmp_path / "a.json")
    assert {one["ph"] for one in events} == {"M", "i"} and {one["cat"] for one in events if one["ph"] == "i"} <= {
        "hypercalls",
        "findings",
    }
    assert done.counts["slices"] == done.counts["samples"] == 0 and done.counts["instants"] > 0
    assert all(1 <= one["ts"] < 1_000_000_000 for one in events if one["ph"] == "i")


def test_equal_bytes(run: Path, tmp_path: Path) -> None:
    """The same trace gives the same bytes, packed or not."""
    for suffix in ("json", "json.gz"):
        for name in "ab":
            export(run, "chrome", tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
