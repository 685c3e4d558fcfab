"""The native function that decodes a block of instructions.

The function knows instructions by a table of *slots*, a hash table with open addressing. For a primary
opcode and the 11 lowest bits of a word, ``significant`` has the bits of the word that tell which handler the
word gets. Those bits of the word are its slot's ``word``. ``chronovisor.engine.native.decode_table`` fills
the table.
"""

from __future__ import annotations

import ctypes

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I32, I64, POINTER, Emitter, word
from chronovisor.engine.native.fillers import FILL
from chronovisor.engine.native.layout import RECORD_HANDLER, RECORD_SIZE
from chronovisor.engine.state import CACHE_BLOCK

BLOCK_INSTRUCTIONS = CACHE_BLOCK // 4

#: Bits of an instruction word that select a row of ``significant`` besides the primary opcode.
LOW_BITS = 11
ROWS = 1 << (6 + LOW_BITS)

#: The ``word`` of a slot that is not used.
EMPTY = (1 << 64) - 1
#: The ``number`` of a slot that makes no pairs.
NO_NUMBER = (1 << 64) - 1

#: What `decode_block` returns instead of a word that has no slot.
DONE = -1
DONE_EARLY = -2


def _words(*names: str) -> list[tuple[str, type[ctypes.c_uint64]]]:
    return [(name, ctypes.c_uint64) for name in names]


class Slot(ctypes.Structure):
    """What words with certain significant bits become.

    ``far`` and ``near`` are the addresses of the handlers, ``fill`` is that of the filler. ``number`` names
    the instruction in pairs; ``pairs`` is the address of ``pair_count`` of them that it begins. ``early`` is
    1 if a handler may come.
    """

    _fields_ = _words("word", "far", "near", "fill", "number", "pairs", "pair_count", "early")


class PairRow(ctypes.Structure):
    """A pair of which the first instruction is known.

    A second instruction makes the pair if its ``number`` is ``second`` and if the fields of the two words,
    ``word >> shift & mask``, are equal and at least ``least``.
    """

    _fields_ = _words("second", "first_shift", "second_shift", "mask", "least", "handler")


def slot_of(bits: int, count: int) -> int:
    """The slot at which the search for some bits begins, in a table of ``count`` slots: a power of 2."""
    return (bits * _SPREAD >> _HASH_SHIFT & ((1 << _HASH_BITS) - 1)) & (count - 1)


def first_slot(b: ir.IRBuilder, bits: ir.Value, within: ir.Value) -> ir.Value:
    """The same in native code; ``within`` is the count less 1."""
    hashed = b.and_(b.lshr(b.mul(bits, word(_SPREAD)), word(_HASH_SHIFT)), word((1 << _HASH_BITS) - 1))
    return b.and_(hashed, within)


_SPREAD = 0x9E3779B97F4A7C15
_HASH_SHIFT, _HASH_BITS = 40, 24


class _Decoder(Emitter):
    def __init__(self, module: ir.Module) -> None:
        kind = ir.FunctionType(I64, [POINTER, POINTER, I64, POINTER, POINTER, I64, I64])
        super().__init__(ir.Function(module, kind, "chronovisor_decode_block"), {})
        self.significant, self.slots, self.count, self.records, *rest = self.function.args
        self.source, self.swap, self.offset = rest
        b = self.b
        #: Of each instruction: its slot's address, its word, and whether it is a near jump.
        self.found, self.words, self.nears = (b.alloca(I64, size=BLOCK_INSTRUCTIONS) for _ in range(3))
        self.early = b.alloca(I64)
        b.store(word(0), self.early)

    def element(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """The address of an element of 64 bits."""
        return self.at(array, self.b.shl(number, word(3)))

    def load(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """An element of 64 bits."""
        return self.b.load(self.element(array, number), typ=I64)

    def part(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        """A field of a structure."""
        return self.b.load(self.at(base, getattr(kind, name).offset), typ=I64)

    def slot(self, number: ir.Value) -> ir.Value:
        """The slot of an instruction of the block."""
        return self.b.inttoptr(self.load(self.found, number), POINTER)

    def record(self, number: ir.Value) -> ir.Value:
        """The record of an instruction of the block."""
        return self.at(self.records, self.b.mul(number, word(RECORD_SIZE)))

    def fill(self) -> None:
        """Find each instruction's slot and fill its record; return the word of one that has no slot."""
        b, before = self.b, self.b.block
        loop, probe, used, hit, on, missing, done = (
            self.block_named(n) for n in ("fill", "probe", "used", "hit", "probe_on", "missing", "filled")
        )
        b.branch(loop)
        b.position_at_end(loop)
        number = b.phi(I64)
        number.add_incoming(word(0), before)
        # One load: the guest may be changing the word.
        raw = b.load(self.at(self.source, b.shl(number, word(2))), typ=I32)
        swapped = b.select(b.icmp_unsigned("!=", self.swap, word(0)), b.bswap(raw), raw)
        text = b.zext(swapped, I64)
        b.store(text, self.element(self.words, number))
        opcode = b.shl(b.lshr(text, word(26)), word(LOW_BITS))
        row = b.or_(opcode, b.and_(text, word((1 << LOW_BITS) - 1)))
        mask = b.load(self.at(self.significant, b.shl(row, word(2))), typ=I32)
        bits = b.and_(text, b.zext(mask, I64))
        within = b.sub(self.count, word(1))
        start = first_slot(b, bits, within)
        b.branch(probe)

        b.position_at_end(probe)
        place = b.phi(I64)
        place.add_incoming(start, loop)
        slot = self.at(self.slots, b.mul(place, word(ctypes.sizeof(Slot))))
        there = self.part(slot, Slot, "word")
        b.cbranch(b.icmp_unsigned("==", there, bits), hit, used)
        b.position_at_end(used)
        b.cbranch(b.icmp_unsigned("==", there, word(EMPTY)), missing, on)
        b.position_at_end(on)
        place.add_incoming(b.and_(b.add(place, word(1)), within), on)
        b.branch(probe)
        b.position_at_end(missing)
        b.ret(text)

        b.position_at_end(hit)
        b.store(b.ptrtoint(slot, I64), self.element(self.found, number))
        filler = b.inttoptr(self.part(slot, Slot, "fill"), ir.PointerType(FILL))
        offset = b.add(self.offset, b.shl(number, word(2)))
        near = b.call(filler, [self.record(number), text, offset])
        b.store(near, self.element(self.nears, number))
        early = b.load(self.early, typ=I64)
        b.store(b.or_(early, self.part(slot, Slot, "early")), self.early)
        following = b.add(number, word(1))
        number.add_incoming(following, hit)
        b.cbranch(b.icmp_unsigned("<", following, word(BLOCK_INSTRUCTIONS)), loop, done)
        b.position_at_end(done)

    def publish(self) -> None:
        """Store each record's handler: that of the instruction, or that of a pair which begins with it."""
        b, before = self.b, self.b.block
        loop, search, scan, on, alone, store, done = (
            self.block_named(f"publish_{n}")
            for n in ("loop", "search", "scan", "scan_on", "alone", "store", "done")
        )
        b.branch(loop)
        b.position_at_end(loop)
        number = b.phi(I64)
        number.add_incoming(word(0), before)
        slot = self.slot(number)
        following = b.add(number, word(1))
        last = b.icmp_unsigned("==", following, word(BLOCK_INSTRUCTIONS))
        count = b.select(last, word(0), self.part(slot, Slot, "pair_count"))
        first_row = self.part(slot, Slot, "pairs")
        end = b.add(first_row, b.mul(count, word(ctypes.sizeof(PairRow))))
        b.cbranch(b.icmp_unsigned("==", count, word(0)), alone, search)

        b.position_at_end(search)
        second = self.slot(following)
        number_of_second = self.part(second, Slot, "number")
        # A pair's jump is within the page.
        jumps = b.icmp_unsigned("!=", self.part(second, Slot, "near"), word(0))
        stays = b.icmp_unsigned("!=", self.load(self.nears, following), word(0))
        words = self.load(self.words, number), self.load(self.words, following)
        b.cbranch(b.icmp_unsigned("==", jumps, stays), scan, alone)
        b.position_at_end(scan)
        at = b.phi(I64)
        at.add_incoming(first_row, search)
        row = b.inttoptr(at, POINTER)
        mask = self.part(row, PairRow, "mask")
        one, other = (
            b.and_(b.lshr(text, self.part(row, PairRow, shift)), mask)
            for text, shift in zip(words, ("first_shift", "second_shift"), strict=True)
        )
        is_pair = ir.Constant(I1, 1)
        for condition in (
            b.icmp_unsigned("==", self.part(row, PairRow, "second"), number_of_second),
            b.icmp_unsigned("==", one, other),
            b.icmp_unsigned(">=", other, self.part(row, PairRow, "least")),
        ):
            is_pair = b.and_(is_pair, condition)
        paired = self.part(row, PairRow, "handler")
        b.cbranch(is_pair, store, on)
        b.position_at_end(on)
        next_row = b.add(at, word(ctypes.sizeof(PairRow)))
        at.add_incoming(next_row, on)
        b.cbranch(b.icmp_unsigned("<", next_row, end), scan, alone)

        b.position_at_end(alone)
        is_near = b.icmp_unsigned("!=", self.load(self.nears, number), word(0))
        own = b.select(is_near, self.part(slot, Slot, "near"), self.part(slot, Slot, "far"))
        b.branch(store)

        b.position_at_end(store)
        handler = b.phi(I64)
        handler.add_incoming(paired, scan)
        handler.add_incoming(own, alone)
        place = self.at(self.record(number), RECORD_HANDLER)
        # One store of eight bytes: no thread sees half an address.
        b.store(handler, place)
        number.add_incoming(following, store)
        b.cbranch(last, done, loop)
        b.position_at_end(done)


def define_decode_block(module: ir.Module) -> ir.Function:
    """Define ``decode_block(significant, slots, count, records, words, swap, offset)``.

    It fills the records of a block from its words in memory, of which the first is ``offset`` bytes from the
    beginning of its page; ``swap`` is 1 if the words' bytes are reversed. It returns DONE, or DONE_EARLY if a
    handler that comes later may change the records, or a word that has no slot: then no record has a handler
    yet.
    """
    e = _Decoder(module)
    e.fill()
    # All operands are there before any handler is: a pair's handler reads the next record, too.
    e.b.fence("release")
    e.publish()
    early = e.b.icmp_unsigned("!=", e.b.load(e.early, typ=I64), word(0))
    e.b.ret(e.b.select(early, word(DONE_EARLY), word(DONE)))
    return e.function
