"""A clock of which nothing is known but that it does not go back: what claims about time run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from chronovisor.proof.paths import Case
from chronovisor.timebase.clock import Alarm, HostClock
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import FREQUENCY, MASK64, HostTime, SourceTime

LAST_TICK = (1 << 65) - 1
"""How far an unknown clock counts: through all of a timebase's values, and through them once more after it
wraps.
"""


class UnknownTime:
    """A tick source whose every reading is an unknown tick, no earlier than the one before.

    Its hosts' origin may as well be 0: a host's time is the sum of the two, and the ticks are any already.
    It stands still while `still` is true, so that a claim can compare two readings made at one instant.
    """

    frequency = FREQUENCY
    is_virtual = True

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
        """Return the latest reading as a story has it, with the ticks since it was told last."""
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
        """Refuse: an unknown clock goes on by itself."""
        raise NotImplementedError("nobody sleeps on an unknown clock")

    def call_at(self, ticks: int, call: Callable[[], None]) -> Alarm:
        """Refuse: an unknown clock calls nobody."""
        raise NotImplementedError("an unknown clock calls nobody")


class ToldTimebase(CoreTimebase):
    """A core's timebase on an unknown clock, each access to which is told."""

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
        """Replace the upper 40 bits of T where `when` holds."""
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
