"""The machine code around the instructions of a line: how control comes to them, and how it leaves.

The code is x86-64's. In a line two registers mean something else than in handlers: see ``stencils``.
"""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS
from chronovisor.engine.native.emitter import I8, I16, I32, I64, POINTER, Emitter, word
from chronovisor.engine.native.layout import (
    PAGE_INSTRUCTIONS,
    RECORD_HANDLER,
    RECORD_OFFSET,
    RECORD_SIZE,
    RECORD_WIDE,
)
from chronovisor.engine.native.line_links import TABLE_SIZE, Links, link, table_place

#: Places that a line has for jumps to pieces behind it; a stencil has at most so many.
MOST_JUMPS, MOST_JUMPS_OF_ONE = 256, 6
#: What `_jumps` has of each: the place of the distance, and the piece's number.
_JUMP_SIZE = 16
#: The pieces of each instruction: the way to its own handler, and the way to the target of its jump.
_OWN, _TAKEN, _PIECES = 0, 1, 2

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


class LineCode(Emitter):
    """Puts code behind ``first``, for the block whose records are at ``records``."""

    def __init__(self, function: ir.Function, records: ir.Value, first: ir.Value) -> None:
        super().__init__(function, {})
        b = self.b
        self.records = records
        #: The address behind the code.
        self.out = b.alloca(I64)
        b.store(b.ptrtoint(first, I64), self.out)
        #: The address of each instruction's code in the line, 0 if its handler goes on doing it; and then of
        #: its entry.
        self.line, self.entries = (b.alloca(I64, size=BLOCK_INSTRUCTIONS) for _ in range(2))
        #: The jumps to pieces, and the addresses of those, 0 before they are made.
        self.jumps = b.alloca(I64, size=2 * MOST_JUMPS)
        self.pieces = b.alloca(I64, size=_PIECES * BLOCK_INSTRUCTIONS)
        self.jump_count = b.alloca(I64)
        b.store(word(0), self.jump_count)
        self._links = Links(self)
        #: The number of the first instruction in the page, and the page's records.
        offset = b.load(self.at(records, RECORD_OFFSET), typ=I16)
        self.first = b.lshr(b.zext(offset, I64), word(2))
        self.page = self.at(records, b.mul(self.first, word(-RECORD_SIZE)))
        with self.each(word(_PIECES * BLOCK_INSTRUCTIONS)) as number:
            b.store(word(0), self.element(self.pieces, number))

    # What is read

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

    # Code

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

    def leave_line(self, target: ir.Value) -> None:
        """From the line to the record of the instruction with this number in the page."""
        self._code(_ADD_TO_RECORD, (self.b.mul(target, word(RECORD_SIZE)), I32))
        self._code(_ADD_TO_BUDGET, (self.b.neg(target), I32))
        self._code(_JUMP_BY_RECORD)

    def go_to(self, target: ir.Value, moved: ir.Value) -> None:
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
        self._links.add(self.load(self.out), target)
        self._put(word(0), I32)
        self.leave_line(target)

    def _end(self) -> None:
        """From the end of the line to the instruction behind it."""
        b = self.b
        behind = b.add(self.first, word(BLOCK_INSTRUCTIONS))
        inside, outside, done = (self.block_named(n) for n in ("inside", "outside", "end_made"))
        b.cbranch(b.icmp_unsigned("<", behind, word(PAGE_INSTRUCTIONS)), inside, outside)
        b.position_at_end(inside)
        self.go_to(behind, word(0))
        b.branch(done)
        b.position_at_end(outside)
        self.leave_line(behind)
        b.branch(done)
        b.position_at_end(done)

    # The pieces

    def note_jump(self, at: ir.Value, number: ir.Value, own: ir.Value) -> None:
        """Note a jump, whose distance is at an address, to an instruction's own handler or to its target."""
        b, count = self.b, self.load(self.jump_count)
        jump = self.at(self.jumps, b.mul(count, word(_JUMP_SIZE)))
        piece = b.select(own, word(_OWN), word(_TAKEN))
        b.store(at, jump)
        b.store(b.add(b.mul(number, word(_PIECES)), piece), self.at(jump, 8))
        b.store(b.add(count, word(1)), self.jump_count)

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

    def target(self, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The number of a jump's target, and how far that is beyond the instruction behind the jump."""
        b = self.b
        distance = self.load(self.at(self.record(number), RECORD_WIDE))
        target = b.add(number, b.sdiv(distance, word(RECORD_SIZE)))
        return target, b.sub(b.sub(target, number), word(1))

    def _taken(self, number: ir.Value) -> None:
        """From the line to an instruction's target: within the line if the target is behind it there."""
        b = self.b
        target, moved = self.target(number)
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
        self.go_to(b.add(self.first, target), moved)
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

    # All of it

    def finish(self) -> None:
        """Put what belongs to the line behind it, and have records and other lines lead to it."""
        b = self.b
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

    def _link(self) -> None:
        """Put the line's table behind the line, and link it."""
        b = self.b
        at = b.and_(b.add(self.load(self.out), word(7)), word(-8))
        b.store(self._links.put_table(at, self.line), self.out)
        block = b.udiv(self.first, word(BLOCK_INSTRUCTIONS))
        b.store(at, table_place(self, self.page, block))
        link(self, self.page, block)
