"""Moves as between two processes, in one: over a socket, and each side with a virtual clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chronovisor.machine import Console, Guest, Host
from chronovisor.migration.address import UnixAddress
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.departure import Departure
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.pause import Pause
from chronovisor.migration.tcp import TimeLimits

RECORD = 64 << 20
LIMITS = TimeLimits(silence=30, start=0)


def send(
    guest: Guest,
    there: Callable[[], Host],
    directory: Path,
    record: int = RECORD,
    told: Callable[[str], None] = lambda line: None,
) -> Guest:
    """Move a guest to a host that is made for it; return the guest, which arrives paused."""
    arrived = carry(guest, there, directory, record, told)
    moved, _ = arrived.start()
    return moved


def carry(
    guest: Guest,
    there: Callable[[], Host],
    directory: Path,
    record: int = RECORD,
    told: Callable[[str], None] = lambda line: None,
) -> Arrived:
    terms = Terms(
        lambda header: there(), Console(), RememberedOutcomes(), 1 << 30, LIMITS, told, record=record
    )
    arrivals = Arrivals(UnixAddress(str(directory / "socket")), terms)
    departure = Departure(guest)
    departure.paused = Pause(guest, goes_on=True)
    try:
        departure.migrate(arrivals.address, LIMITS)
        arrived = arrivals.wait(30)
    finally:
        arrivals.close()
    assert arrived is not None
    return arrived
