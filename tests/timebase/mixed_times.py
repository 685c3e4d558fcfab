"""What the type checker must refuse: `make lint` fails if one of these lines becomes legal, because its
`type: ignore` is then unused. Nothing here is executed.
"""

from __future__ import annotations

from chronovisor.timebase.clock import HostClock, TickSource
from chronovisor.timebase.decrementer import Decrementer
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import GuestTime, HostTime, Offset, SourceTime


def source_time_is_neither_host_nor_guest_time(
    source: TickSource, clock: HostClock, dec: Decrementer, guest: GuestTime
) -> None:
    """A deadline by the tick source is not made of another kind of time, nor of any number."""
    source.sleep_until(clock.now())  # type: ignore[arg-type]
    source.sleep_until(clock.now().value)  # type: ignore[arg-type]
    source.sleep_until(5)  # type: ignore[arg-type]
    dec.write_deadline(guest.value, SourceTime(0), 32)  # type: ignore[arg-type]
    clock.at(guest.value)  # type: ignore[arg-type]
    clock.ticks_at(guest)  # type: ignore[arg-type]
    _ = source.ticks() - clock.now()  # type: ignore[operator]


def host_time_is_not_guest_time(host: HostTime, guest: GuestTime, offset: Offset) -> None:
    """The two mix only through an offset."""
    _ = host - guest  # type: ignore[operator]
    _ = guest + offset  # type: ignore[operator]


def an_expiry_needs_the_hosts_timebase(dec: Decrementer, timebase: CoreTimebase) -> None:
    """`Decrementer.expiry` takes the witness that T is the host's, and no timebase without it."""
    dec.expiry(timebase, 32)  # type: ignore[arg-type]
    dec.expiry(timebase.load_from_tod(), 32)
