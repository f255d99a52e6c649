"""`analyze hypercalls` against a plain walk over the rows, and the command."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from handmade import NO, ST, Handmade
from support import busy_host, recorded, rows, tracekit

from tracekit.analyzers.hypercalls import Calls, hypercalls
from tracekit.analyzers.source import windows
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace

EXIT_NS = 400


def signed(function_id: int, value: int) -> int:
    """A result of the call's width."""
    bits = 64 if function_id >> 30 & 1 else 32
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def costs(path: Path, exit_ns: int) -> list[tuple[dict[str, Any], int, int]]:
    """(call, ns, instructions) of every call that returns."""
    trace = Trace.open(path)
    vcpus, end = trace.manifest["machine"]["vcpus"], trace.manifest["end"]["position"]
    runs = [row for row in rows(path, "schedule") if row["event"] == "run" and row["thread"] < vcpus]
    stretches = [
        (row["thread"], row["position"], after["position"] if after else end, row["vtime_ns"])
        for row, after in zip(runs, [*runs[1:], None], strict=True)
    ]
    out = []
    for call in rows(path, "hypercalls"):
        for thread, begin, until, at_ns in stretches:
            if thread == call["vcpu"] and until > call["position"] + 1 and until > begin:
                if begin > call["position"]:
                    out.append((call, at_ns - call["vtime_ns"], begin - call["position"]))
                else:
                    out.append((call, exit_ns + 1, 1))
                break
    return out


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recorded, with exit costs, on one and on two pCPUs."""
    folder = tmp_path_factory.mktemp("calls")
    recorded(folder / "one.tkt", "steal", host=busy_host())
    recorded(folder / "two.tkt", "accounting", vcpus=4, host=busy_host("chaos", pcpus=2), exit_cost_ns=EXIT_NS, seed=3)
    return {name: folder / f"{name}.tkt" for name in ("one", "two")}


@pytest.mark.parametrize("by", [None, "vcpu", "pc"])
@pytest.mark.parametrize("name", ["one", "two"])
def test_against_a_plain_walk(traces: dict[str, Path], name: str, by: str | None) -> None:
    """Counts, failures, results and costs of each function, of each vCPU's or place's apart."""
    path = traces[name]
    every: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    spent: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    for row in rows(path, "hypercalls"):
        every[row["function_id"], row.get(by or "")].append(signed(row["function_id"], row["ret0"]))
    for row, ns, instructions in costs(path, EXIT_NS if name == "two" else 0):
        spent[row["function_id"], row.get(by or "")].append((ns, instructions))
    found = hypercalls(Trace.open(path), by=by).to_dicts()
    assert {(row["function_id"], row.get(by or "")) for row in found} == set(every) and len(found) == len(every)
    for row in found:
        key = row["function_id"], row.get(by or "")
        results, cost = every[key], spent[key]
        assert row["calls"] == len(results) and row["failures"] == sum(-16 <= one <= -1 for one in results)
        texts = [part.rsplit(" x", 1) for part in row["results"].split(", ")]
        assert {int(value, 0): int(count) for value, count in texts} == Counter(results)
        assert row["returns"] == len(cost)
        for index, unit in enumerate(("_ns", "_instructions")):
            values = sorted(one[index] for one in cost)
            assert row[f"cost_total{unit}"] == sum(values) and row[f"cost_max{unit}"] == (values[-1] if values else None)
            assert row[f"cost_p50{unit}"] == (values[-(-len(values) // 2) - 1] if values else None)
    assert [row["calls"] for row in found] == sorted((row["calls"] for row in found), reverse=True)


def test_a_call_that_sleeps_costs_its_sleep(tmp_path: Path) -> None:
    """What passes until the vCPU goes on counts, in ns and in others' instructions; a call that never returns costs nothing."""
    trace = Handmade(2).begin()
    trace.schedule(0, 0, "run", "start")
    call = trace.call(1000, 0, 0xC400_0001, 0, 0)
    trace.position = call + 1  # the call's own instruction retires, then another vCPU's
    trace.schedule(1100, 1, "run", "suspend")
    trace.call(1500, 1, ST, 0, NO, ret1=0)
    trace.call(1600, 1, 0xC500_0099, 0, 7)
    trace.schedule(2000, 1, "block", "wfi")
    back = trace.schedule(5000, 0, "run", "timer")
    trace.call(6000, 0, 0x8400_0008, 0, 0)
    trace.schedule(6000, 0, "offline", "power_off")
    path = trace.write(tmp_path / "calls.tkt")
    found = {row["function_id"]: row for row in hypercalls(Trace.open(path)).to_dicts()}
    assert (found[0xC400_0001]["cost_max_ns"], found[0xC400_0001]["cost_max_instructions"]) == (4000, back - call)
    assert (found[ST]["failures"], found[ST]["results"], found[ST]["cost_max_ns"]) == (1, "-1 x1", 1)
    assert found[0xC500_0099]["function"] is None and found[0xC500_0099]["results"] == "7 x1"


@pytest.mark.parametrize("size", [1, 3])
def test_windows_change_nothing(traces: dict[str, Path], size: int) -> None:
    """However both tables are cut, the frame is the same."""
    trace = Trace.open(traces["two"])
    from tracekit.analyzers.hypercalls import WANTS

    (window,) = windows(trace, WANTS)
    cut = Calls(trace, None)
    places = sorted({*window["hypercalls"]["position"], *window["schedule"]["position"]})
    for at in range(0, len(places), size):
        chosen = places[at : at + size]
        cut.feed({name: frame.filter(frame["position"].is_in(chosen)) for name, frame in window.items()})
    assert cut.close().equals(hypercalls(trace))


def test_rare_results_are_counted_together(traces: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound errors stay apart, and no call is lost."""
    monkeypatch.setattr("tracekit.analyzers.hypercalls.KEPT_MAX", 4)
    monkeypatch.setattr("tracekit.analyzers.hypercalls.RESULTS_MAX", 2)
    found = {row["function"]: row for row in hypercalls(Trace.open(traces["two"])).to_dicts()}
    calls = rows(traces["two"], "hypercalls")
    assert sum(row["calls"] for row in found.values()) == len(calls)
    assert found["PV_TIME_ST"]["results"].endswith("others x2") or "more" in found["PV_TIME_ST"]["results"]


def test_the_command(traces: dict[str, Path]) -> None:
    """Text and JSON of runtime and hypercalls; options that belong to another analysis are refused."""
    path = traces["two"]
    done = tracekit("analyze", path, "runtime", "hypercalls", "--over", "10ms", "--by", "vcpu", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"trace", "end", "is_good", "runtime", "hypercalls"}
    assert {row["vcpu"] for row in found["hypercalls"]} == {0, 1, 2, 3} and found["runtime"]["vcpus"][1]["start_ns"] == 10_000_000
    text = tracekit("analyze", path, "runtime", "hypercalls").stdout
    assert "waited for, in ns" in text and "neighbour0" in text and "PSCI_CPU_ON" in text and "0xc4000003" in text
    for arguments, message in (
        (["--by", "pc"], "--by belongs to hypercalls"),
        (["hypercalls", "--over", "1ms"], "--over belongs to"),
    ):
        done = tracekit("analyze", path, *arguments)
        assert done.returncode == 2 and message in done.stderr
    with pytest.raises(InputError, match="must be one of vcpu, pc"):
        hypercalls(Trace.open(path), by="el")
