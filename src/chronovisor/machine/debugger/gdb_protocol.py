"""The packets of gdb's remote serial protocol: "$", data, "#", two digits of a sum.

Source: the appendix "Remote Protocol" of gdb's manual. What runs over the length limit is dropped, not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PACKET_SIZE: Final = 0x4000
"""The most bytes of a packet, its frame included."""
ACKNOWLEDGED: Final = b"+"
NOT_ACKNOWLEDGED: Final = b"-"
INTERRUPT: Final = 0x03
"""The byte that a debugger sends for Ctrl-C."""
_START, _END, _ESCAPE = b"$"[0], b"#"[0], b"}"[0]
_ESCAPED: Final = frozenset(b"$#}*")
_ESCAPE_BIT: Final = 0x20
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Packet:
    """A request, unescaped."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ctrl-C: stop the guest."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the last packet again."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A packet with a wrong sum, or one that is too long."""


Event = Packet | Interrupt | Repeat | Damaged


def frame(data: bytes) -> bytes:
    """Return the packet that carries this data."""
    escaped = bytearray()
    for byte in data:
        if byte in _ESCAPED:
            escaped += bytes((_ESCAPE, byte ^ _ESCAPE_BIT))
        else:
            escaped.append(byte)
    return b"$%b#%02x" % (bytes(escaped), sum(escaped) & 0xFF)


class Reader:
    """Takes bytes as they come and finds what they say; bytes that say nothing are ignored."""

    def __init__(self) -> None:
        self._packet: bytearray | None = None
        self._digits: bytes | None = None

    def feed(self, received: bytes) -> Iterator[Event]:
        """Return what ended within these bytes."""
        for byte in received:
            if self._digits is not None:
                self._digits += bytes((byte,))
                if len(self._digits) == 2:
                    yield self._ended()
            elif byte == _START:
                # A new packet, even if the last one never ended.
                self._packet = bytearray()
            elif self._packet is not None:
                if byte == _END:
                    self._digits = b""
                elif len(self._packet) <= PACKET_SIZE:
                    self._packet.append(byte)
            elif byte == INTERRUPT:
                yield Interrupt()
            elif byte == NOT_ACKNOWLEDGED[0]:
                yield Repeat()

    def _ended(self) -> Event:
        packet, digits = self._packet or b"", self._digits or b""
        self._packet = self._digits = None
        intact = set(digits) <= _HEX and int(digits, 16) == sum(packet) & 0xFF
        return Packet(_unescaped(packet)) if intact and len(packet) <= PACKET_SIZE else Damaged()


def _unescaped(data: bytes | bytearray) -> bytes:
    plain, escaped = bytearray(), False
    for byte in data:
        if byte == _ESCAPE and not escaped:
            escaped = True
        else:
            plain.append(byte ^ _ESCAPE_BIT if escaped else byte)
            escaped = False
    return bytes(plain)
