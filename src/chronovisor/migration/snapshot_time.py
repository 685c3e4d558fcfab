"""How long a guest lay in a file: the clocks that are read when it is saved and when it is restored.

Within one boot of one machine CLOCK_BOOTTIME knows, which goes on while the machine sleeps. Otherwise there
is only the time of day, which people and programs set: it is used if the user asks for it, and said
not to be trusted. A virtual clock knows within its process alone.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from chronovisor.machine.errors import MachineError
from chronovisor.migration.kinds import GUEST_TIME, S64, TEXT, TICKS, U64, fields_of
from chronovisor.timebase.clock import HostClock, TickSource
from chronovisor.timebase.handover import Absence
from chronovisor.timebase.history import AwayClock
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import FREQUENCY, GuestTime, SourceTime, Ticks

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NS: Final = 1_000_000_000
_LONGEST: Final = 1 << 60
"""Ticks (71 years): times away that are longer are not believed."""
_NAMES: Final[WeakKeyDictionary[TickSource, str]] = WeakKeyDictionary()
"""Of virtual clocks. An address or a process's number comes again; a file may be read long after."""


class Moment(NamedTuple):
    """What a clock read in nanoseconds, as far as it is known."""

    not_before: int
    not_after: int

    @classmethod
    def checked(cls, not_before: int, not_after: int) -> Moment:
        """Return the moment; ValueError for a date that does not exist."""
        if not_before > not_after:
            raise ValueError(f"no moment lies between {not_before} and {not_after} ns")
        return cls(not_before, not_after)

    def ticks_until(self, later: Moment) -> tuple[int, int]:
        """Return the ticks from here to a later moment: at least, at most."""
        least = (later.not_before - self.not_after) * FREQUENCY // _NS
        return least, -((self.not_before - later.not_after) * FREQUENCY // _NS)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """All clocks of a machine at one moment. They are read one after the other, so it is an interval."""

    virtual: str
    """Which virtual clock the host counts with; empty for the machine's own clock."""
    ticks: SourceTime
    """Of the clock that the host counts with."""
    boot: str
    """The id of the machine's boot; empty if it cannot be known."""
    boot_time: Moment
    """By CLOCK_BOOTTIME."""
    time_of_day: Moment
    """By the machine's time of day, since 1970."""


ReadClocks = Callable[[TickSource], ClockReading]


def read_clocks(source: TickSource) -> ClockReading:
    """Read the clocks of this machine."""
    boot_before, day_before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    ticks = source.ticks()
    day_after, boot_after = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    return ClockReading(
        _NAMES.setdefault(source, f"virtual clock {secrets.token_hex(8)}") if source.is_virtual else "",
        ticks,
        boot,
        Moment(boot_before, boot_after),
        # It may have been set just now.
        Moment(min(day_before, day_after), max(day_before, day_after)),
    )


@dataclass(frozen=True, slots=True)
class SavedTime:
    """When a guest was saved, by its own clock and by its machine's."""

    guest_time: GuestTime
    """The guest's time when it was stopped."""
    stopped_before: Ticks
    """How long before the reading it was stopped, by its host's clock (it may have been paused)."""
    origin: int
    """Its host's timebase when the clock stood at 0."""
    reading: ClockReading

    def __post_init__(self) -> None:
        if self.stopped_before < Ticks(0):
            raise ValueError("a guest was saved before it was stopped")

    def away(self, host: HostClock, now: ClockReading, policy: TimePolicy) -> tuple[AwayClock, Absence]:
        """Return by what the time away is known, and what is known of it.

        If none of it is to count, it need not be known. MachineError if it is, and is not known, or
        is negative.
        """
        try:
            clock, least, most = self._away(now)
            if not 0 <= self.stopped_before.value + most <= _LONGEST:
                raise MachineError(
                    f"no guest was away for {Ticks(most).seconds:.0f} s: what it says is not so"
                )
        except MachineError:
            if policy.counted(1):
                raise
            clock, least, most = AwayClock.NONE, 0, 0
        before = min(self.stopped_before.value, _LONGEST)
        return clock, Absence(before + least, before + most, host.at(now.ticks))

    def _away(self, now: ClockReading) -> tuple[AwayClock, int, int]:
        saved = self.reading
        if saved.virtual != now.virtual:
            raise MachineError(
                f"the guest was saved in {saved.virtual or 'real time'} and would go on in "
                f"{now.virtual or 'real time'}: no time passes between clocks that do not go together; "
                "restore it with --time freeze"
            )
        if saved.virtual:
            clock, least, most = AwayClock.HOST, now.ticks - saved.ticks, now.ticks - saved.ticks
        elif saved.boot and saved.boot == now.boot:
            clock, (least, most) = AwayClock.BOOT, saved.boot_time.ticks_until(now.boot_time)
        else:
            clock, (least, most) = AwayClock.WALL, saved.time_of_day.ticks_until(now.time_of_day)
        if most < 0:
            raise MachineError(
                f"by the {clock} the guest was saved {Ticks(-most).seconds:.3f} s in the future: a negative "
                "time away cannot count; set that right, or restore it with --time freeze"
            )
        return clock, max(0, least), most


_MOMENT: Final = fields_of(Moment.checked, not_before=S64, not_after=S64)
READING: Final = fields_of(
    ClockReading,
    virtual=TEXT,
    ticks=S64,
    boot=TEXT,
    boot_time=_MOMENT,
    time_of_day=_MOMENT,
)
SAVED_TIME: Final = fields_of(
    SavedTime, guest_time=GUEST_TIME, stopped_before=TICKS, origin=U64, reading=READING
)
"""How it is written in a snapshot."""
