"""Counters of run time: VTB, PURR and SPURR."""

from __future__ import annotations

from chronovisor.engine.live_registers import NOT_LENT
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
    """A register that counts run time (VTB, PURR, SPURR); writes to TBU40 do not move it.

    It is `_ahead` ticks ahead of the run time, and takes 64 bits of the sum.
    """

    __slots__ = ("_ahead", "_run_time")

    def __init__(self, run_time: RunTime) -> None:
        self._run_time = run_time
        self._ahead = 0

    def ahead(self) -> int:
        """By how many ticks it is ahead of the clock, all but modulo 2^64; `NOT_LENT` while it stands."""
        ahead = self._run_time.ahead
        return NOT_LENT if ahead is None else ahead + self._ahead

    @property
    def value(self) -> int:
        """Its value now: 64-bit ticks."""
        return (self._run_time.ticks() + self._ahead) & MASK64

    @value.setter
    def value(self, value: int) -> None:
        self._ahead = value - self._run_time.ticks()
