"""Recorders: they are told what happens to a guest, and hand it on as events that begin and end.

A recorder takes no more than a share of its vCPU's time. It has an allowance of events, which grows with the
clock. What goes beyond the allowance is counted: runs, and hypercalls inside a run. An event that has begun
is always ended, so slices nest whatever is counted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Final, NamedTuple, TypeAlias

from chronovisor.report.trace import vocabulary as v
from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.run_trace import Work
from chronovisor.timebase.types import FREQUENCY, MASK64, Offset, SourceTime, Ticks, signed64

Values: TypeAlias = dict[str, int | str]
"""An event's annotations."""

ALLOWANCE: Final = 20_000
"""The most events that a vCPU can have saved up."""
EVENTS_A_SECOND: Final = 4_000
"""How fast a vCPU's allowance grows."""
_RUN_COSTS: Final = 12
"""Events of a run, with what user space does after it."""
_BETWEEN_SAMPLES: Final = FREQUENCY // 100
"""Ticks from one sample of the counters to the next."""
_RUNS_PER_LOOK: Final = 16
"""Runs that are only counted, from one look at the clock to the next."""
_CALLS_PER_LOOK: Final = 1024
"""The same of hypercalls."""
MOST_WAITING: Final = 200_000
"""How many events may wait for the file before everything is only counted."""


class Kind(IntEnum):
    """What an event is."""

    BEGIN = 1
    END = 2
    INSTANT = 3
    COUNT = 4


class Event(NamedTuple):
    """Something that happened on a track."""

    kind: Kind
    ticks: int
    """Of the host's clock, without the host's origin."""
    track: int
    """Which one; see `Tracks`."""
    name: str = ""
    """Of what begins, or of the instant."""
    values: Values | None = None
    shown: int = 0
    """By a counter."""


class Place(NamedTuple):
    """A track, as it is announced."""

    number: int
    parent: int
    """The track above it; 0 if there is none."""
    name: str
    counter: v.Counter | None = None


class Sink:
    """Where events and tracks wait for whoever writes them. From any thread."""

    def __init__(self) -> None:
        self.events: deque[Event | Place] = deque()
        self.off = False
        """Whether nobody writes any more."""
        self._tracks = 0

    def track(self, name: str, parent: int = 0, counter: v.Counter | None = None) -> int:
        """Announce a track, and return its number."""
        self._tracks += 1
        self.events.append(Place(self._tracks, parent, name, counter))
        return self._tracks


class GuestRecorder:
    """`machine.tracing.GuestTrace` for one guest, called `name`, on a host with this clock."""

    def __init__(self, sink: Sink, clock: HostClock, name: str) -> None:
        self._sink = sink
        self._clock = clock
        self._track = sink.track(name)
        self._time = sink.track(v.GUEST.name, self._track)
        self._vcpus: dict[int, VcpuRecorder] = {}
        self._paused = False

    def vcpu(self, number: int) -> VcpuRecorder:
        """Return the recorder of a vCPU."""
        if number not in self._vcpus:
            self._vcpus[number] = VcpuRecorder(self._sink, self._clock, self._track, number)
        return self._vcpus[number]

    def may_run(self, permitted: bool) -> None:
        """Note when the guest is paused."""
        if self._paused is permitted and not self._sink.off:
            self._paused = not permitted
            kind = Kind.END if permitted else Kind.BEGIN
            self._sink.events.append(Event(kind, self._clock.source.ticks(), self._time, v.PAUSED.name))

    def close(self) -> None:
        """End what has begun. No vCPU runs any more."""
        self.may_run(True)
        for recorder in self._vcpus.values():
            recorder.close()


class VcpuRecorder:
    """`machine.tracing.VcpuTrace` for one vCPU."""

    def __init__(self, sink: Sink, clock: HostClock, guest: int, number: int) -> None:
        self._sink = sink
        self._append = sink.events.append
        self._ticks = self.now = clock.source.ticks
        self._origin = clock.origin
        self._track = sink.track(v.VCPU.name.replace("N", str(number)), guest)
        self._counters = {
            counter: sink.track(f"vCPU {number} {counter.name}", guest, counter) for counter in v.COUNTERS
        }
        self._open: list[str] = []
        """What has begun and not ended, the outermost first."""
        self.told = self.times_calls = False
        self._allowance = float(ALLOWANCE)
        self._grown = self._sampled = self._counted_from = int(self._ticks())
        self._offset: Offset | None = None
        self._stolen = self._runs = self._until_look = 0
        self._until_call_look = _CALLS_PER_LOOK
        self._counted: dict[str, int] = defaultdict(int)
        """What was only counted since the last event that says so, by name."""
        self._calls: dict[int, int] = defaultdict(int)
        """The hypercalls of that which the hypervisor answered, by number."""

    # What user space tells

    def run_begins(self) -> None:
        """Tell of a run, or count it."""
        if self._until_look:
            self._until_look -= 1
            return
        now = self._ticks()
        self._grow(now)
        self.told = self._allowance >= _RUN_COSTS
        if self.told:
            if self._runs:
                self._tell_counted(now)
            self._allowance -= _RUN_COSTS
            self.times_calls = True
            self._begin(now, v.RUN.name)
        else:
            self._until_look = _RUNS_PER_LOOK
            if not self._runs:
                self._counted_from = now

    def run_ends(self, reason: Enum, hypercall: int | None) -> None:
        """End the run; what user space does now begins."""
        if hypercall is not None:
            name = v.HYPERCALL_NAMES.get(hypercall, v.UNKNOWN_HYPERCALL)
        else:
            # User space has nothing to do for a vCPU that was kicked.
            name = "" if reason.name == v.KICKED else f"exit {reason.name}"
        if not self.told:
            self._runs += 1
            if name:
                self._counted[name] += 1
            return
        now = self._ticks()
        self._end(now, v.RUN.name, {v.EXIT.name: reason.name})
        if name:
            self._begin(now, name)

    def handled(self) -> None:
        """End what user space did."""
        if self.told and self._open:
            self._end(self._ticks(), self._open[0])

    # What the hypervisor tells

    def entering(self) -> None:
        """Begin an entry."""
        self._begin(self._ticks(), v.ENTER.name)

    def entered(self, now: SourceTime, offset: Offset, core: int, stolen: int) -> None:
        """End the entry: the guest runs."""
        if offset is not self._offset and offset != self._offset:
            self._sample(now, v.OFFSET_COUNTER, offset.signed)
        self._offset = offset
        if stolen:
            self._stolen += stolen
            self._sample(now, v.STOLEN_COUNTER, Ticks(self._stolen).ns)
        if self.told:
            self._end(now, v.ENTER.name)
            values: Values = {v.CORE.name: core, v.OFFSET.name: offset.signed, **self._times(now)}
            if stolen:
                values[v.STOLEN.name] = stolen
            self._begin(now, v.IN_GUEST.name, values)

    def left(self, now: SourceTime, work: Callable[[], Work]) -> None:
        """End the guest's part of a run; the exit begins."""
        self._sample_work(now, work)
        if v.IN_GUEST.name in self._open:
            values: Values = {**self._times(now), **self._take_counted()}
            self._end(now, v.IN_GUEST.name, values)
            offset = 0 if self._offset is None else self._offset.signed
            self._begin(now, v.LEAVE.name, {v.OFFSET.name: offset})

    def out(self) -> None:
        """End the exit, or an entry that did not succeed."""
        if len(self._open) > 1:
            self._end(self._ticks(), self._open[-1])

    def ceding(self) -> None:
        """Begin a wait."""
        if self.told:
            self._begin(self._ticks(), v.CEDED.name)

    def woken(self, reason: str) -> None:
        """End it."""
        if self.told:
            self._end(self._ticks(), v.CEDED.name, {v.WOKEN_BY.name: reason})

    def called(self, number: int, begun: SourceTime | None) -> None:
        """Tell of a call, or count it."""
        if begun is not None:
            self._allowance -= 2
            self.times_calls = self._allowance > 1
            name = v.HYPERCALL_NAMES.get(number, v.UNKNOWN_HYPERCALL)
            self._begin(begun, name)
            self._end(self._ticks(), name)
            return
        if number not in self._calls and number not in v.HYPERCALL_NAMES:
            # User programs of the guest make these, and the guest's kernel gets them back.
            number = v.UNKNOWN_NUMBER
        self._calls[number] += 1
        self._until_call_look -= 1
        if not self._until_call_look:
            self._until_call_look = _CALLS_PER_LOOK
            self._grow(self._ticks())

    def interrupted(self, name: str, late: int) -> None:
        """Tell of an interrupt, or count it."""
        told = v.INTERRUPTS.get(name, v.OTHER_INTERRUPT.name)
        if not self.told or self._allowance < 1:
            self._counted[told] += 1
            return
        self._allowance -= 1
        now = self._ticks()
        values = self._times(now)
        if late:
            values[v.LATE.name] = late
        self._append(Event(Kind.INSTANT, now, self._track, told, values))

    def executed(self, work: Callable[[], Work]) -> None:
        """Sample the counters, now and then."""
        now = self._ticks()
        self._grow(now)
        self._sample_work(now, work)

    def close(self) -> None:
        """End what has begun."""
        now = self._ticks()
        if self._runs:
            self._tell_counted(now)
        while self._open:
            self._end(now, self._open[-1])

    # Inside

    def _begin(self, now: int, name: str, values: Values | None = None) -> None:
        self._open.append(name)
        self._append(Event(Kind.BEGIN, now, self._track, name, values))

    def _end(self, now: int, name: str, values: Values | None = None) -> None:
        """End what is called `name`, and what is open inside it; nothing if it is not open."""
        if name not in self._open:
            return
        while self._open:
            inner = self._open.pop()
            last = inner == name
            self._append(Event(Kind.END, now, self._track, inner, values if last else None))
            if last:
                return

    def _grow(self, now: int) -> None:
        """Let the allowance grow."""
        grown = self._allowance + (now - self._grown) * EVENTS_A_SECOND / FREQUENCY
        self._allowance = min(grown, ALLOWANCE)
        self._grown = now
        if self._sink.off or len(self._sink.events) > MOST_WAITING:
            self._allowance = 0
        self.times_calls = self.told and self._allowance > 1

    def _tell_counted(self, now: int) -> None:
        """Tell of the runs that were only counted."""
        values: Values = {v.RUNS.name: self._runs, **self._take_counted()}
        self._runs = 0
        self._begin(self._counted_from, v.COUNTED_RUNS.name)
        self._end(now, v.COUNTED_RUNS.name, values)

    def _take_counted(self) -> Values:
        """What was only counted, by name; the counts begin anew."""
        counted: Values = {**self._counted}
        for number, calls in self._calls.items():
            counted[v.HYPERCALL_NAMES.get(number, v.UNKNOWN_HYPERCALL) + v.WITHIN_GUEST] = calls
        self._counted.clear()
        self._calls.clear()
        return counted

    def _times(self, now: int) -> Values:
        """What both timebases show."""
        host = (now + self._origin) & MASK64
        offset = 0 if self._offset is None else self._offset.value
        return {v.HOST_TB.name: host, v.GUEST_TB.name: (host + offset) & MASK64}

    def _sample_work(self, now: int, work: Callable[[], Work]) -> None:
        if now - self._sampled >= _BETWEEN_SAMPLES and not self._sink.off:
            self._sampled = now
            for counter, count in zip(v.WORK, work(), strict=True):
                self._sample(now, counter, count)

    def _sample(self, now: int, counter: v.Counter, count: int) -> None:
        if not self._sink.off and len(self._sink.events) <= MOST_WAITING:
            self._append(Event(Kind.COUNT, now, self._counters[counter], shown=signed64(count & MASK64)))
