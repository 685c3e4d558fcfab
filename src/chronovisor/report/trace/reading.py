"""Traces read back: slices, instants and counters by their tracks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from google.protobuf.message import DecodeError
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto

_PACKET_TAG: Final = 0x0A
_LARGEST_PACKET: Final = 1 << 20
"""Bytes; ours have a few hundred."""
_MOST_NAMES: Final = 100_000
MOST_EVENTS: Final = 10_000_000
"""The most events that are read: they take some gigabytes of memory."""


class TraceFormatError(Exception):
    """The file is no trace that can be read."""


@dataclass(slots=True)
class Slice:
    """Something that took time on a track, or an instant, which begins and ends at once. Times are ns."""

    name: str
    begin: int
    end: int | None
    """None if the trace ended first."""
    inside: str
    """The name of the slice that it is nested in; "" for none."""
    values: dict[str, int | str]
    """What was told at its begin, …"""
    at_end: dict[str, int | str] = field(default_factory=dict)
    """… and at its end."""
    is_instant: bool = False


@dataclass(slots=True)
class Track:
    """A row: of slices, or of a counter."""

    name: str
    uuid: int
    parent: int
    """The uuid of the row above it; 0 for none."""
    is_counter: bool
    unit: str = ""
    slices: list[Slice] = field(default_factory=list)
    """In the order of their begins."""
    counts: list[tuple[int, int]] = field(default_factory=list)
    """What the counter showed: (ns, value), in order."""


class _Reader:
    def __init__(self) -> None:
        self.tracks: dict[int, Track] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._open: dict[int, list[Slice]] = {}
        self._events = 0

    def packet(self, packet: Any) -> None:
        for kind in ("event_names", "debug_annotation_names"):
            for entry in getattr(packet.interned_data, kind):
                if len(self._names) >= _MOST_NAMES:
                    raise TraceFormatError(f"it has more than {_MOST_NAMES} names")
                self._names[kind, entry.iid] = _text(entry.name)
        if packet.HasField("track_descriptor"):
            self._track(packet.track_descriptor)
        elif packet.HasField("track_event"):
            self._event(packet.timestamp, packet.track_event)

    def _track(self, told: Any) -> None:
        name = _text(told.process.process_name if told.HasField("process") else told.name)
        unit = _text(told.counter.unit_name)
        if told.counter.unit == perfetto.CounterDescriptor.UNIT_TIME_NS:
            unit = "ns"
        self.tracks[told.uuid] = Track(name, told.uuid, told.parent_uuid, told.HasField("counter"), unit)

    def _event(self, now: int, event: Any) -> None:
        self._events += 1
        if self._events > MOST_EVENTS:
            raise TraceFormatError(f"it has more than {MOST_EVENTS} events")
        track = self.tracks.get(event.track_uuid)
        if track is None:
            raise TraceFormatError(f"an event is on track {event.track_uuid}, which was not announced")
        if event.type == perfetto.TrackEvent.TYPE_COUNTER:
            track.counts.append((now, event.counter_value))
            return
        opened = self._open.setdefault(event.track_uuid, [])
        values = {self._annotation(a): _value(a) for a in event.debug_annotations}
        if event.type == perfetto.TrackEvent.TYPE_SLICE_END:
            if not opened:
                raise TraceFormatError(f"a slice ends on {track.name!r} that did not begin")
            ended = opened.pop()
            ended.end = now
            ended.at_end = values
            return
        name = self._names.get(("event_names", event.name_iid), "") or _text(event.name)
        inside = opened[-1].name if opened else ""
        is_instant = event.type == perfetto.TrackEvent.TYPE_INSTANT
        made = Slice(name, now, now if is_instant else None, inside, values, is_instant=is_instant)
        track.slices.append(made)
        if not is_instant:
            opened.append(made)

    def _annotation(self, annotation: Any) -> str:
        return self._names.get(("debug_annotation_names", annotation.name_iid), "") or _text(annotation.name)


def _value(annotation: Any) -> int | str:
    value = getattr(annotation, annotation.WhichOneof("value") or "string_value")
    return value if isinstance(value, int) else _text(value)


def _text(value: object) -> str:
    """A text of the file. The package has bytes for what is no text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_trace(file: BinaryIO) -> list[Track]:
    """Return the tracks of a trace in the order in which they were announced; TraceFormatError if it is none.

    A trace that was cut off, as by a full disk, is read as far as it goes.
    """
    reader = _Reader()
    for data in _packets(file):
        packet = perfetto.TracePacket()
        try:
            packet.ParseFromString(data)
        except DecodeError:
            raise TraceFormatError("it has a packet that is none of Perfetto's") from None
        reader.packet(packet)
    return list(reader.tracks.values())


def _packets(file: BinaryIO) -> Iterator[bytes]:
    while tag := file.read(1):
        if tag[0] != _PACKET_TAG:
            raise TraceFormatError("this is no trace of Perfetto's")
        length = _varint(file)
        if length is None:
            return
        if length > _LARGEST_PACKET:
            raise TraceFormatError(f"it has a packet of {length} bytes")
        data = file.read(length)
        if len(data) < length:
            return
        yield data


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 35, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise TraceFormatError("this is no trace of Perfetto's")
