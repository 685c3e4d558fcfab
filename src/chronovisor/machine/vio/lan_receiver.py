"""How frames that come get into a guest's buffers, and the guest learns of them."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, NamedTuple

from chronovisor.machine.vio.dma_window import Access, DmaError, DmaWindow, Run
from chronovisor.machine.vio.lan_buffers import MOST_BUFFERS, Buffers
from chronovisor.memory.word_queue import PLACES, WordQueue
from chronovisor.papr.hcalls import LAN_HEADER

ENTRY_SIZE: Final = 16
"""Bytes of an entry of the receive queue."""
_ENTRY: Final = struct.Struct(">I8s")
_FLAGS: Final = struct.Struct(">I")
_TOGGLE, _VALID = 0x8000_0000, 0x4000_0000
"""Flags of an entry. The toggle is 1 in the first pass through the queue."""
_DROPPED_AT: Final = 4096 - 8
"""Where the buffer list's page has the number of frames for which there was no buffer."""
_PATIENCE: Final = 1.0
"""Seconds for which the first of the frames waits for a buffer: a guest on a busy machine may be slow."""
_MOST_WAITING: Final = 4 << 20
"""Bytes of frames that wait for buffers; what is beyond them waits at the other end."""
_WRITE: Final = int(Access.WRITE)


class ReceiveQueue(NamedTuple):
    """Where the queue is, the offset of the entry that is next, and the toggle; all 0 if there is none."""

    address: int = 0
    size: int = 0
    next: int = 0
    toggle: bool = False


class Receiver:
    """A card's buffers, its receive queue, and the frames that wait. One thread at a time uses it.

    `given` has buffers that a guest has handed over without a call of `add`. It is closed while frames wait,
    so that a buffer that ends the wait comes by `add`.
    """

    def __init__(self, window: DmaWindow, given: WordQueue, interrupt: Callable[[], None]) -> None:
        self._window = window
        self._given = given
        self._interrupt = interrupt
        self.going = False
        """Whether the guest's memory may be touched."""
        self._waiting: deque[bytes] = deque()
        self._waiting_size = 0
        """In bytes."""
        self._asked = 0.0
        """Since when the first of them waits, or no buffer has come."""
        self.unregister()

    def unregister(self) -> None:
        """Have no queue and no buffers."""
        self.buffer_list = 0
        """The I/O address of the page that the guest gave for it."""
        self.queue = ReceiveQueue()
        self.dropped = 0
        """Frames for which there was no buffer."""
        self._given.close()
        self._given.take()
        self._buffers = Buffers()

    @property
    def waits(self) -> bool:
        """Whether frames wait for buffers."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so many wait that no more may come."""
        return self._waiting_size > _MOST_WAITING

    # Buffers

    def add(self, word: int) -> bool:
        """Have another buffer; False if there is no queue, or there are too many."""
        self._collect()
        return self.queue.size > 0 and self._buffers.add(word)

    def free(self, size: int) -> bool:
        """Give a buffer of that size back; False if there is none."""
        self._collect()
        return self._buffers.take(size, size) is not None

    def buffers(self) -> tuple[int, ...]:
        """Return the descriptors of all buffers."""
        self._collect()
        return self._buffers.words()

    def _collect(self) -> bool:
        """Take the buffers that were given; whether there were any.

        The queue is closed in time, so only calls that several vCPUs make at one moment can be too many.
        """
        words = self._given.take()
        for word in words:
            self._buffers.add(word)
        return bool(words)

    def open(self) -> None:
        """Have buffers come without a call, unless there are very many."""
        if self.queue.size and len(self._buffers) <= MOST_BUFFERS - PLACES:
            self._given.open()
        else:
            self._given.close()

    # Frames

    def hand_over(self, frames: Sequence[memoryview] = ()) -> None:
        """Put the frames that wait, and then these, into buffers. Those for which there is none wait.

        The first of them is lost if no buffer has come for too long.
        """
        for frame in frames:
            if not self._waiting:
                self._asked = monotonic()
            self._waiting.append(bytes(frame))
            self._waiting_size += len(frame)
        self.open()
        self._collect()
        handed = 0
        while self._waiting and self.going:
            first = self._waiting[0]
            buffer = self._buffers.take(len(first) + LAN_HEADER)
            if buffer is None and self.queue.size:
                # Closed first: a buffer that comes after the look into the queue is then told of.
                self._given.close()
                if self._collect():
                    self.open()
                    continue
                if monotonic() - self._asked < _PATIENCE:
                    break
            self._waiting.popleft()
            self._waiting_size -= len(first)
            try:
                if buffer is not None:
                    self._fill(buffer.address, first)
                    handed += 1
                elif self.queue.size:
                    self.dropped += 1
                    self._window.write(self.buffer_list + _DROPPED_AT, struct.pack(">Q", self.dropped))
            except DmaError:
                # The guest has taken away what it had given.
                continue
            if handed == 1:
                # The guest takes the first of many while the others come.
                self._interrupt()
        if handed:
            self._asked = monotonic()
            self._interrupt()

    def _fill(self, address: int, frame: bytes) -> None:
        window = self._window
        correlator = window.read(address, LAN_HEADER)
        window.write(address + LAN_HEADER, frame)
        where, size, at, toggle = self.queue
        # An entry lies in one page.
        entry = Run(window.real(where + at, ENTRY_SIZE, _WRITE), ENTRY_SIZE)
        view = window.view(entry)
        _ENTRY.pack_into(view, _FLAGS.size, len(frame), correlator)
        # Last: the guest may look at any time.
        _FLAGS.pack_into(view, 0, _VALID | LAN_HEADER | (_TOGGLE if toggle else 0))
        window.wrote((entry,))
        behind = at + ENTRY_SIZE
        self.queue = ReceiveQueue(where, size, behind % size, toggle ^ (behind == size))
