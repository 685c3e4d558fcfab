"""The guest's time of day, which RTAS reads and sets."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chronovisor.machine.errors import MachineError
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.types import FREQUENCY, GuestTime, SourceTime, Ticks

VIRTUAL_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of day at which a virtual clock stands at 0: a run in virtual time depends on nothing outside."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2})?")
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TICKS_PER_MICROSECOND: Final = FREQUENCY // 1_000_000
_CLOSE: Final = FREQUENCY // 50_000
"""Ticks (20 µs): two clocks that are read within so much time belong together."""
_TRIES: Final = 10
"""To read them so. A busy machine may stop a thread between two readings: then the closest ones are taken."""


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A guest's time of day at a moment of its own time, as moves and snapshots carry it."""

    guest_time: GuestTime
    since_epoch: Ticks
    """Since 1970-01-01, universal time."""

    def at(self, moment: GuestTime) -> Ticks:
        """Return the time of day when the guest's time is `moment`: the two go on together."""
        return self.since_epoch + (moment - self.guest_time)


class WallClock:
    """Universal time, shifted by what the guest set and by the time away that does not count."""

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self.shift = Ticks(0)
        """By how much the guest's time of day is ahead of the machine's."""

    def now(self) -> datetime:
        """The guest's time of day, to the microsecond."""
        return as_datetime(self.since_epoch())

    def since_epoch(self) -> Ticks:
        """The guest's time of day, since 1970."""
        return self._machine() + self.shift

    def at(self, tick: SourceTime) -> Ticks:
        """The guest's time of day, since 1970, when its host's clock stands at `tick`, a moment near now.

        However long ago that clock was read, the two belong together.
        """
        return self._machine_at(tick) + self.shift

    def set(self, moment: datetime) -> None:
        """Set the time of day to `moment`."""
        self.shift = _as_ticks(moment) - self._machine()

    def set_at(self, tick: SourceTime, since_epoch: Ticks) -> None:
        """Have the time of day be `since_epoch`, since 1970, when the host's clock stands at `tick`: see
        `at`.
        """
        self.shift = since_epoch - self._machine_at(tick)

    def start(self, base: str) -> None:
        """Set the time of day at the guest's start to `base`: "utc", "localtime", or a date, as
        2026-11-28T12:00:00 or 2026-11-28.

        MachineError for anything else, and for "localtime" in virtual time.
        """
        if base == "utc":
            self.shift = Ticks(0)
        elif base == "localtime":
            if self._source.is_virtual:
                raise MachineError("rtc base=localtime depends on this machine; in virtual time give a date")
            self.set(datetime.now().replace(tzinfo=UTC))
        else:
            self.set(_parse_date(base))

    def _machine(self) -> Ticks:
        if self._source.is_virtual:
            return self._machine_at(self._source.ticks())
        return Ticks.from_ns(time.time_ns())

    def _machine_at(self, tick: SourceTime) -> Ticks:
        if self._source.is_virtual:
            return _as_ticks(VIRTUAL_EPOCH) + Ticks(tick)
        readings: list[tuple[int, Ticks]] = []
        while len(readings) < _TRIES and (not readings or readings[-1][0] > _CLOSE):
            before, day, after = self._source.ticks(), self._machine(), self._source.ticks()
            readings.append((after - before, day - Ticks((before + after) // 2 - tick)))
        return min(readings)[1]


def as_datetime(since_epoch: Ticks) -> datetime:
    """Return the time of day as a date, to the microsecond, clamped to the years that a date can have."""
    try:
        return _EPOCH + since_epoch.value // _TICKS_PER_MICROSECOND * _MICROSECOND
    except OverflowError:
        return (datetime.min if since_epoch < Ticks(0) else datetime.max).replace(tzinfo=UTC)


def _parse_date(text: str) -> datetime:
    if _DATE.fullmatch(text):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    raise MachineError(f"rtc base {text!r}: write utc, localtime, or a date as 2026-11-28T12:00:00")


def _as_ticks(moment: datetime) -> Ticks:
    return Ticks((moment - _EPOCH) // _MICROSECOND * _TICKS_PER_MICROSECOND)
