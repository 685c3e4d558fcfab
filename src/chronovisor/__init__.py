"""Chronovisor: a hypervisor for 64-bit Power guests that keep their own time.

>>> import chronovisor as cv
>>> time = cv.VirtualTime()
>>> home, away = cv.Host(clock=time), cv.Host(clock=time, tb_origin=10**18)
>>> guest = home.boot("hello-le.elf")
>>> guest.set("TB_OFFSET", 0x1234567)
>>> hex(guest.get("TB_OFFSET"))
'0x2000000'
>>> guest, record = cv.move(guest, away)
>>> guest.run().message
'the guest powered off'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chronovisor.machine.guest import Guest, GuestEnd
    from chronovisor.machine.host import Host
    from chronovisor.migration.move import move
    from chronovisor.migration.snapshot import snapshot
    from chronovisor.migration.snapshot_restore import restore
    from chronovisor.timebase.clock import RealTime, VirtualTime
    from chronovisor.timebase.policy import TimePolicy
    from chronovisor.timebase.record import MoveRecord
    from chronovisor.timebase.types import FREQUENCY, GuestTime, HostTime, Offset, Ticks

__all__ = [
    "FREQUENCY",
    "Guest",
    "GuestEnd",
    "GuestTime",
    "Host",
    "HostTime",
    "MoveRecord",
    "Offset",
    "RealTime",
    "Ticks",
    "TimePolicy",
    "VirtualTime",
    "move",
    "restore",
    "snapshot",
]

_HOMES = {
    "Guest": "machine.guest",
    "GuestEnd": "machine.guest",
    "Host": "machine.host",
    "move": "migration.move",
    "restore": "migration.snapshot_restore",
    "snapshot": "migration.snapshot",
    "RealTime": "timebase.clock",
    "VirtualTime": "timebase.clock",
    "MoveRecord": "timebase.record",
    "TimePolicy": "timebase.policy",
    **dict.fromkeys(("FREQUENCY", "GuestTime", "HostTime", "Offset", "Ticks"), "timebase.types"),
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a command that needs one module does not pay for all.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
