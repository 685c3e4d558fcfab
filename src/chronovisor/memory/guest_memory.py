"""Guest memory: one piece of real storage that starts at real address 0, and the log of its dirty pages.

Addresses are guest real addresses in bytes. Nothing here knows of translation, instructions or virtual CPUs.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
"""The granule of the dirty log, in bytes. A host with 64 KiB pages logs more coarsely; do not rely on it."""

_LITTLE: Final = {n: struct.Struct(f) for n, f in ((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q"))}
_BIG: Final = {n: struct.Struct(f) for n, f in ((1, ">B"), (2, ">H"), (4, ">I"), (8, ">Q"))}
LOADERS: Final = {
    True: {n: s.unpack_from for n, s in _LITTLE.items()},
    False: {n: s.unpack_from for n, s in _BIG.items()},
}
"""`LOADERS[little][size](memory.data, addr)[0]` is `GuestMemory.load` for callers that check the range."""
STORERS: Final = {
    True: {n: s.pack_into for n, s in _LITTLE.items()},
    False: {n: s.pack_into for n, s in _BIG.items()},
}
"""`STORERS[little][size](memory.data, addr, value)`; the caller checks the range and marks the page dirty."""

_COUNTERS: Final = {n: (s.unpack_from, s.pack_into, (1 << 8 * n) - 1) for n, s in _BIG.items()}


class AddressError(LookupError):
    """An access to a real address at which the guest has no memory."""

    def __init__(self, addr: int, size: int, memory_size: int) -> None:
        super().__init__(
            f"{size} byte(s) at real address {addr:#x} lie outside the guest's "
            f"{memory_size:#x} bytes of memory"
        )
        self.addr = addr
        self.size = size


class DirtyLog:
    """Which 4 KiB pages were written since the log was last taken."""

    __slots__ = ("on_take", "pages")

    def __init__(self, pages: int) -> None:
        self.pages = bytearray(pages)
        """One byte a page, 1 if the page is dirty. A fast store path sets `pages[addr >> 12] = 1`."""
        self.on_take: list[Callable[[], None]] = []
        """Called when pages were cleared and before their numbers are handed out. Who may store to a dirty
        page without marking it again ends that: on return such stores have been made, and the next one marks
        its page."""

    def mark(self, addr: int, size: int) -> None:
        """Mark every page of the `size` bytes at `addr`; nothing if `size` is 0."""
        if size:
            first, last = addr >> PAGE_SHIFT, (addr + size - 1) >> PAGE_SHIFT
            if first == last:
                self.pages[first] = 1
            else:
                self.pages[first : last + 1] = b"\x01" * (last + 1 - first)

    def take(self) -> list[int]:
        """The numbers of the dirty pages in rising order; the log is clear afterwards.

        Each page is cleared before its number is handed out and never after. A store by a vCPU that runs
        meanwhile is in this answer or in the next one: the vCPU marks its page when the store is done, or
        before it makes a number of stores, of which `on_take` awaits those that are under way.
        """
        pages = self.pages
        taken: list[int] = []
        first = pages.find(1)
        while first >= 0:
            behind = pages.find(0, first)
            behind = len(pages) if behind < 0 else behind
            pages[first:behind] = bytes(behind - first)
            taken += range(first, behind)
            first = pages.find(1, behind)
        for settle in self.on_take:
            settle()
        return taken


class GuestMemory:
    """`size` bytes of zeroed guest memory at real addresses 0 to `size - 1`; `size` is a multiple of 4 KiB.

    Raises ValueError for a size that is not a positive multiple of 4096 and MemoryError if the machine has
    not that much. Memory that was never touched costs nothing. The machine provides memory in large pages if
    it can: a guest's accesses are spread over more pages of 4 KiB than a machine's own TLB has.
    """

    __slots__ = ("atomic", "data", "dirty", "on_clear", "size", "view")

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            raise ValueError(f"guest memory of {size} bytes: it must be a positive multiple of {PAGE_SIZE}")
        self.size = size
        try:
            self.data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"this machine has no {size} bytes for the guest's memory") from error
        with suppress(OSError):  # Not every machine's kernel has large pages.
            self.data.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self.data)
        """All of memory as writable bytes. What is written through it is not logged: call `dirty.mark`."""
        self.dirty = DirtyLog(size >> PAGE_SHIFT)
        self.atomic = threading.RLock()
        """Held around a conditional store's comparison and store."""
        self.on_clear: list[Callable[[], None]] = []
        """Called after `clear`: what was derived from the memory's contents is forgotten."""

    def clear(self) -> None:
        """Make every byte 0, as when a machine is switched on. No vCPU may run."""
        self.data.madvise(mmap.MADV_DONTNEED)
        self.dirty.mark(0, self.size)
        for forget in self.on_clear:
            forget()

    def release(self) -> None:
        """Give the memory back to the machine, whoever still refers to it: every byte is 0 then."""
        self.data.madvise(mmap.MADV_DONTNEED)

    def _check(self, addr: int, size: int) -> None:
        if addr < 0 or size < 0 or addr + size > self.size:
            raise AddressError(addr, size, self.size)

    def read(self, addr: int, size: int) -> bytes:
        """`size` bytes from `addr`; AddressError if any lies outside."""
        self._check(addr, size)
        return self.data[addr : addr + size]

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at `addr` and log its pages; AddressError and nothing written if any lies outside."""
        size = len(data)
        self._check(addr, size)
        self.view[addr : addr + size] = data
        self.dirty.mark(addr, size)

    def about_to_store(self, addr: int, size: int) -> None:
        """Say what will be stored to by other means than this object's."""

    @property
    def unwatched(self) -> GuestMemory:
        """The same memory without watchpoints."""
        return self

    def load(self, addr: int, size: int, little: bool) -> int:
        """The unsigned integer of `size` bytes at `addr`, in either byte order; any size and alignment."""
        if addr < 0 or addr + size > self.size:
            raise AddressError(addr, size, self.size)
        unpack = LOADERS[little].get(size)
        if unpack is None:
            return int.from_bytes(self.data[addr : addr + size], "little" if little else "big")
        value: int = unpack(self.data, addr)[0]
        return value

    def store(self, addr: int, size: int, value: int, little: bool) -> None:
        """Store `value`, modulo 2^(8*size), at `addr` and log its page or pages; any alignment."""
        if addr < 0 or addr + size > self.size:
            raise AddressError(addr, size, self.size)
        pack = STORERS[little].get(size)
        value &= (1 << (size << 3)) - 1
        if pack is None:
            self.data[addr : addr + size] = value.to_bytes(size, "little" if little else "big")
        else:
            pack(self.data, addr, value)
        pages = self.dirty.pages
        pages[addr >> 12] = 1
        pages[(addr + size - 1) >> 12] = 1

    def add(self, addr: int, size: int, amount: int) -> None:
        """Add to the big-endian number of `size` bytes (1, 2, 4 or 8) at `addr`, modulo 2^(8*size), and log
        the page or pages that this changes. A load and a store of their own would take twice as long.
        """
        last, data = addr + size - 1, self.data
        if addr < 0 or last >= self.size:
            raise AddressError(addr, size, self.size)
        low, pages = data[last] + amount, self.dirty.pages
        if 0 <= low <= 0xFF:
            # Nothing carries, as most often if something is counted one by one: the other bytes stay.
            data[last] = low
        else:
            unpack, pack, mask = _COUNTERS[size]
            pack(data, addr, (unpack(data, addr)[0] + amount) & mask)
            pages[addr >> 12] = 1
        pages[last >> 12] = 1
