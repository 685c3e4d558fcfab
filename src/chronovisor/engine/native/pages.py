"""Decoded pages: an array of instruction records for each page of guest memory that was executed.

While a thread may read a record, only its handler's address changes. At first it is that of a handler
which asks for decoding, then the instruction's. If memory was changed or more handlers came, it is at last
that of a handler which looks the page up again. The other parts are written before the instruction's handler.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from chronovisor.engine.native.block_decoder import DONE_EARLY
from chronovisor.engine.native.layout import PAGE_SHIFT, PLAIN_AT, RECORD_SIZE
from chronovisor.engine.native.library import library, runtime
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.page_lines import PageLines, take_marked
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.memory.guest_memory import GuestMemory

_PAGE_MASK = (1 << PAGE_SHIFT) - 1
_RECORD_WORDS = RECORD_SIZE // 8
_PAGE_BLOCKS = (1 << PAGE_SHIFT) // CACHE_BLOCK
_BLOCK_RECORDS = CACHE_BLOCK // 4

#: How many pages of a mode have records at once, which take 340 MB: a guest's code may never end.
MOST_PAGES = 8192


def plain_place(address: int) -> int:
    """The place in a page's records, in words, of the own handler of an instruction that begins a region."""
    return (PLAIN_AT // 8) + (address & _PAGE_MASK) // 4


@dataclass(frozen=True)
class Snapshot:
    """What a page of real memory held."""

    page: int
    content: bytes


class DecodedPages:
    """The decoded pages of a guest in one machine mode.

    A page's records are made when it is first executed, and each block of it is decoded when it is.
    ``code_blocks`` has a byte for each cache block of memory, 1 if the block was decoded: see `mark`.
    ``contents`` has a number for each page: what it held when a fetch was last led to it, or 0.
    """

    def __init__(
        self,
        memory: GuestMemory,
        mode: Mode,
        code_blocks: mmap.mmap,
        contents: ctypes.Array[ctypes.c_uint64],
    ) -> None:
        self.library = library(mode)
        self.generation = self.library.generation
        self._code_blocks = code_blocks
        self._contents = contents
        #: Kept as long as its address.
        self._memory = memory
        self._memory_at = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))
        #: Whether the bytes of instruction words are in this machine's order.
        self._swapped = not mode[1]
        self._records: dict[int, Records] = {}
        #: Offsets of the instructions that native code leaves to the concrete evaluator, by page.
        self._left: dict[int, set[int]] = {}
        #: How often each page's code has changed.
        self._versions: dict[int, int] = {}
        #: The real addresses of the entries of regions that have code of a page.
        self._entries: dict[int, set[int]] = {}
        self.new: list[int] = []
        """The pages that `take_new` gives next."""
        self._replaced: list[Records] = []
        self.changing = self.library.changing
        """Taken to change records."""
        self._ordering = threading.Lock()
        self.count = memory.size >> PAGE_SHIFT
        """How many pages real memory has that the mode can address."""
        if not mode[0]:
            self.count = min(self.count, 1 << (32 - PAGE_SHIFT))
        self.table = (ctypes.c_uint64 * (memory.size >> PAGE_SHIFT))()
        self.address, self.size = ctypes.addressof(self.table), ctypes.sizeof(self.table)
        #: A byte for each page, 1 if handlers to come will change the page's records.
        self._early = mmap.mmap(-1, len(self.table))
        self.early_at = ctypes.addressof(ctypes.c_char.from_buffer(self._early))
        self.lines = PageLines(len(self.table))
        with self.changing:
            self.library.tell()

    def add(self, page: int) -> bool:
        """Make the records of the page with this number; False if it has some."""
        with self.changing:
            is_new = page not in self._records
            if is_new:
                self._put(page)
                self.new.append(page)
            return is_new

    def take_new(self) -> list[int]:
        """The pages that records were made for since this was called last."""
        if not self.new:
            return []
        with self.changing:
            taken, self.new = self.new, []
        return taken

    def make_room(self) -> list[Records]:
        """If pages with records are too many, have the first one be as if it had never been executed.

        Its records are returned, as `forget` does.
        """
        with self.changing:
            if len(self._records) < MOST_PAGES:
                return []
            page = next(iter(self._records))
            self.lines.leave(page, self._records)
            records = self._records.pop(page)
            self.table[page] = 0
            self._early[page] = 0
            self._take_out(page)
            runtime().retire(ctypes.addressof(records))
            return [records]

    def _put(self, page: int) -> None:
        self.lines.leave(page, self._records)
        records = Records.new()
        runtime().blank(ctypes.addressof(records))
        if page in self._left:
            self._decode_page(page, records)
        self._records[page] = records
        self.table[page] = ctypes.addressof(records)

    def leave_at(self, addresses: Collection[int]) -> list[Records]:
        """Have native code leave the instructions at these real addresses, and at no others, undone.

        Records that are replaced are returned, as `forget` does.
        """
        with self.changing:
            before, self._left = self._left, {}
            for address in addresses:
                self._left.setdefault(address >> PAGE_SHIFT, set()).add(address & _PAGE_MASK)
            changed = [p for p in {*before, *self._left} if before.get(p) != self._left.get(p)]
            for page in changed:
                # A region may have code of a page that has no records.
                self._take_out(page)
            return [self._retire(page) for page in changed if page in self._records]

    def _decode_page(self, page: int, records: Records) -> None:
        """Decode all of a page, so that nothing else will, and leave what is to be left in it."""
        first = page << PAGE_SHIFT
        self.mark(first, _PAGE_BLOCKS)
        content = (ctypes.c_ubyte * (1 << PAGE_SHIFT)).from_buffer_copy(self._memory.data, first)
        for offset in self._left[page]:
            # No instruction: otherwise the one before it could have a handler that does both.
            content[offset : offset + 4] = [0] * 4
        at, early = ctypes.addressof(records), not self.library.has_pairs
        for inside in range(0, 1 << PAGE_SHIFT, CACHE_BLOCK):
            place = at + inside // 4 * RECORD_SIZE
            early |= self._decode_block(place, ctypes.addressof(content) + inside, inside)
        if early:
            self._early[page] = 1
        self.library.tell()
        for offset in self._left[page]:
            records[offset // 4 * _RECORD_WORDS] = runtime().slow.far

    def mark(self, address: int, count: int = 1) -> None:
        """Mark blocks of memory as decoded, before they are read for that. The caller has ``changing``.

        A thread that stores to a block and then finds no mark knows that its store will be read.
        """
        first = address // CACHE_BLOCK
        self._code_blocks[first : first + count] = b"\x01" * count
        # Taking a lock orders this thread's accesses: the marks are there before memory is read.
        with self._ordering:
            pass

    def decode(self, address: int) -> bool:
        """Decode the block that holds the real address, from memory as it is now.

        False if its page has no records or the block is decoded.
        """
        start, page = address & -CACHE_BLOCK, address >> PAGE_SHIFT
        block = (start & _PAGE_MASK) // CACHE_BLOCK
        with self.changing:
            records = self._records.get(page)
            if records is None:
                return False
            place = block * _BLOCK_RECORDS * _RECORD_WORDS
            if records[place] != runtime().undecoded_address:
                return False
            self.mark(start)
            early = self._decode_block(
                ctypes.addressof(records) + (8 * place), self._memory_at + start, start & _PAGE_MASK
            )
            if early or not self.library.has_pairs:
                self._early[page] = 1
            self.library.tell()
            if self.lines.notes[page].lines:
                # As native code does that decodes a block of such a page.
                runtime().put_line(self.lines.at, ctypes.addressof(records), page, block)
            return True

    def _decode_block(self, records_at: int, block_at: int, inside: int) -> bool:
        """Decode a block of a page; whether handlers that are to come will change its records."""
        table = self.library.table
        while True:
            slots = table.slots
            left: int = runtime().decode_block(
                *(table.significant_at, ctypes.addressof(slots), len(slots)),
                *(records_at, block_at, self._swapped, inside),
            )
            if left < 0:
                return left == DONE_EARLY
            table.learn(left)

    # Code of blocks, put together from stencils

    def assemble(self, page: int, offset: int) -> None:
        """Have threads that come to the block of this offset run code that is put together for it."""
        self.provide_room()
        with self.changing:
            if (records := self._records.get(page)) is not None:
                at, block = ctypes.addressof(records), offset // CACHE_BLOCK
                runtime().put_line(self.lines.at, at, page, block)

    def provide_room(self) -> None:
        """See to it that native code has room for a line, or will have some soon.

        If all memory for lines is in use, the pages that have the oldest lines lose them.
        """
        if not self.lines.has_room and self.lines.can_have_room(self.library):
            with self.changing:
                self._replaced += map(self._retire, self.lines.begin_chunk(self._records))

    def take_replaced(self) -> list[Records]:
        """The records that were replaced to make room, since this was called last: see `forget`."""
        if not self._replaced:
            return []
        with self.changing:
            taken, self._replaced = self._replaced, []
        return taken

    # Regions: code of several instructions in the place of a handler

    def snapshot(self, page: int) -> Snapshot:
        """A page's content, from which regions may be made."""
        return Snapshot(page, ctypes.string_at(self._memory_at + (page << PAGE_SHIFT), 1 << PAGE_SHIFT))

    def offset_of(self, page: int, record: int) -> int | None:
        """The offset of the instruction whose record is at an address, None if it is in another page."""
        place = record - self.table[page]
        return place // RECORD_SIZE * 4 if 0 <= place < PLAIN_AT else None

    def begins_region(self, page: int, offset: int) -> bool:
        """Whether a region is put in at an offset of a page."""
        records = self._records.get(page)
        return records is not None and bool(records[plain_place(offset)])

    def version(self, page: int) -> int:
        """How often the code of the page with this number has changed."""
        return self._versions.get(page, 0)

    def put_in(self, made_of: Sequence[Snapshot], entries: Mapping[int, int]) -> bool:
        """Have threads that come to the entries run a region.

        ``entries`` has the entries' handlers by real addresses. False: a page has changed since its snapshot.
        """
        for address in entries:
            self.add(address >> PAGE_SHIFT)
            self.decode(address)
        with self.changing:
            if any(one.page in self._left or not self._still_holds(one) for one in made_of):
                return False
            for address, handler in entries.items():
                records, place = self._record(address)
                plain = plain_place(address)
                if records[plain] or records[place] == runtime().undecoded_address:
                    continue
                # One store of eight bytes each: who sees the region finds the instruction's handler.
                records[plain] = records[place]
                records[place] = handler
                runtime().unlink(ctypes.addressof(records), place // _RECORD_WORDS)
            for one in made_of:
                self._entries.setdefault(one.page, set()).update(entries)
            return True

    def _still_holds(self, one: Snapshot) -> bool:
        """Whether a page has this content, and had it when a fetch was last led to it."""
        self.mark(one.page << PAGE_SHIFT, _PAGE_BLOCKS)
        if self.snapshot(one.page) != one:
            return False
        known: int = runtime().content(self._memory_at + (one.page << PAGE_SHIFT))
        # No fetch may have been led to the page yet: the first one must see a change that comes before it.
        self._contents[one.page] = self._contents[one.page] or known
        return self._contents[one.page] == known

    def _record(self, address: int) -> tuple[Records, int]:
        """The records of the page of a real address, and the place of the address's own, in words."""
        return self._records[address >> PAGE_SHIFT], (address & _PAGE_MASK) // 4 * _RECORD_WORDS

    def _take_out(self, page: int) -> None:
        """Take out the regions that have code of a page which has changed."""
        # No region that is being made is for the page's new code.
        self.lines.notes[page].quiet = 0
        self._versions[page] = self._versions.get(page, 0) + 1
        for address in self._entries.pop(page, ()):
            if address >> PAGE_SHIFT not in self._records:
                continue
            records, place = self._record(address)
            plain = plain_place(address)
            if records[plain]:
                records[place] = records[plain]
                records[plain] = 0

    def forget_all(self) -> None:
        """Have everything decoded anew, while no thread runs."""
        with self.changing:
            for page in self._records:
                self._put(page)
            for page in list(self._entries):
                self._take_out(page)

    def forget(self, page: int) -> list[Records]:
        """Have all of a page decoded anew. The caller has ``changing``.

        Threads that execute the page's old records go over to the new ones at their next instruction. The
        old ones are returned: they must stay as long as any thread may be among them.
        """
        # A region may have code of the page although it has no records.
        self._take_out(page)
        return [self._retire(page)] if page in self._records else []

    def refresh(self) -> list[Records]:
        """Have those pages decoded anew that new handlers may change; their old records, as `forget` does."""
        with self.changing:
            self.generation = self.library.generation
            self.library.tell()
            # All at first: a page with something to leave is decoded at once, and may be early again.
            return [self._retire(page) for page in list(take_marked(self._early))]

    def _retire(self, page: int) -> Records:
        records = self._records[page]
        self._put(page)
        self._take_out(page)
        runtime().retire(ctypes.addressof(records))
        return records
