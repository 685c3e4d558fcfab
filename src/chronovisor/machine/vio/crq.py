"""A queue in guest memory through which a device sends messages of 16 bytes (LoPAR 1.1, "CRQ").

The guest reads entry after entry and clears the first byte of each, which is not 0 while it waits.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from chronovisor.machine.vio.dma_window import Access, DmaError, DmaWindow, Run
from chronovisor.memory.gate import Gate, Place

MESSAGE: Final = 16
"""Bytes."""
_GRANULE: Final = 4096
_LARGEST: Final = 1 << 20
"""Bytes that a queue can have. Linux has one of a page, 64 KiB at most."""
_BOTH: Final = int(Access.READ | Access.WRITE)


class Queue(NamedTuple):
    """Where the queue is, and the offset of the entry that is next; all 0 if there is none."""

    address: int = 0
    """An I/O address."""
    size: int = 0
    next: int = 0


class CommandQueue:
    """One device's; it has none until the guest registers it."""

    def __init__(self, window: DmaWindow, gate: Gate) -> None:
        self._window = window
        self._words = gate.words
        self._sending = threading.Lock()

    @property
    def queue(self) -> Queue:
        """As it is kept. Hypercalls send through it while the device's gate is open."""
        return Queue(*self._words[Place.QUEUE : Place.NEXT + 1])

    @queue.setter
    def queue(self, queue: Queue) -> None:
        self._words[Place.QUEUE], self._words[Place.QUEUE_SIZE], self._words[Place.NEXT] = queue

    @property
    def registered(self) -> bool:
        """Whether there is a queue."""
        return self._words[Place.QUEUE_SIZE] > 0

    def register(self, address: int, size: int) -> bool:
        """Have a queue from now on; False if it cannot be there. The device has none before."""
        queue = Queue(address, size)
        if not _makes_sense(queue):
            return False
        self.queue = queue
        return True

    def load(self, queue: Queue) -> None:
        """Have a queue that was saved, or none; ValueError if it makes no sense."""
        if queue != Queue() and not _makes_sense(queue):
            raise ValueError(f"a command queue at {queue.address:#x} of {queue.size} bytes makes no sense")
        self.queue = queue

    def free(self) -> None:
        """Have no queue."""
        self.queue = Queue()

    def send(self, message: bytes) -> bool:
        """Put a message into the queue; False if it is full, cannot be reached, or is not there.

        From any thread.
        """
        with self._sending:
            address, size, at = self.queue
            if not size:
                return False
            try:
                # An entry lies in one page.
                entry = self._window.real(address + at, MESSAGE, _BOTH)
            except DmaError:
                return False
            view = self._window.view(Run(entry, MESSAGE))
            if view[0]:
                return False
            view[1:] = message[1:]
            # Last: the guest may look at any time.
            view[0] = message[0]
            self._window.wrote_at(entry, MESSAGE)
            self._words[Place.NEXT] = (at + MESSAGE) % size
            return True


def _makes_sense(queue: Queue) -> bool:
    aligned = not (queue.address % _GRANULE or queue.size % _GRANULE or queue.next % MESSAGE)
    return aligned and 0 < queue.size <= _LARGEST and queue.next < queue.size
