"""Which parts of a guest's memory hold anything: what a move or a snapshot has to carry.

A part that is all zeros is found at the speed of memory: whole mebibytes are compared with themselves, 64
bytes on, and only those that differ are looked at more closely. Blocks that were never touched are not even
read: the kernel says which they are, and reading would make it map each of their pages.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from chronovisor.memory.guest_memory import PAGE_SIZE, AddressError, GuestMemory

BLOCK: Final = 1 << 20
"""The unit of `estimate_in_use`, in bytes."""

_SIZES: Final = (BLOCK, 1 << 16, PAGE_SIZE)
_STEP: Final = 64
_NOTHING: Final = bytes(_STEP)
_PAGEMAP: Final = Path("/proc/self/pagemap")
_ENTRY: Final = 8
_HIGHEST_BYTE: Final = _ENTRY - 1 if sys.byteorder == "little" else 0
_NEITHER: Final = bytes(range(1 << 6))
_WORTHWHILE: Final = 1 << 16
"""Bytes: fewer are provided as fast by the writes themselves."""
_MADV_POPULATE_WRITE: Final = 23
"""Linux 5.14 and newer; `mmap` has no name for it."""

# The GIL is kept meanwhile (for a tenth of a millisecond at most). If each comparison released it, a guest
# that is interpreted would take it for some milliseconds each time.
_compare = ctypes.PyDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_compare.restype = ctypes.c_int


def runs_in_use(memory: GuestMemory) -> list[tuple[int, int]]:
    """Return the pages that are not all zeros as runs of (address, bytes), in rising order, none touching the
    next. The guest must be stopped, or what it writes meanwhile may be missed.
    """
    return list(each_run_in_use(memory))


def each_run_in_use(memory: GuestMemory) -> Iterator[tuple[int, int]]:
    """Give the runs of `runs_in_use` one by one, each as soon as it is found.

    The guest may run if its dirty pages are logged: what this misses is in the log.
    """
    first = behind = 0
    for addr in _pages_in_use(memory):
        if addr != behind:
            if behind > first:
                yield first, behind - first
            first = addr
        behind = addr + PAGE_SIZE
    if behind > first:
        yield first, behind - first


def runs_of(memory: GuestMemory, pages: Iterable[int], page_size: int) -> Iterator[tuple[int, int, bool]]:
    """Give the pages of these rising numbers as runs of (address, bytes, whether they are all zeros), each as
    long as can be. Pages are of `page_size` bytes; the guest may run, as above.
    """
    zero = _ZeroFinder(memory)
    first = behind = 0
    zeros = False
    for page in pages:
        addr = page * page_size
        size = min(page_size, memory.size - addr)
        found = zero(addr, size)
        if addr != behind or found is not zeros:
            if behind > first:
                yield first, behind - first, zeros
            first, zeros = addr, found
        behind = addr + size
    if behind > first:
        yield first, behind - first, zeros


def clear(memory: GuestMemory, addr: int, size: int) -> None:
    """Make these pages all zeros; AddressError if any lies outside. Pages that are zeros already cost
    nothing.
    """
    if addr < 0 or size < 0 or addr + size > memory.size:
        raise AddressError(addr, size, memory.size)
    zero = _ZeroFinder(memory)
    for at in range(addr, addr + size, _SIZES[1]):
        piece = min(_SIZES[1], addr + size - at)
        if not zero(at, piece):
            memory.write(at, bytes(piece))


def estimate_in_use(memory: GuestMemory) -> int:
    """Return about how many bytes of memory are not all zeros, in steps of 1 MiB. The guest may run."""
    zero, touched = _ZeroFinder(memory), _Touched(memory)
    blocks = ((addr, min(BLOCK, memory.size - addr)) for addr in range(0, memory.size, BLOCK))
    return sum(size for addr, size in blocks if touched(addr, size) and not zero(addr, size))


def have_ready(memory: GuestMemory, addr: int, size: int) -> None:
    """Have the machine provide these pages at once. That is faster than one by one, as they are written.

    Contents stay as they are. Nothing else may write to these pages meanwhile. `addr` is a multiple of the
    machine's page size; else nothing happens.
    """
    if addr % mmap.PAGESIZE or size < _WORTHWHILE:
        return
    try:
        memory.data.madvise(_MADV_POPULATE_WRITE, addr, size)
    except OSError:
        first_bytes = memory.view[addr : addr + size : mmap.PAGESIZE]
        first_bytes[:] = first_bytes.tobytes()


def _pages_in_use(memory: GuestMemory) -> Iterator[int]:
    zero, touched = _ZeroFinder(memory), _Touched(memory)

    def within(addr: int, end: int, level: int) -> Iterator[int]:
        size = _SIZES[level]
        for at in range(addr, end, size):
            stop = min(at + size, end)
            if (level == 0 and not touched(at, stop - at)) or zero(at, stop - at):
                continue
            if size == PAGE_SIZE:
                yield at
            else:
                yield from within(at, stop, level + 1)

    return within(0, memory.size, 0)


class _ZeroFinder:
    """Says whether memory is all zeros from an address on."""

    def __init__(self, memory: GuestMemory) -> None:
        self._data = memory.data
        self._first = ctypes.c_char.from_buffer(memory.data)
        self._base = ctypes.addressof(self._first)

    def __call__(self, addr: int, size: int) -> bool:
        if self._data[addr : addr + _STEP] != _NOTHING:
            return False
        at = self._base + addr
        return not _compare(at, at + _STEP, size - _STEP)


class _Touched:
    """Says whether any of some memory was ever touched: what was not is all zeros.

    Source: the kernel's Documentation/admin-guide/mm/pagemap.rst: 8 bytes a page, bit 63 is set if it is
    present, bit 62 if it is swapped out. If that cannot be read, everything counts as touched.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))

    def __call__(self, addr: int, size: int) -> bool:
        first, behind = (self._base + addr) // mmap.PAGESIZE, -(-(self._base + addr + size) // mmap.PAGESIZE)
        try:
            with _PAGEMAP.open("rb", buffering=0) as pagemap:
                pagemap.seek(first * _ENTRY)
                entries = pagemap.read((behind - first) * _ENTRY)
        except OSError:
            return True
        if len(entries) != (behind - first) * _ENTRY:
            return True
        # The byte that has both bits, of each entry, without those that have neither.
        return bool(entries[_HIGHEST_BYTE::_ENTRY].translate(None, _NEITHER))
