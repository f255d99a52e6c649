"""A timeline as Chrome's trace event JSON. Spec: "Trace Event Format", the JSON object format.

Three processes: pCPUs (a thread each: who runs), vCPUs (a thread each: states and instants; counters), and the board. Times are microseconds
with three decimals, so that no nanosecond is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from tracekit.analyzers.export.painter import COUNTERS, Kind, Occupancy, Sample, Scene, Slice, Waking
from tracekit.analyzers.timeline import KINDS as STATE_KINDS

PCPUS, VCPUS, BOARD = 1, 2, 3  # pids
_COLOURS = {"run": "thread_state_running", "wait": "thread_state_runnable", "block": "thread_state_sleeping"}


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03}"


class Chrome:
    """Paints into a file, event by event."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._names: dict[int, str] = {}
        self._lanes: set[tuple[int, int]] = set()
        self._texts: dict[str, str] = {}
        self._heads: dict[tuple[str, str | None, str | None], str] = {}
        self._is_first = True

    def begin(self, scene: Scene) -> None:
        """The head, and the processes' names."""
        self._names = {one.number: one.name for one in scene.threads}
        other = {"run": scene.run, "trace digest": scene.digest, "publication": scene.policy, "clock": "virtual time"}
        self._file.write(f'{{"displayTimeUnit":"ns","otherData":{json.dumps(other)},"traceEvents":[\n'.encode())
        for pid, name in ((PCPUS, "physical CPUs"), (VCPUS, f"guest {scene.run}"), (BOARD, "board")):
            self._meta(pid, 0, "process_name", {"name": name})
            self._meta(pid, 0, "process_sort_index", {"sort_index": pid})

    def occupancies(self, rows: Sequence[Occupancy], wakings: Sequence[Waking]) -> None:
        """A slice for each thread on a physical CPU; the format has no place for wakings."""
        lines = []
        for pcpu, thread, start_ns, end_ns, end_event, _, position, sequence in rows:
            self._lane(PCPUS, pcpu, f"pCPU {pcpu}")
            name = self._quoted(self._names.get(thread) or f"thread{thread}")
            left = f',"left by":{self._quoted(end_event)}' if end_event is not None else ""
            lines.append(
                f'{{"ph":"X","pid":{PCPUS},"tid":{pcpu},"ts":{_us(start_ns)},"dur":{_us(end_ns - start_ns)},"name":{name},'
                f'"cat":"schedule","args":{{"thread":{thread},"position":{position},"sequence":{sequence}{left}}}}}'
            )
        self._write(lines)

    def slices(self, rows: Sequence[Slice]) -> None:
        """A slice for each state; a flow leaves a run shortly before its end and reaches the next run's begin."""
        lines = []
        for vcpu, state, start_ns, end_ns, event, reason, pcpu, position, sequence, flow_out, flow_in in rows:
            self._lane(VCPUS, vcpu, f"vCPU {vcpu}")
            key = state, event, reason
            head = self._heads.get(key) or self._head(key)
            on = f'"pcpu":{pcpu},' if pcpu is not None else ""
            place = f'"pid":{VCPUS},"tid":{vcpu}'
            lines.append(
                f'{{"ph":"X",{place},"ts":{_us(start_ns)},"dur":{_us(end_ns - start_ns)},{head}{on}"position":{position},"sequence":{sequence}}}}}'
            )
            if flow_in is not None:
                lines.append(
                    f'{{"ph":"f","bp":"e",{place},"ts":{_us(start_ns)},"id":{flow_in},"name":"resumption","cat":"preemption"}}'
                )
            if flow_out is not None:
                lines.append(
                    f'{{"ph":"s",{place},"ts":{_us(end_ns - 1)},"id":{flow_out},"name":"resumption","cat":"preemption"}}'
                )
        self._write(lines)

    def _head(self, key: tuple[str, str | None, str | None]) -> str:
        """What slices of a state, event and reason have in common."""
        state, event, reason = key
        kind = STATE_KINDS[state]
        given = "".join(
            f'"{name}":{json.dumps(text)},' for name, text in (("event", event), ("reason", reason)) if text is not None
        )
        self._heads[key] = f'"name":"{state}","cat":"{kind}","cname":"{_COLOURS[kind]}","args":{{{given}'
        return self._heads[key]

    def samples(self, rows: Sequence[Sample]) -> None:
        """Values of counters, one counter for each vCPU and what it counts."""
        self._write(
            [
                f'{{"ph":"C","pid":{VCPUS},"tid":{vcpu},"ts":{_us(vtime_ns)},"name":"vCPU {vcpu} {COUNTERS[counter]} (ns)",'
                f'"args":{{"ns":{value}}}}}'
                for vcpu, counter, vtime_ns, value in rows
            ]
        )

    def instants(self, kind: Kind, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Instants on the vCPU's thread, or on the board's."""
        columns = ("position", "sequence", *kind.columns)
        hexadecimal = [column in kind.hexadecimal for column in columns]
        quoted = self._quoted(name)
        lines = []
        for vcpu, vtime_ns, *values in rows:
            if vcpu is None:
                pid, tid = BOARD, 0
            else:
                pid, tid = VCPUS, vcpu
                self._lane(VCPUS, vcpu, f"vCPU {vcpu}")
            shown = {
                column: f"{value:#x}" if is_hex and value is not None else value
                for column, value, is_hex in zip(columns, values, hexadecimal, strict=True)
            }
            lines.append(
                f'{{"ph":"i","s":"t","pid":{pid},"tid":{tid},"ts":{_us(vtime_ns)},"name":{quoted},"cat":"{kind.name}","args":{self._arguments(shown)}}}'
            )
        self._write(lines)

    def close(self) -> None:
        """The end of the object."""
        self._file.write(b"\n]}\n")

    def _lane(self, pid: int, tid: int, name: str) -> None:
        if (pid, tid) not in self._lanes:
            self._lanes.add((pid, tid))
            self._meta(pid, tid, "thread_name", {"name": name})
            self._meta(pid, tid, "thread_sort_index", {"sort_index": tid})

    def _meta(self, pid: int, tid: int, name: str, arguments: dict[str, Any]) -> None:
        self._write([json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": name, "args": arguments})])

    def _quoted(self, text: str) -> str:
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) > 4096:
                self._texts.clear()
            found = self._texts[text] = json.dumps(text)
        return found

    def _arguments(self, values: dict[str, Any]) -> str:
        parts = [
            f'"{name}":{value if isinstance(value, int) else self._quoted(value)}'
            for name, value in values.items()
            if value is not None
        ]
        return "{" + ",".join(parts) + "}"

    def _write(self, lines: list[str]) -> None:
        if lines:
            self._file.write((("" if self._is_first else ",\n") + ",\n".join(lines)).encode())
            self._is_first = False
