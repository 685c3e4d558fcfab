"""The sources of time: the machine's one monotonic clock, real or virtual, and the hosts' clocks on it.

A `TickSource` counts ticks since a moment of its own. Every host on it counts the same ticks from an origin
of its own (`HostClock`). So hosts in one process disagree about the time and agree about its rate, as real
hosts do.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns
from typing import Protocol

from chronovisor.timebase.types import FREQUENCY, MASK64, HostTime, SourceTime

_TICKS, _NANOSECONDS = 64, 125
"""The frequency in lowest terms: so many ticks in so many nanoseconds. Small numbers are computed faster."""
assert _TICKS * 1_000_000_000 == FREQUENCY * _NANOSECONDS
_HALF = 1 << 63


class Alarm(Protocol):
    """A call that will be made."""

    def cancel(self) -> None:
        """Cancel the call; do nothing if it was made already."""


class TickSource(Protocol):
    """A monotonic clock in ticks."""

    @property
    def frequency(self) -> int:
        """Ticks per second."""

    @property
    def is_virtual(self) -> bool:
        """Whether time passes only by `VirtualTime.advance`."""

    def ticks(self) -> SourceTime:
        """Return the ticks since the source's beginning: floor(frequency × monotonic time). It never goes
        back.
        """

    def sleep_until(self, ticks: SourceTime) -> None:
        """Return when `ticks()` is at least `ticks`; at once if it already is."""

    def call_at(self, ticks: SourceTime, call: Callable[[], None]) -> Alarm:
        """Make `call` once when `ticks()` is at least `ticks`, and not before."""


class RealTime:
    """The machine's own monotonic clock."""

    frequency = FREQUENCY
    is_virtual = False

    def ticks(self) -> SourceTime:
        """Return floor(frequency × the machine's monotonic time)."""
        # Entries and exits come here often, and a call of the type would take longer than the sum.
        return monotonic_ns() * _TICKS // _NANOSECONDS  # type: ignore[return-value]

    def sleep_until(self, ticks: SourceTime) -> None:
        """Sleep until `ticks()` is at least `ticks`."""
        while (left := ticks - self.ticks()) > 0:
            time.sleep(min(left / FREQUENCY, threading.TIMEOUT_MAX))

    def call_at(self, ticks: SourceTime, call: Callable[[], None]) -> Alarm:
        """Make `call` on a thread of its own when `ticks()` has reached `ticks`."""
        return _RealAlarm(self, ticks, call)


class _RealAlarm:
    def __init__(self, source: RealTime, ticks: SourceTime, call: Callable[[], None]) -> None:
        self._source = source
        self._ticks = ticks
        self._call = call
        self._cancelled = threading.Event()
        threading.Thread(target=self._wait, name="alarm", daemon=True).start()

    def cancel(self) -> None:
        self._cancelled.set()

    def _wait(self) -> None:
        while (left := self._ticks - self._source.ticks()) > 0:
            if self._cancelled.wait(min(left / FREQUENCY, threading.TIMEOUT_MAX)):
                return
        if not self._cancelled.is_set():
            self._call()


class VirtualTime:
    """A clock that stands still until it is advanced: everything on it is deterministic and repeatable.

    The thread that advances the clock calls the alarms, with the clock exactly at the alarm's tick (if one
    thread at a time advances it). Alarms of one tick are called in the order in which they were set.
    """

    frequency = FREQUENCY
    is_virtual = True

    def __init__(self, start: int = 0) -> None:
        self._lock = threading.Lock()
        self._now = SourceTime(start)
        self._alarms: list[tuple[SourceTime, int, _VirtualAlarm]] = []
        self._set = 0

    def ticks(self) -> SourceTime:
        """Return the clock's start plus the ticks that it was advanced by."""
        return self._now

    def advance(self, ticks: int) -> None:
        """Let `ticks` pass, and call every alarm that is due on the way (also alarms that an alarm sets).

        Raises `ValueError` for a negative number: time does not go back.
        """
        if ticks < 0:
            raise ValueError(f"time cannot be advanced by {ticks} ticks: it does not go back")
        target = SourceTime(self._now + ticks)
        while (alarm := self._next_until(target)) is not None:
            alarm.call()
        with self._lock:
            self._now = max(self._now, target)

    def sleep_until(self, ticks: SourceTime) -> None:
        """Advance the clock to `ticks`, and call the alarms on the way; do nothing if it is there already."""
        self.advance(max(0, ticks - self._now))

    def rewind(self, ticks: SourceTime) -> None:
        """Set the clock to `ticks`, earlier or later: for someone who looks at what was.

        Nothing on the clock may run meanwhile. ValueError if an alarm is set.
        """
        if self.next_alarm() is not None:
            raise ValueError("the clock cannot be set back: somebody has set an alarm")
        with self._lock:
            self._now = ticks

    def call_at(self, ticks: SourceTime, call: Callable[[], None]) -> Alarm:
        """Make `call` when the clock is advanced to `ticks`; for a tick in the past, at the next
        `advance`."""
        alarm = _VirtualAlarm(call)
        with self._lock:
            heapq.heappush(self._alarms, (ticks, self._set, alarm))
            self._set += 1
        return alarm

    def next_alarm(self) -> SourceTime | None:
        """Return the tick of the next alarm, or None if no alarm is set."""
        with self._lock:
            self._drop_cancelled()
            return self._alarms[0][0] if self._alarms else None

    def _next_until(self, target: SourceTime) -> _VirtualAlarm | None:
        with self._lock:
            self._drop_cancelled()
            if not self._alarms or self._alarms[0][0] > target:
                return None
            ticks, _, alarm = heapq.heappop(self._alarms)
            self._now = max(self._now, ticks)
            return alarm

    def _drop_cancelled(self) -> None:
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)


class _VirtualAlarm:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SteppingTime(VirtualTime):
    """A virtual clock that can be made to step before each of its next readings.

    A test can let any number of ticks pass between any two accesses to a register. On real machines an
    interrupt or a slow bus does this once in a while.
    """

    def __init__(self, start: int = 0, steps: Iterable[int] = ()) -> None:
        super().__init__(start)
        self._steps: Iterator[int] = iter(steps)
        self._stepping = False

    def inject(self, steps: Iterable[int]) -> None:
        """Advance by the first of `steps` (ticks) before the next reading, by the second before the reading
        after that, and so on.
        """
        self._steps = iter(steps)

    def advance(self, ticks: int) -> None:
        """Let `ticks` pass as `VirtualTime` does; readings by alarms meanwhile take no step."""
        outer, self._stepping = self._stepping, True
        try:
            super().advance(ticks)
        finally:
            self._stepping = outer

    def ticks(self) -> SourceTime:
        """Take the next injected step, if one is left, then return the ticks."""
        if not self._stepping:
            self.advance(next(self._steps, 0))
        return super().ticks()


class HostClock:
    """A host's timebase as its firmware keeps it: the ticks of the machine's clock plus the host's origin."""

    def __init__(self, source: TickSource, origin: int = 0) -> None:
        self.source = source
        self.origin = origin

    def now(self) -> HostTime:
        """Return the host's time."""
        return self.at(self.source.ticks())

    def at(self, ticks: SourceTime) -> HostTime:
        """Return the host's time at which its source stands at `ticks`."""
        return HostTime(ticks + self.origin)

    def ticks_at(self, moment: HostTime, now: SourceTime | None = None) -> SourceTime:
        """Return the tick of the source at which the host's time is `moment`: of all such ticks (modulo 2^64)
        the one nearest to the tick `now`, or to the present one.
        """
        if now is None:
            now = self.source.ticks()
        # This is `signed64`, without its call.
        away = ((moment.value - now - self.origin + _HALF) & MASK64) - _HALF
        # SourceTime is a name for mypy alone, and its call would take as long as the rest.
        return now + away  # type: ignore[return-value]
