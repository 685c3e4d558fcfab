"""The file of a trace: a thread writes to it what recorders have handed on, while guests run."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chronovisor.report.trace.moves import MoveRecorder
from chronovisor.report.trace.recorder import GuestRecorder, Sink
from chronovisor.timebase.clock import HostClock, TickSource

if TYPE_CHECKING:
    from chronovisor.report.trace.packets import Packets

_BETWEEN_WRITES: Final = 0.1
"""Seconds from one look for events to the next."""
LARGEST: Final = 1 << 30
"""Bytes: a trace that would become larger ends."""
_PACKET_TAG: Final = b"\x0a"
"""Field 1 of the message `Trace`, which repeats: a packet with its length."""


class NoPerfettoError(Exception):
    """The package that knows the format is not installed."""

    def __init__(self) -> None:
        super().__init__("the package perfetto is not installed: pip install 'chronovisor[traces]'")


def packets_for(source: TickSource) -> Packets:
    """Return what makes packets; NoPerfettoError if nothing can."""
    try:
        from chronovisor.report.trace.packets import Packets
    except ModuleNotFoundError as error:
        raise NoPerfettoError from error
    return Packets(source)


class TraceFile:
    """A trace that is written to `path`, of guests on hosts with this source of ticks.

    If the file cannot be written any further, `lost` is told why and the trace ends there; guests go on.
    Raises OSError if the file cannot be created, NoPerfettoError without the package.
    """

    def __init__(self, path: Path, source: TickSource, lost: Callable[[Exception], None]) -> None:
        self._packets = packets_for(source)
        self._lost = lost
        self.sink = Sink()
        self.moves = MoveRecorder(self.sink, source)
        """Told of the moves of this process."""
        self._guests: list[GuestRecorder] = []
        self._file = path.open("wb")
        self._written = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="trace", daemon=True)
        self._thread.start()

    def guest(self, clock: HostClock, name: str) -> GuestRecorder:
        """Return the recorder of a guest that comes into the trace."""
        self._guests.append(recorder := GuestRecorder(self.sink, clock, name))
        return recorder

    def close(self) -> None:
        """Write what is left, and close the file. No guest may run any more."""
        for guest in self._guests:
            guest.close()
        self.moves.close()
        self._ended.set()
        self._thread.join()

    def _write_all(self) -> None:
        try:
            with self._file:
                self._write(self._packets.beginning())
                while not self._ended.wait(_BETWEEN_WRITES):
                    self._write_waiting()
                self._write_waiting()
        except Exception as error:
            # A mistake of ours, too, costs the trace alone.
            self.sink.off = True
            self.sink.events.clear()
            self._lost(error)

    def _write_waiting(self) -> None:
        events = self.sink.events
        self._write(self._packets.of(events.popleft()) for _ in range(len(events)))
        self._file.flush()

    def _write(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            data = _PACKET_TAG + _varint(len(packet)) + packet
            self._written += len(data)
            if self._written > LARGEST:
                raise OSError(errno.EFBIG, f"it would have more than {LARGEST} bytes")
            self._file.write(data)


def _varint(number: int) -> bytes:
    """A number as the format has it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
