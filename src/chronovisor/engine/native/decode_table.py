"""The table by which native code decodes the words of a machine mode, filled as guests come to new words.

The table learns a word when a guest first comes to it. All words that differ only in their operands are then
known too: see ``chronovisor.engine.native.block_decoder``.
"""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from chronovisor.engine.native.block_decoder import (
    EMPTY,
    LOW_BITS,
    NO_NUMBER,
    ROWS,
    PairRow,
    Slot,
    slot_of,
)
from chronovisor.engine.native.pairs import Key, Pair, link
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction
from chronovisor.isa.values import mask

_OPCODE = 0x3F << 26
_LOW = mask(LOW_BITS)
_FIRST_COUNT = 1 << 11
#: Words of which it is remembered how they are decoded.
_REMEMBERED = 1 << 16


@dataclass(frozen=True)
class Handlers:
    """The addresses of an instruction's handlers and filler. ``near`` is 0 if no jump of it is known."""

    far: int
    near: int
    fill: int


def _bits(one: Instruction) -> int:
    """The bits of a word that tell whether the word is this instruction, and its static fields."""
    bits = one.mask
    for name in one.statics:
        for first, last in FIELDS[name].pieces:
            bits |= mask(last - first + 1) << (31 - last)
    return bits


@cache
def significant() -> array[int]:
    """For each primary opcode and low bits: the bits of such words that tell which handler they get.

    Those are the bits that any instruction looks at which such a word may be. The low bits that any
    instruction of the opcode looks at are always among them, so that words with other rows have other bits.
    """
    rows = array("I", [0]) * ROWS
    by_opcode: dict[int, list[tuple[int, int, int]]] = {}
    for one in (*INSTRUCTIONS, *UNIMPLEMENTED, *RESERVED):
        by_opcode.setdefault(one.opcode, []).append((one.mask & _LOW, one.match & _LOW, _bits(one)))
    for opcode in range(1 << 6):
        declared = by_opcode.get(opcode, [])
        deciding = 0
        for low_mask, _, _ in declared:
            deciding |= low_mask
        found = dict.fromkeys(_subsets(deciding), _OPCODE | deciding)
        for low_mask, low_match, bits in declared:
            for low in _subsets(deciding & ~low_mask):
                found[low | low_match] |= bits
        begin = opcode << LOW_BITS
        rows[begin : begin + _LOW + 1] = array("I", [found[low & deciding] for low in range(_LOW + 1)])
    return rows


def _subsets(bits: int) -> Iterable[int]:
    """All numbers that have no ones outside ``bits``."""
    one = bits
    while True:
        yield one
        if not one:
            return
        one = (one - 1) & bits


class DecodeTable:
    """What the words of a machine mode are decoded to.

    A table is of the handlers that there are when it is made, and of those that ``find`` loads at once.
    """

    def __init__(
        self,
        find: Callable[[Key], tuple[Handlers | None, bool]],
        pairs: Iterable[tuple[Pair, int]],
        slow: Handlers,
    ) -> None:
        """``find`` says an instruction's handlers, None if it has none, and whether they may come later.

        ``pairs`` have the addresses of their handlers. ``slow`` has those of an instruction without any.
        """
        self._find = find
        self._slow = slow
        self._pairs: dict[Key, list[tuple[Pair, int]]] = {}
        for pair, handler in pairs:
            self._pairs.setdefault(pair.first, []).append((pair, handler))
        self._numbers: dict[Key, int] = {}
        self._rows: dict[Key, ctypes.Array[PairRow]] = {}
        self._learning = threading.Lock()
        self._significant = significant()
        self.significant_at = self._significant.buffer_info()[0]
        self._known: set[int] = set()
        self.slots = _empty(_FIRST_COUNT)
        """Replaced as a whole when it grows."""

    def learn(self, word: int) -> None:
        """Give the word a slot. A word that many threads come to is learnt once."""
        bits = word & self._significant[(word >> 26) << LOW_BITS | (word & _LOW)]
        with self._learning:
            if bits in self._known:
                return
            slot = self._slot(bits, word)
            if len(self._known) >= _REMEMBERED:
                self._known, self.slots = set(), _empty(_FIRST_COUNT)
            elif 2 * len(self._known) >= len(self.slots):
                self.slots = _grown(self.slots)
            self._known.add(bits)
            _put(self.slots, slot)

    def _slot(self, bits: int, word: int) -> Slot:
        one = decode(word)
        key = None if one is None else (one, one.meaning_statics(word))
        found, early = (None, False) if key is None else self._find(key)
        if key is None or found is None:
            slow = self._slow
            return Slot(bits, slow.far, 0, slow.fill, NO_NUMBER, 0, 0, early)
        rows = self._rows_of(key)
        return Slot(
            *(bits, found.far, found.near, found.fill),
            *(self._number(key), ctypes.addressof(rows), len(rows), False),
        )

    def _number(self, key: Key) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _rows_of(self, key: Key) -> ctypes.Array[PairRow]:
        """The pairs that an instruction begins."""
        rows = self._rows.get(key)
        if rows is None:
            made = [self._row(pair, handler) for pair, handler in self._pairs.get(key, ())]
            rows = self._rows[key] = (PairRow * len(made))(*made)
        return rows

    def _row(self, pair: Pair, handler: int) -> PairRow:
        linked = link(pair)
        where = (0, 0, 0, 0) if linked is None else linked.places
        return PairRow(self._number(pair.second), *where, handler)


Slots = ctypes.Array[Slot]


def _empty(count: int) -> Slots:
    slots = (Slot * count)()
    for slot in slots:
        slot.word = EMPTY
    return slots


def _put(slots: Slots, slot: Slot) -> None:
    place = slot_of(slot.word, len(slots))
    while slots[place].word != EMPTY:
        place = (place + 1) % len(slots)
    bits, slot.word = slot.word, EMPTY
    slots[place] = slot
    # Last: a thread that decodes meanwhile finds a whole slot or none.
    slots[place].word = bits


def _grown(old: Slots) -> Slots:
    slots = _empty(2 * len(old))
    for slot in old:
        if slot.word != EMPTY:
            _put(slots, Slot.from_buffer_copy(slot))
    return slots
