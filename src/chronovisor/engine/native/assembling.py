"""The native function that puts the code of a block together from stencils.

The code has a *line*: the stencils of the block's instructions, one behind the other. Beside it are short
pieces that see to what a line has its own way of, the record and the budget. Control comes to an instruction
of the line by its *entry*, to which the record leads, or from another line of the page by a link (see
``line_links``), and leaves the line by pieces behind the line's instructions.
"""

from __future__ import annotations

import ctypes

from llvmlite import ir

from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS, first_slot
from chronovisor.engine.native.emitter import I1, I8, I16, I32, I64, POINTER, word
from chronovisor.engine.native.layout import RECORD_OFFSET, RECORD_SMALL, RECORD_WIDE
from chronovisor.engine.native.line_code import MOST_JUMPS, MOST_JUMPS_OF_ONE, LineCode
from chronovisor.engine.native.stencil_tables import ANY_RECORD, Patch, Source, Stencil

#: How far from a line handlers may be, in bytes.
_REACH = (1 << 31) - (1 << 20)


class Known(ctypes.Structure):
    """A handler, and the stencil that does the same: in a hash table with open addressing, 0 if unused.

    If ``place`` is not ANY_RECORD, the handler has several stencils, and ``stencil`` is the address of a list
    of their addresses. The number at that place of the record's bytes tells which one it is.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("handler", "place", "stencil")]


class Book(ctypes.Structure):
    """What is known of a machine mode: addresses, and the mask of numbers of places in ``known``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("known", "mask", "patches", "code")]


class _Assembler(LineCode):
    def __init__(self, module: ir.Module) -> None:
        kind = ir.FunctionType(I64, [POINTER, POINTER, POINTER])
        function = ir.Function(module, kind, "chronovisor_assemble")
        self.book, records, first = function.args
        super().__init__(function, records, first)
        self.fits, self.found, self.jumps_before = (self.b.alloca(kind) for kind in (I1, I64, I64))

    # What is read and written

    def part(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        """A field of a structure."""
        field = getattr(kind, name)
        loaded = self.b.load(self.at(base, field.offset), typ=ir.IntType(8 * field.size))
        return loaded if field.size == ctypes.sizeof(ctypes.c_uint64) else self.b.zext(loaded, I64)

    def pointer(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        """An address in a structure."""
        return self.b.inttoptr(self.part(base, kind, name), POINTER)

    # The code

    def assemble(self) -> None:
        """Put the code together, then have the records lead to it."""
        with self.each(word(BLOCK_INSTRUCTIONS)) as number:
            self._one(number)
        self.finish()
        self.b.ret(self.load(self.out))

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
            self.leave_line(b.add(self.first, number))

    def _try(self, number: ir.Value, first: ir.Value, out: ir.Value) -> None:
        """Take the first stencil of those from ``first`` on whose holes can be filled."""
        b, before = self.b, self.b.block
        trying, fits, on, done = (self.block_named(n) for n in ("try", "fits", "try_on", "tried"))
        # Jumps have distances of 32 bits.
        away = b.add(b.sub(self.handler(number), out), word(_REACH))
        near = b.icmp_unsigned("<", away, word(2 * _REACH))
        room = b.icmp_unsigned("<=", self.load(self.jump_count), word(MOST_JUMPS - MOST_JUMPS_OF_ONE))
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
            target, moved = self.target(number)
            self.go_to(b.add(self.first, target), moved)
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
                self.note_jump(at, number, b.icmp_unsigned("==", source, word(Source.OWN)))
            self._fill_one(patch, at, value)

    def _raw(self, patch: ir.Value, number: ir.Value, source: ir.Value) -> ir.Value:
        """The number that a patch is about."""
        b, place, record = self.b, self.part(patch, Patch, "number"), self.record(number)
        small, other = (self._small(record, self.part(patch, Patch, name)) for name in ("number", "other"))
        wide = self.load(self.element(self.at(record, RECORD_WIDE), b.and_(place, word(1))))
        offset = b.zext(b.load(self.at(record, RECORD_OFFSET), typ=I16), I64)
        found = position = b.lshr(offset, word(2))
        for kind, value in (
            (Source.SMALL, small),
            (Source.WIDE, wide),
            (Source.OFFSET, offset),
            (Source.DIFFERENCE, b.sub(small, other)),
            (Source.SPENT, b.not_(position)),
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


def define_assemble(module: ir.Module) -> ir.Function:
    """Define ``assemble(book, records, out)``: it returns the address behind the code.

    It puts the code of a block together at ``out``, which has to have room for it. From the block's records
    on, then, control goes to that code. What has no stencil stays with its handler, which the code goes on
    to. The caller has the lock of the mode's records.
    """
    assembler = _Assembler(module)
    assembler.assemble()
    return assembler.function
