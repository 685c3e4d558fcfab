"""The machine's power button: a guest is told by an interrupt that its owner wants it to shut down, and asks
RTAS what the interrupt was about (check-exception).

Source: LoPAR 1.1, chapter 10: "Error and Event Notification" (event masks), "RTAS Error/Event Return Format"
and "Platform Event Log Format, Version 6"; the event is an environmental and power warning, EPOW.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import Final

from chronovisor.kvm.ids import XicsSource
from chronovisor.machine.interrupt_sources import POWER_WARNING, InterruptSources

EPOW_MASK: Final = 0x4000_0000
"""The bit of an event mask that asks for power warnings."""
_VERSION_6, _EVENT, _NOT_RECOVERED, _EXTENDED, _EPOW = 6, 1, 2, 1, 0x40
_VALID, _BIG_ENDIAN, _POWERPC_FORMAT, _PLATFORM_EVENT = 0x80, 0x02, 0x80, 0x0E
_SYSTEM_SHUTDOWN, _NORMAL, _SYSTEM_WIDE = 3, 1, 0
_CREATOR: Final = b"H"
"""The hypervisor."""
_ASKED: Final = XicsSource.PENDING | XicsSource.PRESENTED


class PowerButton:
    """The button of one machine."""

    def __init__(self, interrupts: InterruptSources) -> None:
        self._interrupts = interrupts
        self._pressed = False
        self.on_press: Callable[[], None] = lambda: None
        """Told when it was pressed."""

    def press(self) -> None:
        """Tell the guest to shut down; one that does not listen goes on. From any thread."""
        self._pressed = True
        self._interrupts.pulse(POWER_WARNING)
        self.on_press()

    def event(self, now: datetime) -> bytes | None:
        """Return the event's log, once for each time that the button was pressed; None if it was not."""
        if not self._pressed:
            return None
        self._pressed = False
        return _log(now)

    def follow_interrupts(self) -> None:
        """Know by the interrupt sources' state whether it was pressed: the guest has come from elsewhere."""
        states = dict(self._interrupts.states)
        self._pressed = bool(states.get(POWER_WARNING, 0) & _ASKED)


def _section(name: bytes, version: int, body: bytes) -> bytes:
    return struct.pack(">2sHBBH", name, 8 + len(body), version, 0, 0) + body


def _decimal(number: int) -> int:
    """Two digits as BCD."""
    return number // 10 << 4 | number % 10


def _log(now: datetime) -> bytes:
    """The event as RTAS returns it: the fixed part, then the extended log with its sections."""
    date = (now.year // 100, now.year % 100, now.month, now.day)
    time = (now.hour, now.minute, now.second, now.microsecond // 10_000)
    stamp = bytes(_decimal(part) for part in (*date, *time))
    sections = (
        # The private header: when, by whom, how many sections, and the log's number.
        _section(b"PH", 1, stamp + stamp + _CREATOR + struct.pack(">2xB4x8sII", 3, b"", 0, 0)),
        # The user header: nothing to act on but the event itself.
        _section(b"UH", 1, bytes(16)),
        _section(b"EP", 2, struct.pack(">BBBxQ", _SYSTEM_SHUTDOWN, _NORMAL, _SYSTEM_WIDE, 0)),
    )
    extended = struct.pack(
        ">BxBx8x4s", _VALID | _BIG_ENDIAN, _POWERPC_FORMAT | _PLATFORM_EVENT, b"IBM"
    ) + b"".join(sections)
    fixed = struct.pack(
        ">BBBBI", _VERSION_6, _EVENT << 5 | _NOT_RECOVERED << 3 | _EXTENDED << 2, 0, _EPOW, len(extended)
    )
    return fixed + extended
