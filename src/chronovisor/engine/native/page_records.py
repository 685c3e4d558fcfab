"""The records of pages, side by side in large pages of the machine: threads come to many of them."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from functools import cache

from chronovisor.engine.native.code_space import Chunk
from chronovisor.engine.native.layout import PAGE_RECORDS_SIZE

#: Bytes from one page's records to the next page's: whole cache lines.
_STEP = -(-PAGE_RECORDS_SIZE // 64) * 64
_PIECE = 1 << 24


class Records(ctypes.Array[ctypes.c_uint64]):
    """A page's records and what is behind them, as words; the first word of each is its handler's address."""

    _type_ = ctypes.c_uint64
    _length_ = PAGE_RECORDS_SIZE // 8

    chunks: set[Chunk]
    """What has the lines of the page's blocks, except for the present chunk, as long as the records stay."""

    @classmethod
    def new(cls) -> Records:
        """Records that are all zero."""
        space = _space()
        piece, at = space.take()
        made = cls.from_buffer(piece, at)
        ctypes.memset(made, 0, ctypes.sizeof(made))
        made.chunks, made._place = set(), (piece, at)
        return made

    _place: tuple[mmap.mmap, int] | None = None

    def __del__(self) -> None:
        if self._place is not None:
            _space().give(self._place)


class _Space:
    """Memory for records. What was used once is used again."""

    def __init__(self) -> None:
        self._free: list[tuple[mmap.mmap, int]] = []

    def take(self) -> tuple[mmap.mmap, int]:
        """A place for the records of a page."""
        with suppress(IndexError):
            return self._free.pop()
        piece = mmap.mmap(-1, _PIECE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # Not every machine's kernel has large pages.
            piece.madvise(mmap.MADV_HUGEPAGE)
        places = [(piece, at) for at in range(0, _PIECE - _STEP + 1, _STEP)]
        # From the beginning on: large pages that nothing is in yet take no memory.
        self._free += reversed(places[1:])
        return places[0]

    def give(self, place: tuple[mmap.mmap, int]) -> None:
        """Have a place used again."""
        # No lock: garbage may be collected anywhere. Appending and taking are one step each.
        self._free.append(place)


@cache
def _space() -> _Space:
    """The process's one."""
    return _Space()
