"""A timeline as a Perfetto trace. Spec: the definitions in the package perfetto.

Physical CPUs are CPUs: ftrace's sched_switch and sched_waking, one bundle for each CPU and window. Everything else are track events: for each
vCPU, under its thread, a track of states, one for each sort of instants, and counters. Timestamps are virtual time in ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from tracekit.analyzers.export.packets import EVENTS, FTRACE, Names, Packets, Shape, Shapes
from tracekit.analyzers.export.painter import COUNTERS, Kind, Occupancy, Sample, Scene, Slice, Waking
from tracekit.analyzers.timeline import KINDS as STATE_KINDS

_EVENT, _TRACK = proto.TrackEvent, proto.TrackDescriptor
BUNDLE_EVENTS = 1024
PRIORITY = 120  # as Linux has it for ordinary threads
IN_INTERRUPT = 0x08  # common_flags: nobody's thread wakes it
PROCESSES = {"vcpu": 100, "neighbour": 200, "vmm": 300}
TIDS_FROM = 1000  # thread n of the trace is TIDS_FROM + n
# A thread's state after it stopped running, in the numbers of Linux that all of its versions share: R 0, S 1, D 2, T 4, X 16.
STATES_AFTER: dict[str | None, int] = {
    "preempt": 0,
    "yield": 0,
    "throttle": 0,
    "block": 1,
    "suspend": 2,
    "pause": 4,
    "offline": 16,
    None: 0,
}
_UUIDS = 1 << 32
_UUID_STEP = 64
# Tracks of a vCPU or of the board, from above to below.
_TRACKS = ("states", *COUNTERS, "findings", "hypercalls", "pvtime", "interrupts", "console", "directives", "inputs")
_PLACE = (("position", "uint_value"), ("sequence", "uint_value"))
# Time, sort, previous thread and its state, next or woken thread. The sort orders what happens at one time.
WAKES_FIRST, TO_IDLE, TO_THREAD, WAKES_LAST = range(4)
_Event = tuple[int, int, int, int, int]
# State, event, reason, and whether there is no pCPU, no flow out, no flow in.
_State = tuple[str, str | None, str | None, bool, bool, bool]


class Perfetto:
    """Paints into a file, packet by packet."""

    def __init__(self, file: BinaryIO) -> None:
        self._packets = Packets(file)
        self._names = Names(self._packets)
        self._shapes = Shapes(self._names)
        self._vcpus: set[int] = set()  # those that have a thread
        self._tracks: dict[tuple[int | None, str], int] = {}
        self._states: dict[_State, Shape] = {}
        self._sample = self._shapes.make(_EVENT.TYPE_COUNTER)
        self._end = self._shapes.make(_EVENT.TYPE_SLICE_END)
        self._on: dict[int, tuple[int, int, int]] = {}  # on each pCPU: until when who ran last, and its state behind that
        self._comm: dict[int, str] = {0: "swapper"}

    def begin(self, scene: Scene) -> None:
        """Threads, processes and the tracks that every vCPU has."""
        first = proto.TracePacket(trusted_packet_sequence_id=EVENTS, sequence_flags=1, first_packet_on_sequence=True)
        first.trace_packet_defaults.SetInParent()
        self._packets.write(first)
        tree = proto.TracePacket(trusted_packet_sequence_id=FTRACE, timestamp=0)
        names = {"vcpu": f"guest {scene.run}", "neighbour": "neighbours", "vmm": "VMM"}
        for kind in sorted({one.kind for one in scene.threads}):
            tree.process_tree.processes.add(pid=PROCESSES[kind], ppid=1, cmdline=[names[kind]])
        for one in scene.threads:
            tid = TIDS_FROM + one.number
            self._comm[tid] = one.name
            tree.process_tree.threads.add(tid=tid, tgid=PROCESSES[one.kind], name=one.name)
        self._packets.write(tree)
        board = _TRACK(uuid=_UUIDS, child_ordering=_TRACK.EXPLICIT)
        board.process.pid = PROCESSES["vcpu"]
        board.process.process_name = names["vcpu"]
        self._describe(board)
        for one in scene.threads:
            if one.vcpu is not None:
                track = _TRACK(uuid=_UUIDS + _UUID_STEP * (one.vcpu + 1), child_ordering=_TRACK.EXPLICIT)
                track.thread.pid, track.thread.tid, track.thread.thread_name = PROCESSES["vcpu"], TIDS_FROM + one.number, one.name
                self._describe(track)
                self._vcpus.add(one.vcpu)

    def occupancies(self, rows: Sequence[Occupancy], wakings: Sequence[Waking]) -> None:
        """Switches and wakings, sorted by time within each CPU's bundle."""
        events: dict[int, list[_Event]] = {}
        starts = {(thread, start_ns) for _, thread, start_ns, *_ in rows}
        for pcpu, thread, vtime_ns in wakings:  # before the switch to it, behind the switch away from it
            sort = WAKES_FIRST if (thread, vtime_ns) in starts else WAKES_LAST
            events.setdefault(pcpu, []).append((vtime_ns, sort, 0, 0, TIDS_FROM + thread))
        for pcpu, thread, start_ns, end_ns, end_event, end_reason, _, _ in rows:
            into = events.setdefault(pcpu, [])
            before_ns, before, state = self._on.get(pcpu, (start_ns, 0, 0))
            if before_ns != start_ns:
                into.append((before_ns, TO_IDLE, before, state, 0))
                before = state = 0
            into.append((start_ns, TO_THREAD, before, state, TIDS_FROM + thread))
            state = STATES_AFTER["suspend" if end_event == "block" and end_reason == "fault" else end_event]
            self._on[pcpu] = end_ns, TIDS_FROM + thread, state
        for pcpu in sorted(events):
            self._bundles(pcpu, sorted(events[pcpu]))

    def _bundles(self, pcpu: int, events: Sequence[_Event]) -> None:
        """Events of a CPU: wakings and switches."""
        switched, woken = proto.FtraceEvent(), proto.FtraceEvent(pid=0, common_flags=IN_INTERRUPT)
        switch, waking = switched.sched_switch, woken.sched_waking
        switch.prev_prio = switch.next_prio = waking.prio = PRIORITY
        waking.success, waking.target_cpu = 1, pcpu
        comm_of = self._comm_of
        for at in range(0, len(events), BUNDLE_EVENTS):
            packet = proto.TracePacket(trusted_packet_sequence_id=FTRACE)
            packet.ftrace_events.cpu = pcpu
            append = packet.ftrace_events.event.append
            for at_ns, sort, before, state, tid in events[at : at + BUNDLE_EVENTS]:
                if sort in (WAKES_FIRST, WAKES_LAST):
                    woken.timestamp, waking.pid, waking.comm = at_ns, tid, comm_of(tid)
                    append(woken)
                    continue
                switched.timestamp, switched.pid = at_ns, before
                switch.prev_comm, switch.prev_pid, switch.prev_state = comm_of(before), before, state
                switch.next_comm, switch.next_pid = comm_of(tid), tid
                append(switched)
            self._packets.write(packet)

    def _comm_of(self, tid: int) -> str:
        return self._comm.get(tid) or f"thread{tid - TIDS_FROM}"

    def slices(self, rows: Sequence[Slice]) -> None:
        """A begin with arguments and flows, and an end."""
        out: list[bytes] = []
        end = self._end
        for vcpu, state, start_ns, end_ns, event, reason, pcpu, position, sequence, flow_out, flow_in in rows:
            key = state, event, reason, pcpu is None, flow_out is None, flow_in is None
            shape = self._states.get(key) or self._state_shape(key)
            if flow_out is not None:
                shape.event.flow_ids[0] = flow_out
            if flow_in is not None:
                shape.event.terminating_flow_ids[0] = flow_in
            track = self._track(vcpu, "states")
            out.append(shape.at(start_ns, track, (position, sequence) if pcpu is None else (position, sequence, pcpu)))
            out.append(end.at(end_ns, track))
        self._packets.write_all(out)

    def _state_shape(self, key: _State) -> Shape:
        state, event, reason, has_no_pcpu, has_no_out, has_no_in = key
        shape = self._shapes.make(
            _EVENT.TYPE_SLICE_BEGIN,
            state,
            STATE_KINDS[state],
            fixed=[(name, text) for name, text in (("event", event), ("reason", reason)) if text is not None],
            arguments=_PLACE if has_no_pcpu else (*_PLACE, ("pcpu", "uint_value")),
            flows=(not has_no_out, not has_no_in),
        )
        self._states[key] = shape
        return shape

    def samples(self, rows: Sequence[Sample]) -> None:
        """Values of counters."""
        out: list[bytes] = []
        shape = self._sample
        event = shape.event
        for vcpu, counter, vtime_ns, value in rows:
            event.counter_value = value
            out.append(shape.at(vtime_ns, self._track(vcpu, counter)))
        self._packets.write_all(out)

    def instants(self, kind: Kind, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Instants with arguments on the vCPU's track of this kind, or on the board's."""
        out: list[bytes] = []
        shapes: dict[tuple[bool, ...], Shape] = {}
        for vcpu, vtime_ns, *values in rows:
            is_there = tuple([value is not None for value in values])
            shape = shapes.get(is_there)
            if shape is None:
                arguments = [
                    (column, _field(kind, column, value))
                    for column, value in zip(("position", "sequence", *kind.columns), values, strict=True)
                    if value is not None
                ]
                shape = shapes[is_there] = self._shapes.make(_EVENT.TYPE_INSTANT, name, kind.name, arguments=arguments)
            given = values if all(is_there) else [value for value in values if value is not None]
            out.append(shape.at(vtime_ns, self._track(vcpu, kind.name), given))
        self._packets.write_all(out)

    def close(self) -> None:
        """Every CPU is idle behind what ran last."""
        for pcpu, (end_ns, tid, state) in sorted(self._on.items()):
            self._bundles(pcpu, [(end_ns, TO_IDLE, tid, state, 0)])

    def _track(self, vcpu: int | None, what: str) -> int:
        key = vcpu, what
        if key not in self._tracks:
            parent = _UUIDS if vcpu is None else _UUIDS + _UUID_STEP * (vcpu + 1)
            rank = _TRACKS.index(what)
            track = _TRACK(uuid=parent + 1 + rank, sibling_order_rank=rank)
            if vcpu is None or vcpu in self._vcpus:
                track.parent_uuid = parent
            owner = "board" if vcpu is None else f"vCPU {vcpu}"
            track.name = f"{owner} {COUNTERS.get(what, what)}"
            if what in COUNTERS:
                track.counter.unit = proto.CounterDescriptor.UNIT_TIME_NS
            self._describe(track)
            self._tracks[key] = track.uuid
        return self._tracks[key]

    def _describe(self, track: Any) -> None:
        self._packets.write(proto.TracePacket(trusted_packet_sequence_id=EVENTS, track_descriptor=track))


def _field(kind: Kind, column: str, value: Any) -> str:
    """The field of DebugAnnotation that holds an argument; a pointer is shown in hexadecimal."""
    if isinstance(value, str):
        return "string_value"
    if column == "result":
        return "int_value"
    return "pointer_value" if column in kind.hexadecimal else "uint_value"
