"""Decoded pages: an array of instruction records for each page of guest memory that was executed.

While a thread may read a record, only its handler's address changes. At first it is that of a handler
which asks for decoding, then the instruction's. If memory was changed or more handlers came, it is at last
that of a handler which looks the page up again. The other parts are written before the instruction's handler.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TypeAlias

from chronovisor.engine.native.encoding import ADDRESS, Encoding, encoding
from chronovisor.engine.native.layout import (
    PAGE_INSTRUCTIONS,
    PAGE_SHIFT,
    RECORD_SIZE,
    RECORD_WIDE,
    SMALL_COUNT,
    WIDE_COUNT,
)
from chronovisor.engine.native.library import COPIES, Copies, library, runtime
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import Key, links
from chronovisor.engine.python_source import compile_values
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.decode import decode
from chronovisor.isa.values import mask
from chronovisor.memory.guest_memory import GuestMemory

_OPERANDS = struct.Struct(f"<{WIDE_COUNT}Q{SMALL_COUNT}B")
_NO_OPERANDS = (0,) * (WIDE_COUNT + SMALL_COUNT)
assert RECORD_WIDE + _OPERANDS.size == RECORD_SIZE

BLOCK_INSTRUCTIONS = CACHE_BLOCK // 4
_PAGE_MASK = (1 << PAGE_SHIFT) - 1
_RECORD_WORDS = RECORD_SIZE // 8

#: Words of which it is remembered how their records are made.
_REMEMBERED = 1 << 16
#: Two addresses that tell whether a jump goes as far wherever the instruction is.
_ADDRESSES = (1 << 28, 3 << 28)

#: A page's records and the one behind them, as words; the first word of each is its handler's address.
Records = ctypes.c_uint64 * ((PAGE_INSTRUCTIONS + 1) * _RECORD_WORDS)

#: Records that were replaced.
Retired: TypeAlias = "ctypes.Array[ctypes.c_uint64]"


@dataclass(frozen=True)
class Decoded:
    """What a record holds besides its address, and what tells whether it and the next make a pair.

    ``key`` is None if the instruction is left to the concrete evaluator; ``early`` if only until its handler
    comes.
    """

    handler: Copies
    operands: tuple[int, ...]
    key: Key | None
    near: bool
    numbers: dict[str, int]
    early: bool = False


_NOTHING = Decoded((), (), None, False, {})

#: What makes the record of a word at an address.
Maker = Callable[[int], Decoded]


class _Layout:
    """How an instruction's operands are computed for its record."""

    def __init__(self, key: Key, layout: Encoding) -> None:
        names = (*key[0].operands, ADDRESS)
        target = () if layout.target is None else (layout.target,)
        self._wide, self._small = len(layout.wide), len(layout.small)
        self._compute = compile_values((*layout.wide, *layout.small, *target), names)
        self.jumps = layout.target is not None

    def distance(self, numbers: tuple[int, ...]) -> int | None:
        """How far the instruction jumps, in bytes; None if it does not, or if that depends on its address."""
        if not self.jumps:
            return None
        one, other = (self._operands(numbers, address)[1] - address for address in _ADDRESSES)
        return one if one == other else None

    def operands(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """A record's operands."""
        return self._operands(numbers, _ADDRESSES[0])[0]

    def _operands(self, numbers: tuple[int, ...], address: int) -> tuple[tuple[int, ...], int]:
        """A record's operands, and the jump's target."""
        computed = self._compute(*(number & mask(64) for number in numbers), address)
        wide, rest = computed[: self._wide], computed[self._wide :]
        small, target = rest[: self._small], rest[self._small :]
        filled = (*wide, *[0] * (WIDE_COUNT - len(wide)), *small, *[0] * (SMALL_COUNT - len(small)))
        return filled, target[0] if target else 0


@cache
def _layout(key: Key, mode: Mode, near: bool) -> _Layout:
    return _Layout(key, encoding(key[0].program(key[1], *mode), near))


_makers: dict[tuple[int, Mode], Maker] = {}


def _maker(word: int, mode: Mode) -> Maker:
    """What makes a word's record at an offset in its page."""
    made = _makers.get((word, mode))
    if made is not None:
        return made
    found = decode(word)
    key = None if found is None else (found, found.meaning_statics(word))
    known = library(mode)
    wanted = key is not None and (key in known.far or known.want(key))
    if found is None or key is None or key not in known.far:
        slow = Decoded((runtime().slow_address,) * COPIES, _NO_OPERANDS, None, False, {}, early=wanted)
        if wanted:
            return lambda offset: slow
        made = lambda offset: slow  # noqa: E731
    else:
        made = _native_maker(word, mode, key)
    if len(_makers) >= _REMEMBERED:
        _makers.clear()
    _makers[word, mode] = made
    return made


def _native_maker(word: int, mode: Mode, key: Key) -> Maker:
    found, known = key[0], library(mode)
    numbers = found.decode_operands(word)
    by_name = dict(zip(found.operands, numbers, strict=True))
    layout = _layout(key, mode, False)
    far = Decoded(known.far[key], layout.operands(numbers), key, False, by_name)
    distance = layout.distance(numbers)
    if distance is None or abs(distance) > _PAGE_MASK:
        return lambda offset: far
    near = Decoded(known.near[key], _layout(key, mode, True).operands(numbers), key, True, by_name)
    return lambda offset: near if 0 <= offset + distance <= _PAGE_MASK else far


def _together(first: Decoded, second: Decoded, mode: Mode) -> Copies:
    """The handler of an instruction that is followed by another: that of both, if there is one."""
    if first.key is not None and second.key is not None:
        for pair, handler in library(mode).pairs.get((first.key, second.key), ()):
            jumps = _layout(second.key, mode, False).jumps
            if second.near is jumps and links(pair, first.numbers, second.numbers):
                return handler
    return first.handler


class DecodedPages:
    """The decoded pages of a guest in one machine mode.

    A page's records are made when it is first executed, and each block of it is decoded when it is.
    ``code_blocks`` has a byte for each cache block of memory; it becomes 1 before the block is decoded.
    """

    def __init__(self, memory: GuestMemory, mode: Mode, code_blocks: mmap.mmap) -> None:
        self.library = library(mode)
        self.generation = self.library.generation
        self._memory = memory
        self._mode = mode
        self._code_blocks = code_blocks
        self._words = struct.Struct(f"{'<' if mode[1] else '>'}{BLOCK_INSTRUCTIONS}I")
        self._records: dict[int, ctypes.Array[ctypes.c_uint64]] = {}
        #: Pages with records that handlers to come will change.
        self._early: set[int] = set()
        self._changing = threading.Lock()
        self.count = memory.size >> PAGE_SHIFT
        """How many pages real memory has that the mode can address."""
        if not mode[0]:
            self.count = min(self.count, 1 << (32 - PAGE_SHIFT))
        self.table = (ctypes.c_uint64 * (memory.size >> PAGE_SHIFT))()
        self.address = ctypes.addressof(self.table)

    def add(self, page: int) -> None:
        """Make the records of the page with this number, if it has none."""
        with self._changing:
            if page not in self._records:
                self._put(page)

    def _put(self, page: int) -> None:
        records = Records()
        runtime().blank(ctypes.addressof(records))
        self._records[page] = records
        self.table[page] = ctypes.addressof(records)

    def decode(self, address: int) -> None:
        """Decode the block that holds the real address, from memory as it is now, if its page has records."""
        start = address & -CACHE_BLOCK
        # Before memory is read, which taking the lock makes sure of: a thread that stores here and then finds
        # no mark knows that its store will be read.
        self._code_blocks[start // CACHE_BLOCK] = 1
        with self._changing:
            records = self._records.get(address >> PAGE_SHIFT)
            if records is None:
                return
            place = (start & _PAGE_MASK) // 4 * _RECORD_WORDS
            if records[place] != runtime().undecoded_address:
                return
            words = self._words.unpack(self._memory.read(start, CACHE_BLOCK))
            inside = start & _PAGE_MASK
            block = [_maker(word, self._mode)(inside + (4 * n)) for n, word in enumerate(words)]
            if not self.library.has_pairs or any(one.early for one in block):
                self._early.add(address >> PAGE_SHIFT)
            for n, one in enumerate(block):
                at = (8 * place) + (n * RECORD_SIZE) + RECORD_WIDE
                _OPERANDS.pack_into(records, at, *one.operands)
            # All operands are there before any handler is: a pair's handler reads the next record, too.
            for n, (one, following) in enumerate(pairwise((*block, _NOTHING))):
                # One store of eight bytes: no thread sees half an address.
                handler = _together(one, following, self._mode)
                records[place + (n * _RECORD_WORDS)] = handler[((start // 4) + n) % COPIES]

    def forget_all(self) -> None:
        """Have everything decoded anew, while no thread runs."""
        with self._changing:
            for page in self._records:
                self._put(page)

    def forget(self, address: int) -> Retired | None:
        """Have the page of the real address decoded anew if anything of the address's block was.

        Threads that execute the page's old records go over to the new ones at their next instruction. The
        old ones are returned: they must stay as long as any thread may be among them.
        """
        page = address >> PAGE_SHIFT
        with self._changing:
            records = self._records.get(page)
            if records is None:
                return None
            start = (address & -CACHE_BLOCK & _PAGE_MASK) // 4 * _RECORD_WORDS
            places = range(start, start + (BLOCK_INSTRUCTIONS * _RECORD_WORDS), _RECORD_WORDS)
            if all(records[place] == runtime().undecoded_address for place in places):
                return None
            return self._retire(page)

    def refresh(self) -> list[Retired]:
        """Have those pages decoded anew that new handlers may change; their old records, as `forget` does."""
        with self._changing:
            self.generation = self.library.generation
            early, self._early = self._early, set()
            return [self._retire(page) for page in early]

    def _retire(self, page: int) -> Retired:
        records = self._records[page]
        self._put(page)
        runtime().retire(ctypes.addressof(records))
        return records
