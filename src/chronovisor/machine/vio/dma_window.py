"""A device's window into guest memory: I/O addresses and the table that translates them.

The guest fills the table by hypercalls (LoPAR 1.1, "TCE hcall()s"). An entry (TCE) is for 4 KiB: a real
address, and whether the device may read or write there. A device reaches guest memory in no other way.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from enum import IntFlag
from itertools import pairwise
from typing import Final, NamedTuple

from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.guest_memory import PAGE_SHIFT
from chronovisor.memory.words import words

WINDOW_SIZE: Final = 1 << 28
"""Bytes of I/O addresses that each device has, from 0 on. Its table takes 512 KiB."""
ENTRIES: Final = WINDOW_SIZE >> PAGE_SHIFT
"""TCEs of a window."""
_OFFSET: Final = PAGE_SIZE - 1
# Plain numbers: an IntFlag's operators are slow.
_READ, _WRITE = 1, 2


class Access(IntFlag):
    """What an entry lets the device do."""

    READ = 1
    WRITE = 2


class DmaError(Exception):
    """An I/O address that the device may not use so."""


class Run(NamedTuple):
    """A piece of guest memory."""

    address: int
    """Real."""
    size: int


class Mapped(NamedTuple):
    """Entries in a row: what a saved table consists of."""

    first: int
    """Number of the first entry."""
    entries: tuple[int, ...]


class DmaWindow:
    """One device's, with its entries in `table`, which hypercalls may set at any time.

    `changed` is told of memory that the device has written: a real address and a size.
    """

    def __init__(
        self, memory: GuestMemory, changed: Callable[[int, int], None], table: memoryview | None = None
    ) -> None:
        self._memory = memory
        self._changed = changed
        self._table = words(ENTRIES) if table is None else table

    # The guest's side

    def put(self, address: int, entries: Sequence[int]) -> bool:
        """Set the entries of the pages from an I/O address on; False if some lie outside the window."""
        first = address >> PAGE_SHIFT
        if first + len(entries) > ENTRIES:
            return False
        self._table[first : first + len(entries)] = array("Q", entries)
        return True

    def get(self, address: int) -> int | None:
        """Return the entry of an I/O address; None if it lies outside the window."""
        page = address >> PAGE_SHIFT
        return self._table[page] if page < ENTRIES else None

    def clear(self) -> None:
        """Let the device reach nothing."""
        self._table.cast("B")[:] = bytes(8 * ENTRIES)

    # The device's side

    def real(self, address: int, size: int, access: int) -> int:
        """Return the real address of `size` bytes in one I/O page; DmaError if they may not be used so."""
        page = address >> PAGE_SHIFT
        if page < ENTRIES:
            entry = self._table[page]
            if entry & access == access:
                start = (entry & ~_OFFSET) + (address & _OFFSET)
                if start + size <= self._memory.size:
                    return start
        # Says what is wrong.
        return self._in_pages(address, size, access)[0].address

    def runs(self, address: int, size: int, access: int) -> list[Run]:
        """Return the memory behind `size` bytes of I/O addresses; DmaError if some may not be used so."""
        if 0 < size <= PAGE_SIZE - (address & _OFFSET):
            return [Run(self.real(address, size, access), size)]
        return self._in_pages(address, size, access)

    def _in_pages(self, address: int, size: int, wanted: int) -> list[Run]:
        first, behind = address >> PAGE_SHIFT, (address + size + _OFFSET) >> PAGE_SHIFT
        if behind > ENTRIES:
            raise DmaError(f"{size} byte(s) at I/O address {address:#x} are outside the device's window")
        found: list[Run] = []
        at, left, place = 0, size, address & _OFFSET
        for entry in self._table[first:behind]:
            if entry & wanted != wanted:
                raise DmaError(f"the device has no access to I/O address {address:#x} or behind it")
            start, piece = (entry & ~_OFFSET) + place, min(PAGE_SIZE - place, left)
            if start + piece > self._memory.size:
                raise DmaError(f"I/O address {address:#x} is mapped to real address {start:#x}: no memory")
            if found and start == at:
                found[-1] = Run(found[-1].address, found[-1].size + piece)
            else:
                found.append(Run(start, piece))
            at, left, place = start + piece, left - piece, 0
        return found

    def view(self, run: Run) -> memoryview:
        """Return a piece of guest memory itself. Who writes to it calls `wrote` afterwards."""
        return self._memory.view[run.address : run.address + run.size]

    def wrote(self, runs: Sequence[Run]) -> None:
        """Say that the device has written there: the pages are logged, and code in them decoded anew."""
        for address, size in runs:
            self.wrote_at(address, size)

    def wrote_at(self, address: int, size: int) -> None:
        """Say that the device has written so many bytes at a real address, as `wrote`."""
        self._memory.dirty.mark(address, size)
        self._changed(address, size)

    def read(self, address: int, size: int) -> bytes:
        """Return what is at an I/O address; DmaError if the device may not read it."""
        data = self._memory.data
        if 0 < size <= PAGE_SIZE - (address & _OFFSET):
            start = self.real(address, size, _READ)
            return data[start : start + size]
        return b"".join([data[start : start + piece] for start, piece in self.runs(address, size, _READ)])

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write to an I/O address; DmaError, and nothing written, if the device may not."""
        view, size, at = self._memory.view, len(data), 0
        if 0 < size <= PAGE_SIZE - (address & _OFFSET):
            start = self.real(address, size, _WRITE)
            view[start : start + size] = data
            self.wrote_at(start, size)
            return
        runs = self.runs(address, size, _WRITE)
        for start, piece in runs:
            view[start : start + piece] = data[at : at + piece]
            at += piece
        self.wrote(runs)

    # Kept

    def save(self) -> tuple[Mapped, ...]:
        """Return the entries that are not 0."""
        used = [number for number, entry in enumerate(self._table) if entry]
        starts = [number for before, number in pairwise([-2, *used]) if number != before + 1]
        ends = [before + 1 for before, number in pairwise([*used, sys.maxsize]) if number != before + 1]
        return tuple(
            Mapped(start, tuple(self._table[start:end])) for start, end in zip(starts, ends, strict=True)
        )

    def load(self, saved: Sequence[Mapped]) -> None:
        """Have the entries that were saved, and no others; ValueError if some lie outside the window."""
        self.clear()
        for first, entries in saved:
            if not self.put(first << PAGE_SHIFT, entries):
                raise ValueError(f"{len(entries)} TCEs from number {first}: outside the window")
