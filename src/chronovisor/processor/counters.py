"""Counters of run time: VTB, PURR and SPURR."""

from __future__ import annotations

from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.types import MASK64, SourceTime


class RunTime:
    """The ticks of the clock that pass while something runs."""

    __slots__ = ("_before", "_source", "ahead")

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self._before = 0
        self.ahead: int | None = None
        """By how many ticks it is ahead of the clock; None while it stands."""

    def ticks(self) -> int:
        """Return the ticks up to now."""
        ahead = self.ahead
        return self._before if ahead is None else self._source.ticks() + ahead

    def start(self, now: SourceTime) -> None:
        """Count from the tick `now` on."""
        self.ahead = self._before - now

    def stop(self, now: SourceTime) -> None:
        """Stop counting at the tick `now`."""
        if self.ahead is not None:
            self._before = now + self.ahead
            self.ahead = None


class RunningCounter:
    """A register that counts run time (VTB, PURR, SPURR); writes to TBU40 do not move it."""

    __slots__ = ("beyond", "run_time")

    def __init__(self, run_time: RunTime) -> None:
        self.run_time = run_time
        self.beyond = 0
        """By how many ticks it is ahead of the run time; it shows 64 bits of the sum."""

    @property
    def value(self) -> int:
        """Its value now: 64-bit ticks."""
        return (self.run_time.ticks() + self.beyond) & MASK64

    @value.setter
    def value(self, value: int) -> None:
        self.beyond = value - self.run_time.ticks()
