"""Memory for the machine code of handlers and regions, side by side in large pages of the machine."""

from __future__ import annotations

import ctypes
import mmap
import threading
from contextlib import suppress
from functools import cache

#: What code is aligned to, in bytes: as much as any constant of a region.
ALIGNMENT = 64

#: The size of a piece of the space, and what it is aligned to: the machine's large pages, in bytes.
_PIECE = 1 << 24
_LARGE_PAGE = 1 << 21

#: The size of a chunk, which is for code that does not stay, in bytes; and how many there are. They are near
#: the first piece, which has the handlers: code there jumps to handlers by their distance.
CHUNK = 1 << 20
_CHUNKS = 512


class CodeSpace:
    """Code, which stays as long as the process, and chunks for code that does not."""

    def __init__(self) -> None:
        self._pieces: list[mmap.mmap] = []
        self._chunks: list[int] = []
        self._next = self._end = 0
        self._changing = threading.Lock()

    def put(self, code: bytes) -> int:
        """Copy code that can run anywhere; its address."""
        with self._changing:
            if len(code) > self._end - self._next:
                self._add_piece(len(code))
            at = self._next
            ctypes.memmove(at, code, len(code))
            self._next += -(-len(code) // ALIGNMENT) * ALIGNMENT
            return at

    def take_chunk(self) -> int | None:
        """The address of a chunk that nothing else uses; None if all are in use."""
        with self._changing:
            return self._chunks.pop() if self._chunks else None

    def give_chunk(self, at: int) -> None:
        """Have a chunk used again. No thread may execute its code any more."""
        # Without the lock: garbage may be collected while this thread has it.
        self._chunks.append(at)

    def _add_piece(self, least: int) -> None:
        size = -(-max(_PIECE, least) // _LARGE_PAGE) * _LARGE_PAGE
        chunks = 0 if self._pieces else _CHUNKS
        self._next = self._map(size + chunks * CHUNK)
        self._end = self._next + size
        self._chunks += [self._end + number * CHUNK for number in reversed(range(chunks))]

    def _map(self, size: int) -> int:
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        piece = mmap.mmap(-1, size + _LARGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection)
        with suppress(OSError):  # Not every machine's kernel has large pages.
            piece.madvise(mmap.MADV_HUGEPAGE)
        self._pieces.append(piece)
        first = ctypes.addressof(ctypes.c_char.from_buffer(piece))
        return -(-first // _LARGE_PAGE) * _LARGE_PAGE


class Chunk:
    """A chunk in use. It is free again when nothing refers to this any more."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.pages: set[int] = set()
        """The pages whose blocks have code in it."""

    def __del__(self) -> None:
        code_space().give_chunk(self._at)


@cache
def code_space() -> CodeSpace:
    """The process's one."""
    return CodeSpace()
