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
    from chronovisor.kvm.errors import KvmError
    from chronovisor.kvm.registers import RegisterError
    from chronovisor.kvm.statistics import Statistics
    from chronovisor.machine.console import Console
    from chronovisor.machine.ending import EndReason, GuestEnd
    from chronovisor.machine.errors import ImageError, MachineError, OutputLostError
    from chronovisor.machine.guest import Guest
    from chronovisor.machine.host import Host
    from chronovisor.memory.guest_memory import AddressError
    from chronovisor.migration.errors import (
        LinkLostError,
        MoveCancelledError,
        MoveError,
        MoveRefusedError,
        MoveUndecidedError,
        NotConvergingError,
        RestorationError,
        StreamError,
    )
    from chronovisor.migration.move import move
    from chronovisor.migration.snapshot import NotSavedError, snapshot
    from chronovisor.migration.snapshot_format import SnapshotError
    from chronovisor.migration.snapshot_restore import restore
    from chronovisor.timebase.clock import RealTime, VirtualTime
    from chronovisor.timebase.handover import HandoverError
    from chronovisor.timebase.policy import PolicyError, TimePolicy
    from chronovisor.timebase.record import MoveRecord
    from chronovisor.timebase.types import FREQUENCY, GuestTime, HostTime, Offset, Ticks

__version__: str

_HOMES = {
    "kvm.errors": ("KvmError",),
    "kvm.registers": ("RegisterError",),
    "kvm.statistics": ("Statistics",),
    "machine.console": ("Console",),
    "machine.ending": ("EndReason", "GuestEnd"),
    "machine.errors": ("ImageError", "MachineError", "OutputLostError"),
    "machine.guest": ("Guest",),
    "machine.host": ("Host",),
    "memory.guest_memory": ("AddressError",),
    "migration.errors": (
        "LinkLostError",
        "MoveCancelledError",
        "MoveError",
        "MoveRefusedError",
        "MoveUndecidedError",
        "NotConvergingError",
        "RestorationError",
        "StreamError",
    ),
    "migration.move": ("move",),
    "migration.snapshot": ("NotSavedError", "snapshot"),
    "migration.snapshot_format": ("SnapshotError",),
    "migration.snapshot_restore": ("restore",),
    "timebase.clock": ("RealTime", "VirtualTime"),
    "timebase.handover": ("HandoverError",),
    "timebase.policy": ("PolicyError", "TimePolicy"),
    "timebase.record": ("MoveRecord",),
    "timebase.types": ("FREQUENCY", "GuestTime", "HostTime", "Offset", "Ticks"),
}
"""The public names, by the module that defines them."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FREQUENCY",
    "AddressError",
    "Console",
    "EndReason",
    "Guest",
    "GuestEnd",
    "GuestTime",
    "HandoverError",
    "Host",
    "HostTime",
    "ImageError",
    "KvmError",
    "LinkLostError",
    "MachineError",
    "MoveCancelledError",
    "MoveError",
    "MoveRecord",
    "MoveRefusedError",
    "MoveUndecidedError",
    "NotConvergingError",
    "NotSavedError",
    "Offset",
    "OutputLostError",
    "PolicyError",
    "RealTime",
    "RegisterError",
    "RestorationError",
    "SnapshotError",
    "Statistics",
    "StreamError",
    "Ticks",
    "TimePolicy",
    "VirtualTime",
    "move",
    "restore",
    "snapshot",
]


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used, so that a command pays only for the modules that it needs.
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
