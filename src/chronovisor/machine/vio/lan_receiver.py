"""How frames that come get into a guest's buffers, and the guest learns of them."""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, NamedTuple

from chronovisor.machine.vio.dma_window import Access, DmaError, DmaWindow
from chronovisor.machine.vio.lan_buffers import MOST_BUFFERS, Buffers
from chronovisor.machine.vio.lan_merging import SHORTEST_SEGMENT, Frame, Merged, merge
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.gate import MOST_LENT, Place
from chronovisor.memory.word_queue import PLACES, WordQueue
from chronovisor.papr.hcalls import LAN_HEADER
from chronovisor.papr.logical_lan import EntryFlag

ENTRY_SIZE: Final = 16
"""Bytes of an entry of the receive queue."""
_ENTRY: Final = struct.Struct(">I8s")
_FLAGS: Final = struct.Struct(">I")
_LARGE_HEADER: Final = 16
"""Bytes in front of a large frame: those in front of every frame, and the size of its segments."""
_SEGMENT_SIZE: Final = struct.Struct(">Q")
_DROPPED_AT: Final = PAGE_SIZE - 8
"""Where the buffer list's page has the number of frames for which there was no buffer."""
_PATIENCE: Final = 1.0
"""Seconds for which the first of the frames waits for a buffer: a guest on a busy machine may be slow."""
_MOST_WAITING: Final = 4 << 20
"""Bytes of frames that wait for buffers; what is beyond them waits at the other end."""
_FEW: Final = 32
"""Buffers that come while frames wait, before one wakes who hands over frames: that is for many at once."""
_OFTEN: Final = 16
"""Frames behind which the guest is interrupted while more are handed over."""
# Plain numbers: an IntFlag's operators are slow.
_TOGGLE, _VALID = int(EntryFlag.TOGGLE), int(EntryFlag.VALID)
_LARGE, _CHECKED = int(EntryFlag.LARGE), int(EntryFlag.CHECKED)
_WRITE: Final = int(Access.WRITE)
_BOTH: Final = int(Access.READ | Access.WRITE)


class ReceiveQueue(NamedTuple):
    """Where the queue is, the offset of the entry that is next, and the toggle; all 0 if there is none."""

    address: int = 0
    size: int = 0
    next: int = 0
    toggle: bool = False


class Receiver:
    """A card's buffers, its receive queue, and the frames that wait. One thread at a time uses it.

    `given` has buffers that a guest has handed over without a call of `add`. While frames wait it has room
    for a few, so that `add` is called when some have come.
    """

    def __init__(
        self, memory: GuestMemory, window: DmaWindow, given: WordQueue, interrupt: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._window = window
        self._given = given
        self._interrupt = interrupt
        self.going = False
        """Whether the guest's memory may be touched."""
        self.checked = False
        """Whether the guest is told that frames were looked at on the way."""
        self.merges = False
        """Whether the guest takes large frames that were made of others, which need to be `checked`."""
        self._waiting: deque[Frame] = deque()
        self._waiting_size = 0
        """In bytes."""
        self._asked = 0.0
        """Since when the first of them waits, or no buffer has come."""
        self._alone = 0
        """How many of the first frames cannot be merged."""
        self._handed = 0
        """How many frames were put into buffers, ever."""
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
        if not self.queue.size:
            # A call may have been under way while the guest gave up the buffers that it had handed over.
            return False
        for word in words:
            self._buffers.add(word)
        return bool(words)

    def open(self) -> None:
        """Have buffers come without a call, unless there are very many."""
        if self.queue.size and len(self._buffers) <= MOST_BUFFERS - PLACES:
            self._given.open()
        else:
            self._given.close()

    # Idle vCPUs

    def lend(self, words: memoryview) -> bool:
        """Leave the queue and some buffers to idle vCPUs, in the words of their gate; whether it has.

        Nothing else is called before `take_back`.
        """
        if not self.going or not self.queue.size or self._waiting:
            return False
        self._collect()
        lent = self._buffers.lend(MOST_LENT)
        address, size, following, toggle = self.queue
        words[Place.QUEUE], words[Place.QUEUE_SIZE] = address, size
        words[Place.NEXT], words[Place.TOGGLE] = following, toggle
        words[Place.FLAGS] = _VALID | LAN_HEADER | (_CHECKED if self.checked else 0)
        words[Place.LENT], words[Place.ADDED], words[Place.USED] = len(lent), 0, 0
        words[Place.BUFFER : Place.BUFFER + len(lent)] = array("Q", lent)
        return bool(lent)

    def take_back(self, words: memoryview) -> None:
        """Have again what was lent, as the vCPUs have left it; nothing if nothing was."""
        if lent := words[Place.LENT]:
            left = range(words[Place.USED], lent + words[Place.ADDED])
            self._buffers.put_back([words[Place.BUFFER + number % MOST_LENT] for number in left])
            following, toggle = words[Place.NEXT], bool(words[Place.TOGGLE])
            self.queue = self.queue._replace(next=following, toggle=toggle)
            words[Place.LENT] = 0

    # Frames

    def hand_over(self, frames: Sequence[memoryview] = ()) -> None:
        """Put the frames that wait, and then these, into buffers. Those for which there is none wait.

        The first of them is lost if no buffer has come for too long.
        """
        self.open()
        self._collect()
        waiting, handed = self._waiting, self._handed
        if not waiting:
            self._asked = monotonic()
        waiting.extend(frames)
        self._waiting_size += sum(map(len, frames))
        self._alone = 0
        while waiting and (count := self._dealt_with()):
            for _ in range(count):
                self._waiting_size -= len(waiting.popleft())
        for place in range(max(0, len(waiting) - len(frames)), len(waiting)):
            # What has just come is valid for this call alone.
            waiting[place] = bytes(waiting[place])
        if self._handed != handed:
            self._asked = monotonic()
            self._interrupt()

    def _dealt_with(self) -> int:
        """Put the first frames into a buffer, or lose the first; 0 if it has to wait, else how many."""
        if not self.going:
            return 0
        if not self.queue.size:
            return 1
        frame = self._waiting[0]
        count, segment = 1, 0
        if merged := self._merged():
            count, frame, segment = merged
        header = _LARGE_HEADER if segment else LAN_HEADER
        address = self._buffers.take(header + len(frame))
        while address is None:
            # First this: of the buffers that come after the look into the queue, a few do not wake anybody.
            self._given.open(_FEW)
            if not self._collect():
                break
            self.open()
            address = self._buffers.take(header + len(frame))
        try:
            if address is not None:
                self._fill(address, frame, segment)
            elif monotonic() - self._asked < _PATIENCE:
                return 0
            else:
                self.dropped += 1
                self._window.write(self.buffer_list + _DROPPED_AT, struct.pack(">Q", self.dropped))
        except DmaError:
            # The guest has taken away what it had given.
            pass
        return count

    def _merged(self) -> Merged | None:
        """The large frame that the first frames make, if there is a buffer for it and it is worth it."""
        if self._alone:
            self._alone -= 1
            return None
        waiting = self._waiting
        if not self.merges or len(waiting) == 1 or len(waiting[0]) < SHORTEST_SEGMENT:
            return None
        rooms = [size - _LARGE_HEADER for size in self._buffers.largest]
        if not rooms:
            return None
        merged = merge(waiting, rooms)
        if merged.segment:
            return merged
        self._alone = merged.frames - 1
        return None

    def _fill(self, address: int, frame: Frame, segment: int) -> None:
        window, data = self._window, self._memory.data
        size, flags = len(frame), _VALID | LAN_HEADER
        behind = address % PAGE_SIZE + LAN_HEADER + size
        if segment:
            correlator = window.read(address, LAN_HEADER)
            window.write(address + LAN_HEADER, b"".join((_SEGMENT_SIZE.pack(segment), frame)))
            flags = _VALID | _LARGE | _LARGE_HEADER
        elif behind <= PAGE_SIZE:
            start = window.real(address, LAN_HEADER + size, _BOTH)
            at = start + LAN_HEADER
            correlator = data[start:at]
            self._memory.view[at : at + size] = frame
            window.wrote_at(at, size)
        else:
            correlator = window.read(address, LAN_HEADER)
            window.write(address + LAN_HEADER, frame)
        if self.checked:
            flags |= _CHECKED
        where, length, place, toggle = self.queue
        # An entry lies in one page.
        entry = window.real(where + place, ENTRY_SIZE, _WRITE)
        _ENTRY.pack_into(data, entry + _FLAGS.size, size, correlator)
        # Last: the guest may look at any time.
        _FLAGS.pack_into(data, entry, flags | (_TOGGLE if toggle else 0))
        window.wrote_at(entry, ENTRY_SIZE)
        place += ENTRY_SIZE
        self.queue = ReceiveQueue(where, length, place % length, toggle ^ (place == length))
        self._handed += 1
        if segment or self._handed % _OFTEN == 1:
            # The guest takes the first ones while the others come.
            self._interrupt()
