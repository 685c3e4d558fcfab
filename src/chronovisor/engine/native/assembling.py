"""The native function that puts the code of a block together from stencils.

The code has a *line*: the stencils of the block's instructions, one behind the other. Beside it are short
pieces that see to what a line has its own way of, the record and the budget. Control comes to an instruction
of the line by its *entry*, to which the record leads, or from another line of the page by a link (see
``line_links``), and leaves the line by pieces behind the line's instructions.
"""

from __future__ import annotations

import ctypes
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS, first_slot
from chronovisor.engine.native.emitter import I1, I8, I16, I32, I64, POINTER, Emitter, word
from chronovisor.engine.native.layout import (
    PAGE_INSTRUCTIONS,
    RECORD_HANDLER,
    RECORD_OFFSET,
    RECORD_SIZE,
    RECORD_SMALL,
    RECORD_WIDE,
)
from chronovisor.engine.native.line_links import TABLE_SIZE, Links, link, table_place
from chronovisor.engine.native.stencil_tables import ANY_RECORD, Patch, Source, Stencil

#: Places that a line has for jumps to pieces behind it; a stencil has at most so many.
_MOST_JUMPS, _MOST_JUMPS_OF_ONE = 256, 6
#: What `_jumps` has of each: the place of the distance, and the piece's number.
_JUMP_SIZE = 16
#: The pieces of each instruction: the way to its own handler, and the way to the target of its jump.
_OWN, _TAKEN, _PIECES = 0, 1, 2

#: How far from a line handlers may be, in bytes.
_REACH = (1 << 31) - (1 << 20)

#: The most bytes of the pieces of an instruction, the entry among them.
PIECES_SIZE: Final = 96
#: The most bytes of what is behind a line's instructions and pieces: its end, the table, and what aligns it.
END_SIZE: Final = 64 + TABLE_SIZE

#: x86-64's instructions, by their bytes: additions of 32 bits to the budget and the record, comparisons of
#: the budget with 8 and with 32 bits, jumps, and nothing.
_ADD_TO_BUDGET = b"\x49\x81\xc7"
_ADD_TO_RECORD = b"\x49\x81\xc4"
_COMPARE_BUDGET_8 = b"\x49\x83\xff"
_COMPARE_BUDGET = b"\x49\x81\xff"
_JUMP = b"\xe9"
_JUMP_IF_NOT_ABOVE = b"\x0f\x86"
_SKIP_JUMP_IF_NOT_ABOVE = b"\x76\x05"
_JUMP_BY_RECORD = b"\x41\xff\x24\x24"
_NOTHING = 0x90
#: What is before the distance of a link's jump: an addition, a comparison and two jumps' codes.
_LINK_BEGINS = 2 * (3 + 4) + 2 + 1


class Known(ctypes.Structure):
    """A handler, and the stencil that does the same: in a hash table with open addressing, 0 if unused.

    If ``place`` is not ANY_RECORD, the handler has several stencils, and ``stencil`` is the address of a list
    of their addresses. The number at that place of the record's bytes tells which one it is.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("handler", "place", "stencil")]


class Book(ctypes.Structure):
    """What is known of a machine mode: addresses, and the mask of numbers of places in ``known``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("known", "mask", "patches", "code")]


class _Assembler(Emitter):
    def __init__(self, module: ir.Module) -> None:
        kind = ir.FunctionType(I64, [POINTER, POINTER, POINTER])
        super().__init__(ir.Function(module, kind, "chronovisor_assemble"), {})
        self.book, self.records, first = self.function.args
        b = self.b
        #: The address of each instruction's code in the line, 0 if its handler goes on doing it; and then of
        #: its entry.
        self.line, self.entries = (b.alloca(I64, size=BLOCK_INSTRUCTIONS) for _ in range(2))
        #: The jumps to pieces, and the addresses of those, 0 before they are made.
        self.jumps = b.alloca(I64, size=2 * _MOST_JUMPS)
        self.pieces = b.alloca(I64, size=_PIECES * BLOCK_INSTRUCTIONS)
        self.out, self.jump_count, self.jumps_before = (b.alloca(I64) for _ in range(3))
        b.store(b.ptrtoint(first, I64), self.out)
        b.store(word(0), self.jump_count)
        self.fits, self.found = b.alloca(I1), b.alloca(I64)
        self.links = Links(self)
        #: The number of the first instruction in the page, and the page's records.
        offset = b.load(self.at(self.records, RECORD_OFFSET), typ=I16)
        self.first = b.lshr(b.zext(offset, I64), word(2))
        self.page = self.at(self.records, b.mul(self.first, word(-RECORD_SIZE)))

    # What is read and written

    def part(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        """A field of a structure."""
        field = getattr(kind, name)
        loaded = self.b.load(self.at(base, field.offset), typ=ir.IntType(8 * field.size))
        return loaded if field.size == ctypes.sizeof(ctypes.c_uint64) else self.b.zext(loaded, I64)

    def pointer(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        """An address in a structure."""
        return self.b.inttoptr(self.part(base, kind, name), POINTER)

    def element(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """The address of an element of 64 bits."""
        return self.at(array, self.b.shl(number, word(3)))

    def load(self, place: ir.Value) -> ir.Value:
        """64 bits."""
        return self.b.load(place, typ=I64)

    def record(self, number: ir.Value) -> ir.Value:
        """The record of an instruction of the block."""
        return self.at(self.records, self.b.mul(number, word(RECORD_SIZE)))

    def handler(self, number: ir.Value) -> ir.Value:
        """The address of an instruction's own handler."""
        return self.load(self.at(self.record(number), RECORD_HANDLER))

    # The code

    def assemble(self) -> None:
        """Put the code together, then have the records lead to it."""
        b = self.b
        with self.each(word(_PIECES * BLOCK_INSTRUCTIONS)) as number:
            b.store(word(0), self.element(self.pieces, number))
        with self.each(word(BLOCK_INSTRUCTIONS)) as number:
            self._one(number)
        self._end()
        with self.each(self.load(self.jump_count)) as number:
            self._jump_to_piece(number)
        with self.each(word(BLOCK_INSTRUCTIONS)) as number:
            self._entry(number)
        b.fence("release")
        with self.each(word(BLOCK_INSTRUCTIONS)) as number:
            entry = self.load(self.element(self.entries, number))
            with self.if_(b.icmp_unsigned("!=", entry, word(0))):
                b.store(entry, self.at(self.record(number), RECORD_HANDLER))
        self._link()
        b.ret(self.load(self.out))

    def _link(self) -> None:
        """Put the line's table behind the line, and link it."""
        b = self.b
        at = b.and_(b.add(self.load(self.out), word(7)), word(-8))
        self.links.put_table(at, self.line, self.entries)
        b.store(b.add(at, word(TABLE_SIZE)), self.out)
        block = b.udiv(self.first, word(BLOCK_INSTRUCTIONS))
        b.store(at, table_place(self, self.page, block))
        link(self, self.page, block)

    def _put(self, value: ir.Value, kind: ir.IntType) -> None:
        """Put a number behind the code."""
        b, out = self.b, self.load(self.out)
        b.store(value if kind is I64 else b.trunc(value, kind), b.inttoptr(out, POINTER)).align = 1
        b.store(b.add(out, word(kind.width // 8)), self.out)

    def _code(self, code: bytes, *operands: tuple[ir.Value, ir.IntType]) -> None:
        """Put an instruction behind the code: its bytes, then its operands."""
        for byte in code:
            self._put(word(byte), I8)
        for value, kind in operands:
            self._put(value, kind)

    def _jump(self, code: bytes, target: ir.Value) -> None:
        self._code(code)
        self._put(self.b.sub(target, self.b.add(self.load(self.out), word(4))), I32)

    def _leave_line(self, target: ir.Value) -> None:
        """From the line to the record of the instruction with this number in the page."""
        self._code(_ADD_TO_RECORD, (self.b.mul(target, word(RECORD_SIZE)), I32))
        self._code(_ADD_TO_BUDGET, (self.b.neg(target), I32))
        self._code(_JUMP_BY_RECORD)

    def _go_to(self, target: ir.Value, moved: ir.Value) -> None:
        """From the line to an instruction of the page, by a link if the budget is enough for its line.

        ``moved`` is how far it is beyond the instruction behind.
        """
        b = self.b
        aligning = b.and_(b.neg(b.add(self.load(self.out), word(_LINK_BEGINS))), word(3))
        with self.each(aligning):
            self._put(word(_NOTHING), I8)
        block = b.udiv(target, word(BLOCK_INSTRUCTIONS))
        self._code(_ADD_TO_BUDGET, (moved, I32))
        self._code(_COMPARE_BUDGET, (b.mul(b.add(block, word(1)), word(BLOCK_INSTRUCTIONS)), I32))
        self._code(_SKIP_JUMP_IF_NOT_ABOVE)
        self._code(_JUMP)
        self.links.add(self.load(self.out), target)
        self._put(word(0), I32)
        self._leave_line(target)

    def _end(self) -> None:
        """From the end of the line to the instruction behind it."""
        b = self.b
        behind = b.add(self.first, word(BLOCK_INSTRUCTIONS))
        inside, outside, done = (self.block_named(n) for n in ("inside", "outside", "end_made"))
        b.cbranch(b.icmp_unsigned("<", behind, word(PAGE_INSTRUCTIONS)), inside, outside)
        b.position_at_end(inside)
        self._go_to(behind, word(0))
        b.branch(done)
        b.position_at_end(outside)
        self._leave_line(behind)
        b.branch(done)
        b.position_at_end(done)

    def _one(self, number: ir.Value) -> None:
        """An instruction of the line: its stencil, if the stencil's holes can be filled."""
        b, record = self.b, self.record(number)
        b.store(word(0), self.element(self.line, number))
        b.store(ir.Constant(I1, 0), self.fits)
        b.store(self.load(self.jump_count), self.jumps_before)
        self._find(self.handler(number), record)
        out, first = self.load(self.out), self.load(self.found)
        with self.if_(b.icmp_unsigned("!=", first, word(0))):
            self._try(number, first, out)
        with self.if_(b.not_(b.load(self.fits, typ=I1))):
            b.store(self.load(self.jumps_before), self.jump_count)
            self._leave_line(b.add(self.first, number))

    def _try(self, number: ir.Value, first: ir.Value, out: ir.Value) -> None:
        """Take the first stencil of those from ``first`` on whose holes can be filled."""
        b, before = self.b, self.b.block
        trying, fits, on, done = (self.block_named(n) for n in ("try", "fits", "try_on", "tried"))
        # Jumps have distances of 32 bits.
        away = b.add(b.sub(self.handler(number), out), word(_REACH))
        near = b.icmp_unsigned("<", away, word(2 * _REACH))
        room = b.icmp_unsigned("<=", self.load(self.jump_count), word(_MOST_JUMPS - _MOST_JUMPS_OF_ONE))
        b.branch(trying)
        b.position_at_end(trying)
        at = b.phi(I64)
        at.add_incoming(first, before)
        stencil = b.inttoptr(at, POINTER)
        b.store(self.load(self.jumps_before), self.jump_count)
        b.store(b.and_(room, near), self.fits)
        size = self.part(stencil, Stencil, "size")
        self._copy(stencil, size, out)
        self._fill(stencil, number, out, b.add(out, size))
        b.cbranch(b.load(self.fits, typ=I1), fits, on)
        b.position_at_end(on)
        at.add_incoming(b.add(at, word(ctypes.sizeof(Stencil))), on)
        is_last = b.icmp_unsigned("!=", self.part(stencil, Stencil, "last"), word(0))
        b.cbranch(is_last, done, trying)
        b.position_at_end(fits)
        b.store(out, self.element(self.line, number))
        b.store(b.add(out, size), self.out)
        with self.if_(b.icmp_unsigned("!=", self.part(stencil, Stencil, "taken"), word(0))):
            target, moved = self._target(number)
            self._go_to(b.add(self.first, target), moved)
        b.branch(done)
        b.position_at_end(done)

    def _find(self, handler: ir.Value, record: ir.Value) -> None:
        """Find the stencil of a record with this handler, or 0."""
        b, before = self.b, self.b.block
        known, within = self.pointer(self.book, Book, "known"), self.part(self.book, Book, "mask")
        start = first_slot(b, handler, within)
        probe, used, hit, several, done = (
            self.block_named(n) for n in ("probe", "used", "hit", "several", "found")
        )
        b.store(word(0), self.found)
        b.branch(probe)
        b.position_at_end(probe)
        place = b.phi(I64)
        place.add_incoming(start, before)
        entry = self.at(known, b.mul(place, word(ctypes.sizeof(Known))))
        there = self.part(entry, Known, "handler")
        b.cbranch(b.icmp_unsigned("==", there, handler), hit, used)
        b.position_at_end(used)
        place.add_incoming(b.and_(b.add(place, word(1)), within), used)
        b.cbranch(b.icmp_unsigned("==", there, word(0)), done, probe)

        b.position_at_end(hit)
        first, which = self.part(entry, Known, "stencil"), self.part(entry, Known, "place")
        b.store(first, self.found)
        b.cbranch(b.icmp_unsigned("==", which, word(ANY_RECORD)), done, several)
        b.position_at_end(several)
        value = self._small(record, which)
        b.store(self.load(self.element(b.inttoptr(first, POINTER), value)), self.found)
        b.branch(done)
        b.position_at_end(done)

    def _copy(self, stencil: ir.Value, size: ir.Value, out: ir.Value) -> None:
        """Copy the code, eight bytes at a time."""
        b = self.b
        code = self.at(self.pointer(self.book, Book, "code"), self.part(stencil, Stencil, "at"))
        with self.each(b.lshr(b.add(size, word(7)), word(3))) as number:
            copied = self.load(self.element(code, number))
            copied.align = 1
            b.store(copied, self.element(b.inttoptr(out, POINTER), number)).align = 1

    def _fill(self, stencil: ir.Value, number: ir.Value, out: ir.Value, behind: ir.Value) -> None:
        """Fill the holes of code at ``out``; note its jumps to pieces."""
        b, size = self.b, word(ctypes.sizeof(Patch))
        first = b.mul(self.part(stencil, Stencil, "first_patch"), size)
        patches = self.at(self.pointer(self.book, Book, "patches"), first)
        with self.each(self.part(stencil, Stencil, "patch_count")) as patch_number:
            patch = self.at(patches, b.mul(patch_number, size))
            source, base = self.part(patch, Patch, "source"), self.part(patch, Patch, "base")
            at = b.add(out, self.part(patch, Patch, "at"))
            raw = self._raw(patch, number, source)
            value = b.add(b.shl(raw, self.part(patch, Patch, "shift")), base)
            is_next = b.icmp_unsigned("==", source, word(Source.NEXT))
            value = b.select(is_next, b.sub(b.add(behind, base), at), value)
            with self.if_(b.icmp_unsigned(">", source, word(Source.NEXT))):
                is_own = b.icmp_unsigned("==", source, word(Source.OWN))
                piece = b.select(is_own, word(_OWN), word(_TAKEN))
                count = self.load(self.jump_count)
                jump = self.at(self.jumps, b.mul(count, word(_JUMP_SIZE)))
                b.store(at, jump)
                b.store(b.add(b.mul(number, word(_PIECES)), piece), self.at(jump, 8))
                b.store(b.add(count, word(1)), self.jump_count)
            self._fill_one(patch, at, value)

    def _raw(self, patch: ir.Value, number: ir.Value, source: ir.Value) -> ir.Value:
        """The number that a patch is about."""
        b, place, record = self.b, self.part(patch, Patch, "number"), self.record(number)
        small, other = (self._small(record, self.part(patch, Patch, name)) for name in ("number", "other"))
        wide = self.load(self.element(self.at(record, RECORD_WIDE), b.and_(place, word(1))))
        offset = b.zext(b.load(self.at(record, RECORD_OFFSET), typ=I16), I64)
        found = b.lshr(offset, word(2))  # the position
        for kind, value in (
            (Source.SMALL, small),
            (Source.WIDE, wide),
            (Source.OFFSET, offset),
            (Source.DIFFERENCE, b.sub(small, other)),
        ):
            found = b.select(b.icmp_unsigned("==", source, word(kind)), value, found)
        return found

    def _small(self, record: ir.Value, place: ir.Value) -> ir.Value:
        return self.b.zext(self.b.load(self.at(self.at(record, RECORD_SMALL), place), typ=I8), I64)

    def _fill_one(self, patch: ir.Value, at: ir.Value, value: ir.Value) -> None:
        """Put a value into a hole, and note if it does not fit."""
        b, place = self.b, self.b.inttoptr(at, POINTER)
        filled = self.block_named("filled")
        unsigned = b.icmp_unsigned("!=", self.part(patch, Patch, "unsigned"), word(0))
        before = b.block
        choice = b.switch(self.part(patch, Patch, "size"), filled)
        b.position_at_end(filled)
        back = b.phi(I64)
        # What has no byte is 0.
        back.add_incoming(word(0), before)
        for kind in (I8, I16, I32, I64):
            choice.add_case(word(kind.width // 8), case := self.block_named(f"fill{kind.width}"))
            b.position_at_end(case)
            narrow = value if kind is I64 else b.trunc(value, kind)
            b.store(narrow, place).align = 1
            same = narrow if kind is I64 else b.select(unsigned, b.zext(narrow, I64), b.sext(narrow, I64))
            b.branch(filled)
            back.add_incoming(same, case)
        b.position_at_end(filled)
        same = b.icmp_unsigned("==", back, value)
        b.store(b.and_(b.load(self.fits, typ=I1), same), self.fits)

    # The pieces

    def _jump_to_piece(self, number: ir.Value) -> None:
        """Have a jump of the line lead to its piece, which is made if it is the first one."""
        b, jump = self.b, self.at(self.jumps, self.b.mul(number, word(_JUMP_SIZE)))
        at, piece = self.load(jump), self.load(self.at(jump, 8))
        place = self.element(self.pieces, piece)
        with self.if_(b.icmp_unsigned("==", self.load(place), word(0))):
            b.store(self.load(self.out), place)
            instruction = b.udiv(piece, word(_PIECES))
            own, taken, made = (self.block_named(n) for n in ("own", "taken", "piece_made"))
            b.cbranch(b.icmp_unsigned("==", b.urem(piece, word(_PIECES)), word(_OWN)), own, taken)
            b.position_at_end(own)
            self._own(instruction)
            b.branch(made)
            b.position_at_end(taken)
            self._taken(instruction)
            b.branch(made)
            b.position_at_end(made)
        distance = b.trunc(b.sub(self.load(place), b.add(at, word(4))), I32)
        b.store(distance, b.inttoptr(at, POINTER)).align = 1

    def _own(self, number: ir.Value) -> None:
        """From the line to an instruction's own handler."""
        b = self.b
        inside = b.add(self.first, number)
        self._code(_ADD_TO_RECORD, (b.mul(inside, word(RECORD_SIZE)), I32))
        self._code(_ADD_TO_BUDGET, (b.neg(inside), I32))
        self._jump(_JUMP, self.handler(number))

    def _target(self, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The number of a jump's target, and how far that is beyond the instruction behind the jump."""
        b = self.b
        distance = self.load(self.at(self.record(number), RECORD_WIDE))
        target = b.add(number, b.sdiv(distance, word(RECORD_SIZE)))
        return target, b.sub(b.sub(target, number), word(1))

    def _taken(self, number: ir.Value) -> None:
        """From the line to an instruction's target: within the line if the target is behind it there."""
        b = self.b
        target, moved = self._target(number)
        behind, within, line, linked, done = (
            self.block_named(n) for n in ("behind", "within", "in_line", "linked", "taken_made")
        )
        b.cbranch(b.icmp_signed(">", target, number), behind, linked)
        b.position_at_end(behind)
        b.cbranch(b.icmp_signed("<", target, word(BLOCK_INSTRUCTIONS)), within, linked)
        b.position_at_end(within)
        code = self.load(self.element(self.line, target))
        b.cbranch(b.icmp_unsigned("!=", code, word(0)), line, linked)
        b.position_at_end(line)
        self._code(_ADD_TO_BUDGET, (moved, I32))
        self._jump(_JUMP, code)
        b.branch(done)
        b.position_at_end(linked)
        self._go_to(b.add(self.first, target), moved)
        b.branch(done)
        b.position_at_end(done)

    def _entry(self, number: ir.Value) -> None:
        """To an instruction of the line from its record, if the budget is enough for the rest of the line.

        Control only goes forward in a line, and looks at the budget before it enters another.
        """
        b = self.b
        code = self.load(self.element(self.line, number))
        entry = self.element(self.entries, number)
        b.store(word(0), entry)
        with self.if_(b.icmp_unsigned("!=", code, word(0))):
            b.store(self.load(self.out), entry)
            inside = b.add(self.first, number)
            self._code(_COMPARE_BUDGET_8, (b.sub(word(BLOCK_INSTRUCTIONS), number), I8))
            self._jump(_JUMP_IF_NOT_ABOVE, self.handler(number))
            self._code(_ADD_TO_BUDGET, (inside, I32))
            self._code(_ADD_TO_RECORD, (b.mul(inside, word(-RECORD_SIZE)), I32))
            self._jump(_JUMP, code)


def define_assemble(module: ir.Module) -> None:
    """Define ``assemble(book, records, out)``: it returns the address behind the code.

    It puts the code of a block together at ``out``, which has to have room for it. From the block's records
    on, then, control goes to that code. What has no stencil stays with its handler, which the code goes on
    to. The caller has the lock of the mode's records.
    """
    _Assembler(module).assemble()
