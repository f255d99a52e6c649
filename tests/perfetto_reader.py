"""A Perfetto trace read back with the official definitions, and with every rule of its own that a reader relies on checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent


@dataclass
class Slice:
    """A slice of a track."""

    name: str
    category: str
    start: int
    end: int
    arguments: dict[str, Any]
    flows: tuple[list[int], list[int]]  # those that begin and those that end here


@dataclass
class Read:
    """What a trace says."""

    tracks: dict[int, str] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    counters: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    instants: dict[str, list[Slice]] = field(default_factory=dict)
    switches: dict[int, list[Any]] = field(default_factory=dict)  # of a CPU: FtraceEvents
    wakings: list[Any] = field(default_factory=list)
    order: list[Any] = field(default_factory=list)  # switches and wakings as they stand in the file

    def runs(self) -> dict[int, list[tuple[int, int, int]]]:
        """Of each CPU (tid, start, end), as its switches tell them; each must fit to the one before."""
        found = {}
        for cpu, events in self.switches.items():
            runs, since, who = [], 0, 0
            for event in events:
                switch = event.sched_switch
                assert event.timestamp >= since and switch.prev_pid == who == event.pid, (cpu, event)
                assert switch.prev_comm == self.threads[who] and switch.next_comm == self.threads[switch.next_pid]
                if who:
                    runs.append((who, since, event.timestamp))
                since, who = event.timestamp, switch.next_pid
            assert who == 0, "nobody runs at the end"
            found[cpu] = runs
        return found


def read(path: Path) -> Read:
    """Every packet in the order of the file."""
    message = Trace()
    message.ParseFromString(path.read_bytes())
    read, names = Read(threads={0: "swapper"}), {"event_names": {}, "event_categories": {}, "debug_annotation_names": {}}
    is_clear = False
    open_: dict[int, Slice] = {}
    for packet in message.packet:
        assert packet.trusted_packet_sequence_id
        is_clear = is_clear or bool(packet.sequence_flags & 1)
        assert is_clear or not packet.sequence_flags & 2
        for kind, known in names.items():
            for entry in getattr(packet.interned_data, kind):
                assert entry.iid and entry.iid not in known
                known[entry.iid] = entry.name
        for thread in packet.process_tree.threads:
            assert thread.tgid in {one.pid for one in packet.process_tree.processes}
            read.threads[thread.tid] = thread.name
        if packet.HasField("track_descriptor"):
            _track(read, packet.track_descriptor)
        if packet.HasField("ftrace_events"):
            _bundle(read, packet.ftrace_events)
        if packet.HasField("track_event"):
            _event(read, names, open_, packet)
    assert not open_, "every slice ends"
    for events in read.switches.values():
        assert [one.timestamp for one in events] == sorted(one.timestamp for one in events)
    return read


def _track(read: Read, track: Any) -> None:
    assert track.uuid and track.uuid not in read.tracks
    if track.parent_uuid:
        assert track.parent_uuid in read.tracks
        read.parents[track.uuid] = track.parent_uuid
    read.tracks[track.uuid] = track.name or track.thread.thread_name or track.process.process_name
    assert list(read.tracks.values()).count(read.tracks[track.uuid]) == 1


def _bundle(read: Read, bundle: Any) -> None:
    times = [event.timestamp for event in bundle.event]
    assert times == sorted(times)
    for event in bundle.event:
        read.order.append(event)
        if event.HasField("sched_switch"):
            read.switches.setdefault(bundle.cpu, []).append(event)
        else:
            assert event.sched_waking.target_cpu == bundle.cpu
            read.wakings.append(event)


def _event(read: Read, names: dict[str, dict[int, str]], open_: dict[int, Slice], packet: Any) -> None:
    event, at = packet.track_event, packet.timestamp
    track = read.tracks[event.track_uuid]
    if event.type == TrackEvent.TYPE_COUNTER:
        read.counters.setdefault(track, []).append((at, event.counter_value))
        return
    if event.type == TrackEvent.TYPE_SLICE_END:
        done = open_.pop(event.track_uuid)
        assert done.end == -1 and at > done.start
        done.end = at
        return
    arguments = {}
    for one in event.debug_annotations:
        arguments[names["debug_annotation_names"][one.name_iid]] = getattr(one, one.WhichOneof("value"))
    (category,) = event.category_iids
    flows = list(event.flow_ids), list(event.terminating_flow_ids)
    made = Slice(names["event_names"][event.name_iid], names["event_categories"][category], at, -1, arguments, flows)
    if event.type == TrackEvent.TYPE_INSTANT:
        read.instants.setdefault(track, []).append(made)
        return
    assert event.type == TrackEvent.TYPE_SLICE_BEGIN
    assert event.track_uuid not in open_, "slices of a track do not overlap"
    before = read.slices.setdefault(track, [])
    assert not before or before[-1].end <= at
    before.append(made)
    open_[event.track_uuid] = made
