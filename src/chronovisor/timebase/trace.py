"""What happens to time at an entry and an exit, as records: what `--trace-switch` and the demonstration
show.

An `Observer` is called with each, in the order in which they happened, but only after the switch that they
are part of: whoever listened inside it would be given foreign time and would make the switch itself slow.
Cores, threads and vCPUs are named by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from chronovisor.timebase.facility import Tfmr
from chronovisor.timebase.types import GuestTime, HostTime, Offset, Ticks


@dataclass(frozen=True, slots=True)
class TimebaseRead:
    """The switch read the core's timebase: 64-bit ticks, neither host's nor guest's time until the switch
    is done.
    """

    core: int
    value: int


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The low 24 bits wrapped between the reading and the check, so the upper 40 have to be written again."""

    core: int


@dataclass(frozen=True, slots=True)
class Tbu40Written:
    """The switch wrote the upper 40 bits of `value` (64-bit ticks); `after_wrap`: the second time, with
    2^24 more.
    """

    core: int
    value: int
    after_wrap: bool


@dataclass(frozen=True, slots=True)
class SwitchBreached:
    """The switch took 2^24 ticks or more, for which its wrap check is not sound: the timebase was loaded
    afresh.
    """

    core: int
    ticks: Ticks


@dataclass(frozen=True, slots=True)
class OffsetApplied:
    """The core's timebase is the guest's from here on: the host's plus `offset`."""

    core: int
    offset: Offset


@dataclass(frozen=True, slots=True)
class SecondaryLetIn:
    """A secondary thread of the core was let in: its vCPU may run the guest."""

    core: int
    thread: int
    vcpu: int


@dataclass(frozen=True, slots=True)
class ThreadOut:
    """A thread of the core left the guest."""

    core: int
    thread: int
    vcpu: int


@dataclass(frozen=True, slots=True)
class HostTimeRestored:
    """The core's timebase is the host's again: the offset `applied` at entry was taken away, and `value`
    read.
    """

    core: int
    value: HostTime
    applied: Offset


@dataclass(frozen=True, slots=True)
class DecrementerKept:
    """A vCPU's decrementer was kept as the host time at which it expires."""

    vcpu: int
    expiry: HostTime


@dataclass(frozen=True, slots=True)
class DispatchLogged:
    """A dispatch of a vCPU was written to its dispatch trace log, under guest time."""

    vcpu: int
    timebase: GuestTime


@dataclass(frozen=True, slots=True)
class TimebaseReloaded:
    """The timebase had failed, as `errors` say, and was loaded from the host's clock: it is `value`."""

    core: int
    errors: Tfmr
    value: HostTime


Event: TypeAlias = (
    TimebaseRead
    | Wrapped
    | Tbu40Written
    | SwitchBreached
    | OffsetApplied
    | SecondaryLetIn
    | ThreadOut
    | HostTimeRestored
    | DecrementerKept
    | DispatchLogged
    | TimebaseReloaded
)

Observer: TypeAlias = Callable[[Event], None]
