"""The lines of a guest's blocks in one machine mode: which blocks have one, and the memory that has them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from weakref import ReferenceType, ref

from chronovisor.engine.native.block_code import MOST_BLOCK_BYTES, BlockCode, block_code
from chronovisor.engine.native.code_space import CHUNK, Chunk, code_space
from chronovisor.engine.native.layout import Lines, PageNote
from chronovisor.engine.native.library import HandlerLibrary
from chronovisor.engine.native.page_records import Records

#: How many chunks a mode's lines have at once.
MOST_CHUNKS = 256


def take_marked(marks: mmap.mmap) -> Iterator[int]:
    """The numbers of the bytes that are 1, which become 0."""
    number = marks.find(b"\x01")
    while number >= 0:
        marks[number] = 0
        yield number
        number = marks.find(b"\x01", number)


class PageLines:
    """What native code puts lines together with.

    Native code puts lines into the *present* chunk. It marks the pages that have lines there, whose records
    keep the chunk once another chunk is the present one. Whoever calls has the lock of the mode's records.
    """

    def __init__(self, count: int) -> None:
        """``count`` is that of real memory's pages."""
        self.notes = (PageNote * count).from_buffer(mmap.mmap(-1, count * ctypes.sizeof(PageNote)))
        """What samples have to know of each page."""
        self._marks = mmap.mmap(-1, count)
        marks_at = ctypes.addressof(ctypes.c_char.from_buffer(self._marks))
        self._known = Lines(notes=ctypes.addressof(self.notes), in_chunk=marks_at, next=1)
        self.at = ctypes.addressof(self._known)
        """The address of what native code knows."""
        self._code: BlockCode | None = None
        self.present: Chunk | None = None
        #: The chunks that there are, the latest last.
        self._chunks: list[ReferenceType[Chunk]] = []

    @property
    def has_room(self) -> bool:
        """Whether native code has room for a line."""
        return bool(self._known.next <= self._known.last)

    def can_have_room(self, library: HandlerLibrary) -> bool:
        """Whether there can be lines: the mode has stencils, and they are loaded. Without the lock."""
        self._code = self._code or block_code(library)
        return self._code is not None

    def begin_chunk(self, records: Mapping[int, Records]) -> list[int]:
        """Have lines come into another chunk; if all are in use, the pages that have lines in the oldest.

        They are to lose them. Their old records have to be gone before the chunk is used again.
        """
        assert self._code is not None
        for page in take_marked(self._marks):
            self._have_kept(page, records)
        self.present = None
        self._chunks = [one for one in self._chunks if one() is not None]
        if len(self._chunks) < MOST_CHUNKS and (at := code_space().take_chunk()) is not None:
            self.present = made = Chunk(at)
            self._chunks.append(ref(made))
            self._known.book = ctypes.addressof(self._code.book)
            self._known.next, self._known.last = at, at + CHUNK - MOST_BLOCK_BYTES
            return []
        oldest = self._chunks[0]() if self._chunks else None
        if oldest is None:
            return []
        return [page for page in oldest.pages if page in records and oldest in records[page].chunks]

    def leave(self, page: int, records: Mapping[int, Records]) -> None:
        """Have the new records of a page have no lines; its present ones keep theirs while they are there."""
        if self._marks[page]:
            self._marks[page] = 0
            self._have_kept(page, records)
        self.notes[page].lines = 0

    def _have_kept(self, page: int, records: Mapping[int, Records]) -> None:
        if self.present is not None and page in records:
            records[page].chunks.add(self.present)
            self.present.pages.add(page)
