"""A device's gate: the words by which hypercalls serve what a guest asks of the device, while it is open.

They do so without the interpreter's lock, one at a time: who enters makes BUSY 1 in one step, looks whether
the gate is open, and makes BUSY 0 again at the end. The device closes the gate before it does anything
itself.
"""

from __future__ import annotations

import threading
import time
from enum import IntEnum
from typing import Final


class Place(IntEnum):
    """The numbers of the words."""

    BUSY = 0
    """1 while a hypercall uses the others."""
    OPEN = 1
    """Whether hypercalls may."""
    WINDOW = 2
    """The number of the device's DMA window."""
    SOURCE = 3
    """That of its interrupt source."""
    DESCRIPTOR = 4
    """Of the file that is the disk, or of the connection to the network's other end."""
    # A disk's.
    SECTORS = 5
    WRITES = 6
    """Whether hypercalls write, too."""
    QUEUE = 7
    """The I/O address of the guest's queue; then its bytes, and the offset of the entry that is next."""
    QUEUE_SIZE = 8
    NEXT = 9
    # A network's.
    PREFIXED = 10
    """Whether frames are sent behind their length, as 4 bytes."""
    CUT = 11
    """Set if a part of a frame was sent: the gate is closed then."""
    # Those of the gate by which vCPUs in H_CEDE receive a network's frames: also WINDOW to NEXT.
    UNIT = 12
    """The card's unit address."""
    WATCH = 13
    """The descriptor of the epoll instance by which the card's thread waits for frames."""
    LISTENER = 14
    """1 while a vCPU waits in the thread's place."""
    WATCHED = 15
    """Whether the thread is told of frames at once. If not, and no vCPU waits, ALARM tells it to look."""
    ALARM = 16
    """The descriptor of a timer (timerfd) for which the thread waits, too."""
    TOGGLE = 17
    """1 in the queue's first pass, and the flags of its entries without that."""
    FLAGS = 18
    ADDRESS = 19
    """The card's address on the network, 48 bits."""
    LENT = 20
    """How many buffers were lent, how many of that size the guest has handed over since, in place of used
    ones, and how many were used.
    """
    ADDED = 21
    USED = 22
    BUFFER = 23
    """The first of the places of buffers, which are used in turns."""


MOST_LENT: Final = 64
"""Buffers: the places that there are, a power of two."""
WORDS: Final = len(Place) - 1 + MOST_LENT
"""Words of a gate."""


class Gate:
    """The device's side. `words` has a word for each `Place`. It is closed at first."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self._ordering = threading.Lock()

    def open(self) -> None:
        """Let hypercalls serve the guest. Who calls this is the one who closes it."""
        self.words[Place.OPEN] = 1

    def close(self) -> None:
        """Return when no hypercall uses the gate, and let none enter."""
        words = self.words
        if words[Place.OPEN]:
            words[Place.OPEN] = 0
            # Taking a lock orders this thread's accesses: a hypercall that comes later sees the gate closed.
            with self._ordering:
                pass
        while words[Place.BUSY]:
            time.sleep(0)
