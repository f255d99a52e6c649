"""Every hash, schema and cross-reference of a trace, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.formats.arrow import Row
from tracekit.formats.checkpoints import Entry
from tracekit.formats.errors import TraceError
from tracekit.formats.pages import TABLES_WITH_PAGES, outside
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

_AFTER: dict[str, str] = {
    "online": "wait", "offline": "block", "run": "run", "preempt": "wait", "block": "block", "wake": "wait", "yield": "wait",
    "throttle": "wait", "unthrottle": "wait", "pause": "block", "resume": "wait", "suspend": "block", "unsuspend": "wait", "poll": "run",
}  # fmt: skip
_BEFORE: dict[str, set[str | None]] = {
    "online": {None, "block"}, "offline": {None, "run", "wait"}, "run": {"wait"}, "preempt": {"run"}, "block": {"run", "wait"},
    "wake": {"block"}, "yield": {"run"}, "throttle": {"run", "wait"}, "unthrottle": {"wait"},
    "pause": {None, "run", "wait", "block"}, "resume": {"block"}, "suspend": {"run", "wait", "block"}, "unsuspend": {"block"}, "poll": {"run"},
}  # fmt: skip
FINDINGS_MAX = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: where (file or table and position) and what."""

    where: str
    what: str


def verify(path: Path) -> list[Finding]:
    """All findings, at most FINDINGS_MAX; an empty list means whole. Damage never raises."""
    findings: list[Finding] = []
    try:
        trace = Trace.open(path)
    except TraceError as error:
        return [Finding(str(path), _without(str(error), path))]
    for check in (_hashes, _contents):
        for finding in check(trace):
            findings.append(finding)
            if len(findings) >= FINDINGS_MAX:
                return findings
        if findings:
            break  # contents are only worth reading where the hashes hold
    return findings


def _without(text: str, path: Path) -> str:
    return text.removeprefix(f"{path}/").removeprefix(f"{path}: ")


def _hashes(trace: Trace) -> Iterator[Finding]:
    for name, table in TABLES.items():
        entry = trace.manifest["tables"][name]
        if trace.hash_of(table.file) == entry["sha256"]:
            continue
        found = False
        for index in range(len(entry["batches"])):
            try:
                trace.batch(name, index)
            except TraceError as error:
                found = True
                yield Finding(table.file, _without(str(error), trace.path).removeprefix(f"{table.file}: "))
        if not found:
            yield Finding(table.file, "altered outside its batches (SHA-256 does not agree)")
    for image in trace.manifest["images"]:
        try:
            trace.image(image["sha256"])
        except TraceError as error:
            yield Finding(f"images/{image['sha256'][:12]}", _without(str(error), trace.path))
    checkpoints = trace.checkpoints()
    for k, entry in enumerate(checkpoints.entries):
        try:
            checkpoints.check_hash(k)
        except TraceError as error:
            yield _of_checkpoint(trace, entry, error)


def _of_checkpoint(trace: Trace, entry: Entry, error: TraceError) -> Finding:
    return Finding(entry.file, _without(str(error), trace.path).removeprefix(f"{entry.file}: "))


def _contents(trace: Trace) -> Iterator[Finding]:
    manifest = trace.manifest
    try:
        machine = manifest["machine"]
        vcpus, host = int(machine["vcpus"]), manifest["scenario"]["host"]
        pcpus = int(host["pcpus"])
        images = {image["sha256"] for image in manifest["images"]}
        for segment in machine["segments"]:
            if segment["image"] not in images:
                yield Finding("trace.json", f"the segment at {segment['ipa']:#x} has no image")
    except (KeyError, TypeError, ValueError) as error:
        yield Finding("trace.json", f"the description of machine and scenario is not usable ({error!r})")
        return
    end = int(manifest["end"]["position"])
    threads = manifest["threads"]
    for name in TABLES:
        yield from _order(trace, name, vcpus, end)
    yield from _schedule(trace, threads, pcpus)
    yield from _pvtime(trace, [int(ipa) for ipa in machine["pv_structures"]])
    yield from _states(trace, end)
    yield from _checkpoints(trace)


def _order(trace: Trace, name: str, vcpus: int, end: int) -> Iterator[Finding]:
    before = (-1, -1)
    for batch_index, batch in enumerate(trace.batches(name)):
        ranges = trace.manifest["tables"][name]["batches"][batch_index]
        columns = [batch.column(index).to_pylist() for index in range(4)]
        positions, sequences, vtimes, vcpu_column = columns
        for at, key in enumerate(zip(positions, sequences, strict=True)):
            if key <= before:
                yield Finding(name, f"row at position {key[0]} is out of order")
                return
            before = key
            if vcpu_column[at] is not None and vcpu_column[at] >= vcpus:
                yield Finding(name, f"row at position {key[0]} names vCPU {vcpu_column[at]} of {vcpus}")
                return
        expected: dict[str, list[int]] = {
            "position": [positions[0], positions[-1]],
            "sequence": [sequences[0], sequences[-1]],
            "vtime_ns": [min(vtimes), max(vtimes)],
        }
        for key_name, value in expected.items():
            if ranges[key_name] != value:
                yield Finding("trace.json", f"the {key_name} range of batch {batch_index} of {name} is not its rows'")
        if name in TABLES_WITH_PAGES and (ipa := outside(ranges, batch.column(TABLES[name].index("ipa")))) is not None:
            yield Finding("trace.json", f"the pages of batch {batch_index} of {name} do not hold its row at {ipa:#x}")
    if before[0] > end:
        yield Finding(name, f"a row at position {before[0]}, behind the end at {end}")


def _schedule(trace: Trace, threads: list[Any], pcpus: int) -> Iterator[Finding]:
    states: dict[int, str | None] = {}
    last_of_thread: dict[int, int] = {}
    last_of_pcpu: dict[int, int] = {}
    on_pcpu: dict[int, int] = {}
    for row in trace.rows("schedule"):
        position, _, vtime, vcpu, thread, event, pcpu, from_pcpu, reason = row
        where = f"row at position {position}, thread {thread}, {event}"
        if thread >= len(threads):
            yield Finding("schedule", f"{where}: the manifest has {len(threads)} threads")
            return
        if (vcpu is not None) != (threads[thread]["kind"] == "vcpu") or (vcpu is not None and vcpu != thread):
            yield Finding("schedule", f"{where}: vCPU {vcpu} is not that thread's")
        for one in (pcpu, from_pcpu):
            if one is not None and one >= pcpus:
                yield Finding("schedule", f"{where}: pCPU {one} of {pcpus}")
        if vtime < last_of_thread.get(thread, 0) or (pcpu is not None and vtime < last_of_pcpu.get(pcpu, 0) and reason != "turn"):
            yield Finding("schedule", f"{where}: time runs backward")
        last_of_thread[thread] = vtime
        if pcpu is not None:
            last_of_pcpu[pcpu] = max(vtime, last_of_pcpu.get(pcpu, 0))
        state = states.get(thread)
        if reason == "turn":
            if state != "run":
                yield Finding("schedule", f"{where}: a turn of a thread that does not run")
            continue
        if event in _AFTER:
            if state not in _BEFORE[event]:
                yield Finding("schedule", f"{where}: not possible in state {state or 'unknown'}")
            if state == "run" and _AFTER[event] != "run":
                on_pcpu = {p: t for p, t in on_pcpu.items() if t != thread}
            states[thread] = _AFTER[event]
        if event == "run" and pcpu is not None:
            if pcpu in on_pcpu:
                yield Finding("schedule", f"{where}: thread {on_pcpu[pcpu]} is on pCPU {pcpu} already")
            on_pcpu[pcpu] = thread


def _pvtime(trace: Trace, structures: list[int]) -> Iterator[Finding]:
    for row in trace.rows("pvtime"):
        if row[5] not in structures:
            yield Finding("pvtime", f"row at position {row[0]}: no vCPU has a structure at {row[5]:#x}")
            return


def _states(trace: Trace, end: int) -> Iterator[Finding]:
    last: Row | None = None
    for row in trace.rows("states"):
        last = row
        if (row[4] == "vcpu") != (row[5] is not None) or (row[4] == "board") != (row[6] is not None):
            yield Finding("states", f"row at position {row[0]}: digests do not fit its scope")
            return
    if "recovered" not in trace.manifest and (last is None or last[0] != end or last[7] is None):
        yield Finding("states", "the final memory digest is missing")


def _checkpoints(trace: Trace) -> Iterator[Finding]:
    """Each file holds what it must, and stands where `states` rows stand."""
    checkpoints = trace.checkpoints()
    if not checkpoints.entries:
        return
    marks = {(row[0], row[1] + 1) for row in trace.rows("states") if row[4] == "board"}
    for k, entry in enumerate(checkpoints.entries):
        if (entry.position, entry.sequence) not in marks:
            yield Finding("trace.json", f"checkpoint {k} at position {entry.position} does not stand behind `states` rows")
        try:
            checkpoints.check(k)
        except TraceError as error:
            yield _of_checkpoint(trace, entry, error)
