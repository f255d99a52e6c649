"""Perfetto's packets: written one by one, made from reusable shapes. Spec: perfetto/trace/trace_packet.proto."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

EVENTS, FTRACE = 1, 2  # sequences
NEEDS_STATE = 2  # TracePacket.SEQ_NEEDS_INCREMENTAL_STATE


def varint(value: int) -> bytes:
    """Base 128, low end first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Packets:
    """A stream of packets, as the field `packet` of the message Trace."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._heads = [b"\n" + varint(length) for length in range(1 << 10)]

    def write(self, packet: Any) -> None:
        """Append one."""
        self.write_all([packet.SerializeToString()])

    def write_all(self, packets: Sequence[bytes]) -> None:
        """Append several, each encoded already."""
        heads = self._heads
        parts = []
        for raw in packets:
            length = len(raw)
            parts.append(heads[length] if length < 1024 else b"\n" + varint(length))
            parts.append(raw)
        self._file.write(b"".join(parts))


class Names:
    """Strings that packets name by number; a new one is told before it is used."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._numbers: dict[tuple[str, str], int] = {}

    def _number(self, field: str, name: str) -> int:
        key = field, name
        if key not in self._numbers:
            self._numbers[key] = number = len(self._numbers) + 1
            packet = proto.TracePacket(trusted_packet_sequence_id=EVENTS, sequence_flags=NEEDS_STATE)
            getattr(packet.interned_data, field).add(iid=number, name=name)
            self._packets.write(packet)
        return self._numbers[key]

    def event(self, name: str) -> int:
        """Number of an event's name."""
        return self._number("event_names", name)

    def category(self, name: str) -> int:
        """Number of a category."""
        return self._number("event_categories", name)

    def argument(self, name: str) -> int:
        """Number of an argument's name."""
        return self._number("debug_annotation_names", name)


class Shape:
    """A packet of one sort, whose times and arguments are set anew each time."""

    def __init__(self, packet: Any, arguments: Sequence[tuple[Any, str]]) -> None:
        """arguments: each DebugAnnotation that changes, and its field that does."""
        self.packet, self.event = packet, packet.track_event
        self._arguments = arguments

    def at(self, timestamp: int, track: int, values: Sequence[Any] = ()) -> bytes:
        """The packet, encoded, with a time (ns), a track and its arguments' values."""
        packet, event = self.packet, self.event
        packet.timestamp = timestamp
        event.track_uuid = track
        for (argument, field), value in zip(self._arguments, values, strict=True):
            setattr(argument, field, value)
        encoded: bytes = packet.SerializeToString()
        return encoded


class Shapes:
    """Makes shapes."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def make(
        self,
        event_type: int,
        name: str | None = None,
        category: str = "",
        *,
        fixed: Sequence[tuple[str, str]] = (),
        arguments: Sequence[tuple[str, str]] = (),
        flows: tuple[bool, bool] = (False, False),
    ) -> Shape:
        """fixed: arguments that are the same text each time. arguments: names, and the fields of DebugAnnotation that hold their values.

        flows: whether one begins and one ends here; their numbers stand in the event's first flow_ids and terminating_flow_ids.
        """
        names = self._names
        packet = proto.TracePacket(timestamp=0, trusted_packet_sequence_id=EVENTS, sequence_flags=NEEDS_STATE)
        event = packet.track_event
        event.type = event_type
        if name is not None:
            event.name_iid = names.event(name)
            event.category_iids.append(names.category(category))
        for one, text in fixed:
            event.debug_annotations.add(name_iid=names.argument(one), string_value=text)
        changing = [(event.debug_annotations.add(name_iid=names.argument(one)), field) for one, field in arguments]
        event.flow_ids.extend([0] * flows[0])
        event.terminating_flow_ids.extend([0] * flows[1])
        return Shape(packet, changing)
