"""A network card, `IBM,l-lan` (LoPAR 1.1, "Interpartition Logical LAN").

The guest hands buffers to the card by H_ADD_LOGICAL_LAN_BUFFER. A frame goes into the smallest one that it
fits into, then an entry of 16 bytes into the guest's receive queue, then an interrupt. Frames of the guest's
come by H_SEND_LOGICAL_LAN, in up to six pieces, and go straight from guest memory to the other end.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple

from chronovisor.machine.errors import MachineError
from chronovisor.machine.network import LARGEST_FRAME, Link, LinkEndedError
from chronovisor.machine.vio.device import Surroundings, VioDevice
from chronovisor.machine.vio.dma_window import Access, DmaError, Mapped, Run
from chronovisor.machine.vio.lan_buffers import Buffers, Descriptor
from chronovisor.papr.hcalls import Status

PIECES: Final = 6
"""Of a frame that the guest sends."""
_HEADER: Final = 8
"""Bytes in front of a frame in its buffer: what the guest finds the buffer again by."""
_ENTRY: Final = struct.Struct(">I8s")
_FLAGS: Final = struct.Struct(">I")
_ENTRY_SIZE: Final = 16
_TOGGLE, _VALID = 0x8000_0000, 0x4000_0000
"""Flags of an entry of the receive queue. The toggle is 1 in the first pass through the queue."""
_PAGE: Final = 4096
_DROPPED_AT: Final = _PAGE - 8
"""Where the buffer list's page has the number of frames for which there was no buffer."""
_SHORTEST: Final = 14
_PATIENCE: Final = 1.0
"""Seconds for which the first of the frames waits for a buffer: a guest on a busy machine may be slow."""
_MOST_WAITING: Final = 4 << 20
"""Bytes of frames that wait for buffers; what is beyond them waits at the other end."""
_MULTICAST: Final = 0xF_0003
"""All flags of H_MULTICAST_CTRL."""


class ReceiveQueue(NamedTuple):
    """Where the queue is, the offset of the entry that is next, and the toggle; all 0 if there is none."""

    address: int = 0
    size: int = 0
    next: int = 0
    toggle: bool = False


@dataclass(frozen=True, slots=True)
class NetworkState:
    """A card as moves and snapshots carry it."""

    unit: int
    mac: bytes
    signals: bool
    window: tuple[Mapped, ...]
    buffer_list: int
    """The I/O address of the page that the guest gave for it."""
    queue: ReceiveQueue
    buffers: tuple[int, ...]
    """Descriptors, each of 64 bits."""
    dropped: int


class NetworkAdapter(VioDevice):
    """The card, and the link to the other end."""

    kind = "l-lan"
    device_type = "network"
    compatible = "IBM,l-lan"

    def __init__(self, unit: int, around: Surroundings, mac: bytes, link: Link) -> None:
        super().__init__(unit, around)
        self._mac = mac
        self._link = link
        self._sending = threading.Lock()
        self._up = True
        """Whether the other end is there."""
        self._changed = threading.Condition(threading.RLock())
        self._going = self._closing = False
        self._waiting: deque[bytes] = deque()
        """Frames for which the guest has had no buffer yet."""
        self._asked = 0.0
        """Since when the first of them waits."""
        self._waiting_size = 0
        """In bytes."""
        self._thread: threading.Thread | None = None
        self._unregister()

    def _unregister(self) -> None:
        self._buffer_list = 0
        self._queue = ReceiveQueue()
        self._buffers = Buffers()
        self._dropped = 0

    def properties(self) -> Mapping[str, bytes]:
        """Return what the driver asks for: the address, and that there are no filters of multicast."""
        return {"local-mac-address": self._mac, "ibm,mac-address-filters": bytes(4)}

    # Hypercalls

    def register(self, buffer_list: int, queue: int, filters: int, mac: int) -> Status:
        """H_REGISTER_LOGICAL_LAN."""
        where = Descriptor.of(queue)
        if buffer_list % _PAGE or filters % _PAGE:
            return Status.PARAMETER
        if not where.valid or not where.size or where.size % _ENTRY_SIZE or where.address % _ENTRY_SIZE:
            return Status.PARAMETER
        with self._changed:
            if self._queue.size:
                return Status.RESOURCE
            try:
                self.window.write(buffer_list, bytes(_PAGE))
                self.window.runs(where.address, where.size, Access.WRITE)
            except DmaError:
                return Status.PARAMETER
            self._buffer_list = buffer_list
            self._queue = ReceiveQueue(where.address, where.size, 0, True)
            self._mac = _address(mac)
            self._changed.notify_all()
        return Status.SUCCESS

    def free(self) -> Status:
        """H_FREE_LOGICAL_LAN: no buffer is used any more."""
        with self._changed:
            self._unregister()
            self._changed.notify_all()
        return Status.SUCCESS

    def add_buffer(self, word: int) -> Status:
        """H_ADD_LOGICAL_LAN_BUFFER."""
        buffer = Descriptor.of(word)
        if not buffer.valid or buffer.size <= _HEADER or buffer.address % 4:
            return Status.PARAMETER
        with self._changed:
            if not self._queue.size or not self._buffers.add(word):
                return Status.RESOURCE
            if self._waiting:
                self._hand_over()
        return Status.SUCCESS

    def free_buffer(self, size: int) -> Status:
        """H_FREE_LOGICAL_LAN_BUFFER: take a buffer of that size back."""
        with self._changed:
            return Status.NOT_FOUND if self._buffers.take(size, size) is None else Status.SUCCESS

    def send(self, words: Sequence[int], token: int) -> Status:
        """H_SEND_LOGICAL_LAN. A frame that the other end does not take is lost."""
        if token:
            # No call is ever left unfinished.
            return Status.PARAMETER
        frame: list[memoryview] = []
        try:
            for word in words[:PIECES]:
                piece = Descriptor.of(word)
                if not piece.valid:
                    break
                frame += map(self.window.view, self.window.runs(piece.address, piece.size, Access.READ))
        except DmaError:
            return Status.PARAMETER
        if not _SHORTEST <= sum(map(len, frame)) <= LARGEST_FRAME:
            return Status.PARAMETER
        with self._sending:
            return Status.SUCCESS if self._up and self._link.send(frame) else Status.DROPPED

    def multicast(self, flags: int) -> Status:
        """H_MULTICAST_CTRL: every frame for many is handed over, whatever filters the guest wishes."""
        return Status.PARAMETER if flags & ~_MULTICAST else Status.SUCCESS

    def change_address(self, mac: int) -> Status:
        """H_CHANGE_LOGICAL_LAN_MAC."""
        self._mac = _address(mac)
        return Status.SUCCESS

    # Frames that come

    def _listen(self) -> None:
        try:
            while not self._closing:
                frames = self._link.receive(_PATIENCE if self._waiting else None)
                with self._changed:
                    if not self._waiting:
                        self._asked = monotonic()
                    for frame in frames:
                        if self._is_for_guest(frame):
                            self._waiting.append(bytes(frame))
                            self._waiting_size += len(frame)
                    self._hand_over()
                    while self._waiting_size > _MOST_WAITING and not self._closing:
                        self._changed.wait(_PATIENCE)
                        self._hand_over()
        except LinkEndedError as error:
            self._up = False
            self.around.tell(f"network {self.unit:x}: {error}; the guest goes on without it")

    def _is_for_guest(self, frame: memoryview) -> bool:
        if len(frame) < _SHORTEST:
            return False
        return bool(frame[0] & 1) or frame[: len(self._mac)] == self._mac

    def _hand_over(self) -> None:
        """Put frames that wait into buffers; lose the first if no buffer has come for too long."""
        handed = False
        while self._waiting and self._going:
            frame = self._waiting[0]
            buffer = self._buffers.take(len(frame) + _HEADER)
            if buffer is None and self._queue.size and monotonic() - self._asked < _PATIENCE:
                break
            self._waiting.popleft()
            self._waiting_size -= len(frame)
            try:
                if buffer is not None:
                    self._fill(buffer.address, frame)
                    handed = True
                elif self._queue.size:
                    self._dropped += 1
                    self.window.write(self._buffer_list + _DROPPED_AT, struct.pack(">Q", self._dropped))
            except DmaError:
                # The guest has taken away what it had given.
                pass
        if handed:
            self._asked = monotonic()
            self.interrupt()
        self._changed.notify_all()

    def _fill(self, address: int, frame: bytes) -> None:
        correlator = self.window.read(address, _HEADER)
        self.window.write(address + _HEADER, frame)
        where, size, at, toggle = self._queue
        # An entry lies in one page.
        entry = Run(self.window.real(where + at, _ENTRY_SIZE, Access.WRITE), _ENTRY_SIZE)
        view = self.window.view(entry)
        _ENTRY.pack_into(view, _FLAGS.size, len(frame), correlator)
        # Last: the guest may look at any time.
        _FLAGS.pack_into(view, 0, _VALID | _HEADER | (_TOGGLE if toggle else 0))
        self.window.wrote((entry,))
        behind = at + _ENTRY_SIZE
        self._queue = ReceiveQueue(where, size, behind % size, toggle ^ (behind == size))

    # Its life

    def reset(self) -> None:
        """Be as when the machine is switched on; the link stays."""
        super().reset()
        with self._changed:
            self._unregister()

    def pause(self) -> None:
        """Hand over no frame until `resume`."""
        with self._changed:
            self._going = False

    def resume(self) -> None:
        """Hand over what comes."""
        with self._changed:
            self._going = True
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._listen, name=f"network {self.unit:x}", daemon=True
                )
                self._thread.start()
            self._hand_over()

    def take(self) -> None:
        """Nothing: each guest has a link of its own."""

    def flush(self) -> None:
        """Nothing is kept here."""

    def give_up(self) -> None:
        """Nothing, as for `take`."""

    def check_unchanged(self, state: NetworkState) -> None:
        """Nothing outside the guest is its own."""

    def describe(self) -> str:
        """Return what it is, for people."""
        return "a network"

    def close(self) -> None:
        """End the link."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._link.interrupt()
        if self._thread is not None:
            self._thread.join()
        self._link.close()

    def save(self) -> NetworkState:
        """Return its state, while it is paused."""
        return NetworkState(
            self.unit,
            self._mac,
            self.signals,
            self.window.save(),
            self._buffer_list,
            self._queue,
            self._buffers.words(),
            self._dropped,
        )

    def load(self, state: NetworkState) -> None:
        """Go on from a saved state; ValueError if it makes no sense."""
        if not isinstance(state, NetworkState):
            raise MachineError("a network is attached here in the place of another device of the guest's")
        address, size, following, _ = state.queue
        in_entries = not any(number % _ENTRY_SIZE for number in (address, size, following))
        is_queue = in_entries and following < max(size, 1)
        if not is_queue or len(state.mac) != len(self._mac):
            raise ValueError("a network's state makes no sense")
        self._unregister()
        self.window.load(state.window)
        self._mac, self.signals, self._dropped = state.mac, state.signals, state.dropped
        self._buffer_list, self._queue = state.buffer_list, state.queue
        for word in state.buffers:
            if self.add_buffer(word) != Status.SUCCESS:
                raise ValueError(f"a network's buffer {word:#x} makes no sense")


def _address(word: int) -> bytes:
    return (word & ((1 << 48) - 1)).to_bytes(6, "big")
