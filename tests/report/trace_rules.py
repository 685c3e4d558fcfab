"""What holds for every trace: its rows and events are those that are declared, and its slices nest."""

from __future__ import annotations

import re
from pathlib import Path

from chronovisor.migration.phases import DestinationPhase, SourcePhase
from chronovisor.report.trace import vocabulary as v
from chronovisor.report.trace.reading import Slice, Track, read_trace
from chronovisor.timebase.types import MASK64

PHASES = {v.phase_name(phase.name) for phase in (*SourcePhase, *DestinationPhase)}
REPORT = re.compile(r"[a-z_]+")


def read(path: Path) -> list[Track]:
    with path.open("rb") as file:
        return read_trace(file)


def declared(event: Slice) -> v.Slice:
    """The declaration of an event."""
    for one in (*v.SLICES, *v.INSTANTS):
        pattern = re.escape(one.name).replace("…", ".+")
        if one is v.PHASE:
            pattern = "|".join(PHASES)
        if re.fullmatch(pattern, event.name) and (one in v.INSTANTS) == event.is_instant:
            return one
    raise AssertionError(f"{event.name} is not declared")


def check(tracks: list[Track]) -> int:
    """Check a trace; return how many slices, instants and counts it has."""
    checked = 0
    counters = {f"vCPU N {counter.name}": counter for counter in v.COUNTERS}
    rows = {track.name: track for track in v.TRACKS}
    for track in tracks:
        row = re.sub(r"vCPU \d+", "vCPU N", track.name)
        checked += len(track.slices) + len(track.counts)
        if track.is_counter:
            assert track.unit == counters[row].unit
            assert [at for at, _ in track.counts] == sorted(at for at, _ in track.counts)
            assert not track.slices
            continue
        # The process and the guests are rows without events of their own.
        assert row in rows or not track.slices
        check_nesting(track)
        for event in track.slices:
            declaration = declared(event)
            assert declaration.track is rows[row]
            assert event.inside in declaration.inside or event.inside.startswith("H_"), event
            known = {annotation.name for annotation in declaration.annotations}
            for name, value in (*event.values.items(), *event.at_end.items()):
                counted = v.COUNTED.name in known and re.match("H_|exit |.*interrupt|decrementer", name)
                report = v.REPORT.name in known and REPORT.fullmatch(name)
                assert name in known or counted or report, f"{event.name} has {name}"
                if name in (v.HOST_TB.name, v.GUEST_TB.name):
                    assert 0 <= int(value) <= MASK64
    return checked


def check_nesting(track: Track) -> None:
    """Slices begin in order, and each ends before what it is in."""
    open_: list[Slice] = []
    last = 0
    for event in track.slices:
        assert event.end is not None, f"{event.name} has no end"
        assert last <= event.begin <= event.end
        last = event.begin
        while open_ and open_[-1].name != event.inside:
            open_.pop()
        if event.inside:
            outer = open_[-1]
            assert outer.end is not None
            assert outer.begin <= event.begin
            assert event.end <= outer.end
        if not event.is_instant:
            open_.append(event)
