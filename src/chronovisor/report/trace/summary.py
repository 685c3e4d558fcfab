"""What traces say in sums: where a vCPU's time went, why it left the guest, where it ran, and its moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from chronovisor.report.trace import vocabulary as v
from chronovisor.report.trace.reading import Slice, Track
from chronovisor.timebase.types import Ticks, signed64

_OTHER_GAP: Final = 1_000_000
"""Nanoseconds: stays on one core that are not further apart are one."""


@dataclass(slots=True)
class Exits:
    """The exits for one reason: calls that user space answered, or the hypervisor."""

    told: int = 0
    """Those that are slices in the trace."""
    counted: int = 0
    """Those that are only counted there."""
    ns: int = 0
    """How long the answers took, of those that were told."""

    @property
    def all(self) -> int:
        """How many there were."""
        return self.told + self.counted

    @property
    def mean_ns(self) -> float | None:
        """How long an answer took on the average; None if none was told."""
        return self.ns / self.told if self.told else None


@dataclass(frozen=True, slots=True)
class Stay:
    """A time in the guest on one core of the host (ns)."""

    core: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Both timebases at one moment (ns of the trace's clock; ticks)."""

    ns: int
    host: int
    guest: int


@dataclass(slots=True)
class Vcpu:
    """One vCPU in one process. Times are in ns."""

    guest: str
    process: int
    """Which of the traces: 0 for the first one."""
    name: str
    begin: int = 0
    end: int = 0
    spent: dict[str, int] = field(default_factory=dict)
    """What its time went into, by `PARTS`."""
    stolen: int = 0
    exits: dict[str, Exits] = field(default_factory=dict)
    """By reason, the most frequent first. Hypercalls that the hypervisor answered end in `WITHIN_GUEST`."""
    interrupts: dict[str, int] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    """What was counted alone, in all at the last sample, by the counters' names."""
    stays: list[Stay] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    counted_runs: list[tuple[int, int]] = field(default_factory=list)
    """When runs were only counted, and not told one by one: (begin, end)."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move of a guest. Times are in ns."""

    process: int
    where: str
    outcome: str
    begin: int
    end: int
    downtime: tuple[int, int] | None
    """When the guest was stopped, as its source saw it; None at a destination."""
    rounds: list[tuple[int, int]]
    report: dict[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that the traces say in sums."""

    vcpus: list[Vcpu]
    moves: list[Move]
    pauses: list[tuple[int, int]]

    @property
    def begin(self) -> int:
        """When the first vCPU first did something (ns)."""
        return min((vcpu.begin for vcpu in self.vcpus), default=0)

    @property
    def end(self) -> int:
        """When the last one last did."""
        return max((vcpu.end for vcpu in self.vcpus), default=0)

    def name(self, vcpu: Vcpu) -> str:
        """Return what tells a vCPU from the others, for people."""
        several = len({one.process for one in self.vcpus}) > 1
        return f"{vcpu.guest} {vcpu.name}" + (f", trace {vcpu.process + 1}" if several else "")

    def as_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        return asdict(self)


PARTS: Final = ("guest", "switch", "ceded", "user space", "hypervisor", "only counted")
"""What a vCPU's time goes into: the guest's instructions; entries and exits; waits in H_CEDE; what user space
does; the rest of a run; and runs of which only the number is known.
"""


def summarise(traces: Iterable[Sequence[Track]]) -> Summary:
    """Return what these traces of processes on one machine say."""
    found = Summary([], [], [])
    for process, tracks in enumerate(traces):
        names = {track.uuid: track.name for track in tracks}
        for track in tracks:
            told = [one for one in track.slices if one.end is not None]
            if track.name.startswith("vCPU ") and not track.is_counter and told:
                vcpu = Vcpu(names.get(track.parent, ""), process, track.name)
                _fill(vcpu, told)
                vcpu.stolen = _last(tracks, track, v.STOLEN_COUNTER)
                vcpu.work = {counter.name: _last(tracks, track, counter) for counter in v.WORK}
                found.vcpus.append(vcpu)
            elif track.name == v.MOVES.name:
                found.moves.extend(_moves(process, told))
            elif track.name == v.GUEST.name:
                found.pauses.extend(map(_span, told))
    return found


def _number(value: int | str) -> int:
    """A value that should be a number; 0 if the trace has something else there."""
    return value if isinstance(value, int) else 0


def _span(one: Slice) -> tuple[int, int]:
    assert one.end is not None
    return one.begin, one.end


def _length(one: Slice) -> int:
    begin, end = _span(one)
    return end - begin


def _fill(vcpu: Vcpu, told: list[Slice]) -> None:
    vcpu.begin, vcpu.end = told[0].begin, max(_span(one)[1] for one in told)
    spent = vcpu.spent = dict.fromkeys(PARTS, 0)
    for one in told:
        if one.is_instant:
            vcpu.interrupts[one.name] = vcpu.interrupts.get(one.name, 0) + 1
            continue
        length = _length(one)
        if one.name == v.RUN.name:
            spent["hypervisor"] += length
        elif one.name == v.COUNTED_RUNS.name:
            spent["only counted"] += length
            vcpu.counted_runs.append(_span(one))
        elif not one.inside:
            spent["user space"] += length
        elif one.inside == v.RUN.name:
            spent["hypervisor"] -= length
            spent[_PART_OF.get(one.name, "hypervisor")] += length
        elif one.name == v.CEDED.name:
            spent["guest"] -= length
            spent["ceded"] += length
        _note_exit(vcpu, one, length)
        if one.name == v.IN_GUEST.name:
            _note_stay(vcpu, one)
    vcpu.exits = dict(sorted(vcpu.exits.items(), key=lambda item: -item[1].all))


_PART_OF: Final = {
    v.ENTER.name: "switch",
    v.LEAVE.name: "switch",
    v.IN_GUEST.name: "guest",
    v.CEDED.name: "ceded",
}


def _note_exit(vcpu: Vcpu, one: Slice, length: int) -> None:
    if one.name.startswith(("H_", "exit ")):
        exits = vcpu.exits.setdefault(one.name + (v.WITHIN_GUEST if one.inside else ""), Exits())
        exits.told += 1
        exits.ns += length
    for name, value in one.at_end.items():
        if name.startswith(("H_", "exit ")):
            vcpu.exits.setdefault(name, Exits()).counted += _number(value)
        elif name in _INTERRUPTS:
            vcpu.interrupts[name] = vcpu.interrupts.get(name, 0) + _number(value)


_INTERRUPTS: Final = frozenset(one.name for one in v.INSTANTS)


def _note_stay(vcpu: Vcpu, one: Slice) -> None:
    begin, end = _span(one)
    core = _number(one.values.get(v.CORE.name, 0))
    stays = vcpu.stays
    if stays and stays[-1].core == core and begin - stays[-1].end <= _OTHER_GAP:
        stays[-1] = Stay(core, stays[-1].begin, end)
    else:
        stays.append(Stay(core, begin, end))
    for moment, values in ((begin, one.values), (end, one.at_end)):
        if v.HOST_TB.name in values and v.GUEST_TB.name in values:
            host, guest = _number(values[v.HOST_TB.name]), _number(values[v.GUEST_TB.name])
            vcpu.readings.append(Reading(moment, host, guest))


def _last(tracks: Sequence[Track], of: Track, counter: v.Counter) -> int:
    name = f"{of.name} {counter.name}"
    for track in tracks:
        if track.is_counter and track.parent == of.parent and track.name == name and track.counts:
            return track.counts[-1][1]
    return 0


def _moves(process: int, told: list[Slice]) -> Iterable[Move]:
    for one in told:
        if one.name != v.MOVE.name:
            continue
        begin, end = _span(one)
        inside = [other for other in told if begin <= other.begin and _span(other)[1] <= end]
        report = {name: value for name, value in one.at_end.items() if isinstance(value, int)}
        yield Move(
            process,
            str(one.values.get(v.WHERE.name, "")),
            str(one.at_end.get(v.OUTCOME.name, "")),
            begin,
            end,
            next((_span(other) for other in inside if other.name == v.DOWNTIME.name), None),
            [_span(other) for other in inside if other.name == v.ROUND.name],
            report,
        )


def guest_course(vcpu: Vcpu, first: Reading) -> Iterable[tuple[int, float]]:
    """Return how the vCPU's guest time advanced: (ns, seconds of guest time since `first`), in order."""
    for reading in vcpu.readings:
        yield reading.ns, Ticks(signed64(reading.guest - first.guest)).seconds


def offsets(vcpu: Vcpu) -> Iterable[tuple[int, int]]:
    """Return where the guest's time left the host's: (ns, by how many ticks), at the first reading after."""
    for before, after in pairwise(vcpu.readings):
        step = signed64((after.guest - after.host) - (before.guest - before.host))
        if step:
            yield after.ns, step
