"""The guest's time of day, which RTAS reads and sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from chronovisor.timebase.clock import TickSource

VIRTUAL_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of day at which a virtual clock stands at 0: a run in virtual time depends on nothing outside."""


class WallClock:
    """Universal time, shifted by what the guest set. It knows nothing of timebases."""

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self.shift = timedelta()
        """How far the guest's time of day is ahead of the machine's; part of the state that a move carries.
        """

    def now(self) -> datetime:
        """The guest's time of day, to the microsecond."""
        return self._machine() + self.shift

    def set(self, moment: datetime) -> None:
        """Have it be `moment` now."""
        self.shift = moment - self._machine()

    def _machine(self) -> datetime:
        if self._source.is_virtual:
            microseconds = self._source.ticks() * 1_000_000 // self._source.frequency
            return VIRTUAL_EPOCH + timedelta(microseconds=microseconds)
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time.time_ns() // 1000)
