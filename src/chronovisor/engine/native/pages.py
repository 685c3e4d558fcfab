"""Decoded pages: an array of instruction records for each page of guest memory that was executed."""

from __future__ import annotations

import ctypes
import struct
from functools import cache, lru_cache

from chronovisor.engine.native.compiler import Key, Mode
from chronovisor.engine.native.layout import (
    DERIVED_COUNT,
    PAGE_INSTRUCTIONS,
    PAGE_SHIFT,
    RECORD_SIZE,
    SLOT_COUNT,
    ZERO_REGISTER,
)
from chronovisor.engine.native.library import handlers, runtime
from chronovisor.engine.native.lowering import Encoding, encoding
from chronovisor.engine.python_source import compile_values
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.decode import decode
from chronovisor.isa.values import mask
from chronovisor.memory.guest_memory import GuestMemory

_RECORD = struct.Struct(f"<QQQ{SLOT_COUNT}B{DERIVED_COUNT}Q")
assert _RECORD.size == RECORD_SIZE

BLOCK_INSTRUCTIONS = CACHE_BLOCK // 4


@cache
def _layout(key: Key, mode: Mode) -> Encoding:
    instruction, numbers = key
    return encoding(instruction.program(numbers, *mode))


@lru_cache(maxsize=1 << 16)
def _record(word: int, mode: Mode) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """What a record holds for an instruction word: handler, immediate, slots, derived values."""
    found = decode(word)
    if found is not None:
        key = (found, found.decode_statics(word))
        handler = handlers(mode).get(key)
        if handler is not None:
            return (handler, *_operands(key, mode, found.decode_operands(word)))
    return runtime().slow_address, 0, (0,) * SLOT_COUNT, (0,) * DERIVED_COUNT


def _operands(key: Key, mode: Mode, numbers: tuple[int, ...]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    layout = _layout(key, mode)
    by_name = dict(zip(key[0].operands, numbers, strict=True))
    slots = [by_name[name] for name in layout.slots]
    if layout.base is not None:
        slots.append(by_name[layout.base] or ZERO_REGISTER)
    immediate = by_name[layout.immediate] & mask(64) if layout.immediate is not None else 0
    derived = [0] * DERIVED_COUNT
    if layout.derived:
        values = compile_values(layout.derived, key[0].operands)
        computed = values(*(number & mask(64) for number in numbers))
        derived[: len(computed)] = computed
    return immediate, (*slots, *[0] * (SLOT_COUNT - len(slots))), tuple(derived)


class DecodedPages:
    """The decoded pages of a guest in one machine mode.

    A page's records are made when it is first executed, and each block of it is decoded when it is.
    """

    def __init__(self, memory: GuestMemory, mode: Mode) -> None:
        self._memory = memory
        self._mode = mode
        self._words = struct.Struct(f"{'<' if mode[1] else '>'}{BLOCK_INSTRUCTIONS}I")
        self._records: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.table = (ctypes.c_uint64 * (memory.size >> PAGE_SHIFT))()
        self.address = ctypes.addressof(self.table)

    def add(self, page: int) -> None:
        """Make the records of the page with this number."""
        start = page << PAGE_SHIFT
        records = ctypes.create_string_buffer((PAGE_INSTRUCTIONS + 1) * RECORD_SIZE)
        runtime().blank(ctypes.addressof(records), PAGE_INSTRUCTIONS, start)
        # Behind the page's last instruction: go on wherever the next page is.
        following = (runtime().next_page_address, start + (1 << PAGE_SHIFT), 0)
        _RECORD.pack_into(
            records, PAGE_INSTRUCTIONS * RECORD_SIZE, *following, *[0] * (SLOT_COUNT + DERIVED_COUNT)
        )
        self._records[page] = records
        self.table[page] = ctypes.addressof(records)

    def decode(self, address: int) -> None:
        """Decode the block that holds the real address, from memory as it is now, if its page has records.

        Another thread may be executing it: a record is never one that reaches outside the thread's own
        state, whatever part of it is new.
        """
        records = self._records.get(address >> PAGE_SHIFT)
        if records is None:
            return
        start = address & -CACHE_BLOCK
        place = (start & ((1 << PAGE_SHIFT) - 1)) // 4 * RECORD_SIZE
        for word in self._words.unpack(self._memory.read(start, CACHE_BLOCK)):
            handler, immediate, slots, derived = _record(word, self._mode)
            _RECORD.pack_into(records, place, handler, start, immediate, *slots, *derived)
            start += 4
            place += RECORD_SIZE
