"""The recorder of moves: their phases as slices that begin when the one before ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import Enum

from chronovisor.report.trace import vocabulary as v
from chronovisor.report.trace.recorder import Event, Kind, Sink, Values
from chronovisor.timebase.clock import TickSource


class MoveRecorder:
    """`migration.tracing.MoveTrace` for the moves of one process. From any thread."""

    def __init__(self, sink: Sink, source: TickSource) -> None:
        self._sink = sink
        self._ticks = source.ticks
        self._track = sink.track(v.MOVES.name)
        self._open: list[str] = []
        self._round = 0
        self._lock = threading.Lock()

    def begins(self, where: str) -> None:
        """Begin a move; one that has not ended was given up."""
        self.ends("given up", {})
        with self._lock:
            self._round = 0
            self._begin(v.MOVE.name, {v.WHERE.name: where})

    def phase(self, phase: Enum) -> None:
        """End the phase before, and begin this one."""
        name = v.phase_name(phase.name)
        with self._lock:
            self._end_down_to(v.DOWNTIME.name if v.DOWNTIME.name in self._open else v.MOVE.name)
            if name == v.FIRST_OF_DOWNTIME:
                self._begin(v.DOWNTIME.name)
            self._begin(name)

    def round(self, number: int) -> None:
        """Begin a round, if it is another one."""
        with self._lock:
            if number == self._round or not self._open:
                return
            self._round = number
            if v.ROUND.name in self._open:
                self._end_down_to(self._open[self._open.index(v.ROUND.name) - 1])
            self._begin(v.ROUND.name, {v.NUMBER.name: number})

    def ends(self, outcome: str, report: Mapping[str, int | None]) -> None:
        """End the move and what is open in it; nothing if none is under way."""
        with self._lock:
            self._end_down_to(v.MOVE.name)
            if self._open:
                values: Values = {v.OUTCOME.name: outcome}
                values |= {name: value for name, value in report.items() if value is not None}
                self._end(values)

    def close(self) -> None:
        """End what is open."""
        self.ends("not ended", {})

    def _end_down_to(self, name: str) -> None:
        """End what is open inside of `name`; everything if that is not open."""
        while self._open and self._open[-1] != name:
            self._end()

    def _begin(self, name: str, values: Values | None = None) -> None:
        if not self._sink.off:
            self._open.append(name)
            self._sink.events.append(Event(Kind.BEGIN, self._ticks(), self._track, name, values))

    def _end(self, values: Values | None = None) -> None:
        name = self._open.pop()
        if not self._sink.off:
            self._sink.events.append(Event(Kind.END, self._ticks(), self._track, name, values))
