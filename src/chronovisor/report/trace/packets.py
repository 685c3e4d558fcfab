"""Events as packets of Perfetto's format, by the classes of the package `perfetto`.

Only this module and `reading` know the package. Its classes take a second to load: import this module only
if a trace is wanted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto

from chronovisor.report.trace.recorder import Event, Kind, Place
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.types import Ticks

_SEQUENCE = 1
_PROCESS = 1
"""The uuid of the process's track: those of the others follow."""
_TYPES = {
    Kind.BEGIN: perfetto.TrackEvent.TYPE_SLICE_BEGIN,
    Kind.END: perfetto.TrackEvent.TYPE_SLICE_END,
    Kind.INSTANT: perfetto.TrackEvent.TYPE_INSTANT,
    Kind.COUNT: perfetto.TrackEvent.TYPE_COUNTER,
}
_CLOCKS = {
    perfetto.BUILTIN_CLOCK_MONOTONIC: time.CLOCK_MONOTONIC,
    perfetto.BUILTIN_CLOCK_BOOTTIME: time.CLOCK_BOOTTIME,
    perfetto.BUILTIN_CLOCK_REALTIME: time.CLOCK_REALTIME,
}
_UNITS = {"ns": perfetto.CounterDescriptor.UNIT_TIME_NS, "": perfetto.CounterDescriptor.UNIT_COUNT}


class Packets:
    """Makes the packets of one trace. Each is the bytes of a `TracePacket`."""

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self._names: dict[str, int] = {}
        self._annotations: dict[str, int] = {}
        self._packet = perfetto.TracePacket()
        self._time = perfetto.TracePacket()
        self._without_time: dict[tuple[Kind, int, str], bytes] = {}
        """Packets of events without annotations, but for their timestamps."""

    def beginning(self) -> Iterator[bytes]:
        """What a trace begins with: the clocks, and the process.

        A packet's timestamp is the machine's CLOCK_MONOTONIC. In virtual time it is the virtual clock, which
        agrees with none of the machine's clocks.
        """
        packet = self._new()
        packet.sequence_flags = packet.SEQ_INCREMENTAL_STATE_CLEARED
        packet.trace_packet_defaults.timestamp_clock_id = perfetto.BUILTIN_CLOCK_MONOTONIC
        yield packet.SerializeToString()
        packet = self._new()
        packet.clock_snapshot.primary_trace_clock = perfetto.BUILTIN_CLOCK_MONOTONIC
        for number, clock in _CLOCKS.items():
            shown = 0 if self._source.is_virtual else time.clock_gettime_ns(clock)
            packet.clock_snapshot.clocks.add(clock_id=number, timestamp=shown)
        yield packet.SerializeToString()
        packet = self._new()
        packet.track_descriptor.uuid = _PROCESS
        packet.track_descriptor.process.pid = os.getpid()
        packet.track_descriptor.process.process_name = "chronovisor"
        yield packet.SerializeToString()

    def of(self, what: Event | Place) -> bytes:
        """The packet of an event, or of a track that is announced."""
        return self._place(what) if isinstance(what, Place) else self._event(what)

    def _place(self, place: Place) -> bytes:
        packet = self._new()
        track = packet.track_descriptor
        track.uuid = _PROCESS + place.number
        track.parent_uuid = _PROCESS + place.parent
        track.name = place.name
        track.child_ordering = track.EXPLICIT
        track.sibling_order_rank = place.number
        if place.counter is not None:
            unit = place.counter.unit
            track.counter.unit = _UNITS.get(unit, perfetto.CounterDescriptor.UNIT_UNSPECIFIED)
            if unit not in _UNITS:
                track.counter.unit_name = unit
        serialized: bytes = packet.SerializeToString()
        return serialized

    def _event(self, event: Event) -> bytes:
        # A message's fields may come in any order, and one that comes alone is a message too.
        kept = self._without_time.get((event.kind, event.track, event.name)) if event.values is None else None
        self._time.timestamp = Ticks(event.ticks).ns
        time_alone: bytes = self._time.SerializeToString()
        return time_alone + (kept or self._new_event(event))

    def _new_event(self, event: Event) -> bytes:
        packet = self._new()
        packet.sequence_flags = packet.SEQ_NEEDS_INCREMENTAL_STATE
        track_event = packet.track_event
        track_event.type = _TYPES[event.kind]
        track_event.track_uuid = _PROCESS + event.track
        if event.kind is Kind.COUNT:
            track_event.counter_value = event.shown
        elif event.kind is not Kind.END:
            track_event.name_iid = self._interned(event.name, self._names, "event_names")
        for name, value in (event.values or {}).items():
            annotation = track_event.debug_annotations.add()
            annotation.name_iid = self._interned(name, self._annotations, "debug_annotation_names")
            if isinstance(value, str):
                annotation.string_value = value
            elif value < 0:
                annotation.int_value = value
            else:
                annotation.uint_value = value
        serialized: bytes = packet.SerializeToString()
        if event.values is None and event.kind is not Kind.COUNT and not packet.HasField("interned_data"):
            self._without_time[event.kind, event.track, event.name] = serialized
        return serialized

    def _interned(self, name: str, known: dict[str, int], kind: str) -> int:
        """The number that stands for a name; the packet in the making says so first."""
        number = known.get(name)
        if number is None:
            number = known[name] = len(known) + 1
            getattr(self._packet.interned_data, kind).add(iid=number, name=name)
        return number

    def _new(self) -> Any:
        # One object for all packets: a new one would take longer than to clear it.
        packet = self._packet
        packet.Clear()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet
