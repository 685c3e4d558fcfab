"""Records of what happens to time at an entry and an exit: `--trace-switch` and the demonstration show them.

An `Observer` is called with each record, in order, but only after the switch that it is part of. An observer
inside the switch would see foreign time and would make the switch slow.
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
    """The switch read the core's timebase: 64-bit ticks, which are neither the host's nor the guest's time
    before the switch is done.
    """

    core: int
    value: int


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The low 24 bits wrapped between the reading and the check, so the upper 40 bits are written again."""

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
    """The switch took 2^24 ticks or more, so its wrap check is not sound; the timebase was loaded afresh."""

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
    """The decrementer of a vCPU was kept as the host time at which it expires."""

    vcpu: int
    expiry: HostTime


@dataclass(frozen=True, slots=True)
class DispatchLogged:
    """A dispatch of a vCPU was written to its dispatch trace log, under guest time."""

    vcpu: int
    timebase: GuestTime


@dataclass(frozen=True, slots=True)
class TimebaseReloaded:
    """The timebase had failed with `errors` and was loaded from the host's clock: it is `value`."""

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
