"""A clock of which nothing is known but that it does not go back: what claims about time run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from chronovisor.proof.paths import Case
from chronovisor.timebase.clock import Alarm, HostClock
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import FREQUENCY, MASK64, HostTime, SourceTime

LAST_TICK = (1 << 65) - 1
"""The last tick of an unknown clock. It passes all values of a timebase, and all again after a wrap."""


class UnknownTime:
    """A tick source. Each reading is an unknown tick, no earlier than the reading before.

    Its hosts can have the origin 0: a host's time is origin plus ticks, and the ticks are any number already.
    The clock stands still while `still` is true, so that a claim can compare two readings of one instant.
    """

    frequency = FREQUENCY
    is_virtual = False
    """A thread may be stopped between two readings, as by a machine."""

    def __init__(self, case: Case, name: str = "clock") -> None:
        self._case = case
        self._name = name
        self._now: int | None = None
        self._readings = 0
        self._first: int | None = None
        self._told: int | None = None
        self.still = False

    def ticks(self) -> SourceTime:
        """Let an unknown number of ticks pass, and return the ticks since the beginning."""
        if self.still and self._now is not None:
            return SourceTime(self._now)
        self._readings += 1
        now = self._case.any(f"{self._name} at reading {self._readings}", 0, LAST_TICK, self._now)
        if self._now is not None:
            self._case.assume("a clock never goes back", now >= self._now)
        if self._first is None:
            self._first = now
        self._now = now
        return SourceTime(now)

    def told(self) -> str:
        """Return the latest reading, for a story, with the ticks since it was last told."""
        since = "" if self._told is None else f", {self.now - self._told} ticks later"
        self._told = self.now
        return f"{self._name} = {self.now & MASK64:#x}{since}: "

    @property
    def now(self) -> int:
        """The latest reading."""
        return 0 if self._now is None else self._now

    @property
    def since_first(self) -> int:
        """The ticks from the first reading to the latest one."""
        return 0 if self._first is None or self._now is None else self._now - self._first

    def sleep_until(self, ticks: int) -> NoReturn:
        """Refuse: an unknown clock advances only when it is read."""
        raise NotImplementedError("an unknown clock cannot be slept on")

    def call_at(self, ticks: int, call: Callable[[], None]) -> Alarm:
        """Refuse: an unknown clock has no alarms."""
        raise NotImplementedError("an unknown clock has no alarms")


class ToldTimebase(CoreTimebase):
    """A core's timebase on an unknown clock. Each access becomes a line of the story."""

    def __init__(self, case: Case, time: UnknownTime) -> None:
        super().__init__(HostClock(time))
        self._case = case
        self._time = time

    def read(self) -> int:
        """Return the timebase T."""
        value = super().read()
        self._case.tell(lambda: f"{self._time.told()}TB is read: {value:#x}")
        return value

    def write_tbu40(self, value: int, when: bool = True) -> None:
        """If `when` holds, replace the upper 40 bits of T."""
        super().write_tbu40(value, when)
        self._case.tell(
            lambda: f"{self._time.told()}" + (f"TBU40 is written: {value:#x}" if when else "no write")
        )


class UnknownCore:
    """A core of a host whose time is unknown."""

    def __init__(self, case: Case, name: str = "H") -> None:
        self.time = UnknownTime(case, name)
        self.timebase = ToldTimebase(case, self.time)
        self.clock = self.timebase.clock

    def later(self) -> tuple[int, HostTime]:
        """Let time pass, and return the timebase T and the host's time H of one instant."""
        host = self.timebase.tod()
        self.time.still = True
        try:
            return self.timebase.read(), host
        finally:
            self.time.still = False
