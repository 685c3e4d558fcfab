"""Stencils: the machine code of single instructions, to be copied one behind the other and completed.

A stencil does what its instruction's handler does, but control falls from it into the code of the instruction
behind it, in the *line* of a block of instructions. It has *holes* for what a record says of its instruction:
the place of a register, or a number. ``chronovisor.engine.native.assembling`` makes lines from stencils (copy
and patch).

Within a line two of a handler's arguments mean something else. The record is that of the page's first
instruction, and the budget is what it would be if control had come from that instruction straight on. It is
enough for what is left of the line. So an instruction that only computes need not see to either.

A stencil does what is usual. Anything else it leaves, undone, to the instruction's own handler.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from chronovisor.engine.native.changed_bits import replaced
from chronovisor.engine.native.emitter import (
    HANDLER,
    HANDLER_CONVENTION,
    HANDLER_POINTER,
    I1,
    I8,
    I64,
    MIDDLE,
    POINTER,
    REACH_POINTER,
    word,
)
from chronovisor.engine.native.encoding import bound
from chronovisor.engine.native.layout import PAGE_INSTRUCTIONS, RECORD_HANDLER, Left
from chronovisor.engine.native.lowering import Lowering, Mode
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.engine.native.state_layout import OFFSETS, file_field
from chronovisor.engine.native.stencil_variants import (
    NUMBER_BITS,
    NoStencilError,
    Variant,
    computed,
    is_number,
)
from chronovisor.isa.registers import FILES, RegisterFile
from chronovisor.isa.values import Value, mask

#: The ways on from a stencil: to the code of the instruction behind, to the target of a jump in the page, and
#: to the instruction's own handler.
NEXT, TAKEN, OWN = "chronovisor_next", "chronovisor_taken", "chronovisor_own"

#: Instructions behind which code that another thread has changed must be seen: by way of the next record.
SYNCHRONIZING = frozenset({"isync"})

_CR_FIELDS, _CR_FIELD = 8, 4
_FIELD_ONES = ir.Constant(I8, mask(_CR_FIELD))
#: How assembly language names the width of a rotation.
_ROTATES = {32: "l", 64: "q"}
_SIGNED = (-(1 << NUMBER_BITS - 1), 1 << NUMBER_BITS - 1)
#: The numbers that holes have, by their kinds, as LLVM has ranges. "gpr" is the place of a general-purpose
#: register, but not of the one that is always zero; "number" and "unsigned" are wide values of 32 bits,
#: extended by their sign or by zeros; "position" is that of the instruction in its page,
#: and "spent" is what is to be added to a line's budget behind it.
_RANGES = {
    "gpr": (-(1 << 7), 1 << 7),
    "small": _SIGNED,
    "byte": (-(1 << 7), 1 << 7),
    "number": _SIGNED,
    "unsigned": (0, 1 << NUMBER_BITS),
    "wide": (-1, -1),
    "offset": (0, 1 << 16),
    "position": (0, PAGE_INSTRUCTIONS),
    "spent": (-PAGE_INSTRUCTIONS, 0),
}
_LIKELY = [4000, 1]


class Hole(NamedTuple):
    """A hole for ``base + (number << shift)``; ``place`` is that of the number in the record, by ``kind``."""

    kind: str
    place: int = 0
    shift: int = 0
    base: int = 0

    @property
    def symbol(self) -> str:
        """Its name in assembly language."""
        base = f"m{-self.base}" if self.base < 0 else str(self.base)
        return f"hole.{self.kind}.{self.place}.{self.shift}.{base}"

    @classmethod
    def named(cls, symbol: str) -> Hole | None:
        """The hole with this name; None for the name of anything else."""
        name, *parts = symbol.split(".")
        if name != "hole":
            return None
        kind, place, shift, base = parts
        return cls(kind, int(place), int(shift), int(base.replace("m", "-")))


def rotation(v: Value) -> tuple[Value, Value] | None:
    """What is rotated left, and by how many bits (fewer than it has), if a value is a rotation."""
    if v.op != "or" or v.args[0].op != "shl" or v.args[1].op != "lshr":
        return None
    (what, amount), (other, rest) = v.args[0].args, v.args[1].args
    if what is not other or rest.op != "and" or rest.args[0].op != "sub":
        return None
    whole, taken = rest.args[0].args
    known = whole.detail == v.width and rest.args[1].detail == v.width - 1
    return (what, amount) if known and taken is amount and bound(amount) < v.width else None


def comparison(v: Value) -> tuple[Value, Value, Value] | None:
    """Less, equal and the summary overflow bit, if a value is `Machine.compare`'s."""
    if v.op != "concat" or v.width != _CR_FIELD or v.args[0].op != "concat":
        return None
    overflow, (order, equal) = v.args[1], v.args[0].args
    if order.op != "concat" or order.args[1].op != "not":
        return None
    less, neither = order.args[0], order.args[1].args[0]
    known = neither.op == "or" and neither.args[0] is less and neither.args[1] is equal
    return (less, equal, overflow) if known else None


class StencilLowering(Lowering):
    """A program on its way into a stencil."""

    def __init__(self, module: ir.Module, name: str, mode: Mode, variant: Variant) -> None:
        super().__init__(module, name, mode, LOWERINGS)
        # Jumps to other code are conditional ones, and the code behind them falls through.
        self.function.attributes.add("optsize")
        self._variant = variant
        self._places: dict[int, int] = {}
        """The places in the record's bytes of numbers of registers, by the ids of their LLVM values."""
        self._line = self.record, self.budget
        self.budget = self.b.sub(self.budget, self._hole(Hole("position")))

    # Operands

    def _from_record(self, v: Value, width: int) -> ir.Value:
        known = self._constant(v)
        if known is not None:
            return ir.Constant(ir.IntType(width), known & mask(width))
        hole = self._hole_of(v)
        if hole is None:
            return ir.Constant(ir.IntType(width), 0)
        found = self._hole(hole)
        resized = found if width == I64.width else self.b.trunc(found, ir.IntType(width))
        if hole.kind == "small":
            self._places[id(resized)] = hole.place
        return resized

    def _hole_of(self, v: Value) -> Hole | None:
        """The hole for a value from the record; None if the value is 0."""
        assert self.encoding is not None
        kind, place = self.encoding.places[id(v)]
        if kind == "small":
            first, other = self._variant.equal or (place, place)
            return Hole(kind, first if place == other else place)
        kind = self._variant.wide.get(place, kind)
        if kind == "zero":
            return None
        return Hole("number" if kind == "wide" and is_number(self.encoding.wide[place]) else kind, place)

    def _chosen(self, v: Value, read: Value) -> ir.Value:
        if self._variant.is_zero:
            return ir.Constant(ir.IntType(v.width), 0)
        return super()._chosen(v, read)

    def _hole(self, hole: Hole) -> ir.Value:
        return self.b.ptrtoint(self._symbol(hole), I64)

    def _symbol(self, hole: Hole) -> ir.Value:
        module, name = self.function.module, hole.symbol
        if name not in module.globals:
            # A symbol that is a number, not an address: it may be 0, or equal to another one.
            made = ir.GlobalVariable(module, I8, name)
            made.linkage, made.global_constant = "external", True
            values = list(map(word, _RANGES[hole.kind]))
            made.set_metadata("absolute_symbol", module.add_metadata(values))
        return module.globals[name]

    def register(self, file: RegisterFile, number: ir.Value) -> ir.Value:
        """The address of a register of a file."""
        place = self._places.get(id(number))
        if place is None:
            return super().register(file, number)
        kind = "gpr" if file is FILES["GPR"] else "small"
        shift, base = (file.width // 8).bit_length() - 1, OFFSETS[file_field(file)] - MIDDLE
        return self.at(self._middle, self._hole(Hole(kind, place, shift, base)))

    def offset_of(self, record: ir.Value) -> ir.Value:
        """The offset of the instruction in its page, in bytes."""
        return self._hole(Hole("offset"))

    # What LLVM has no short code for

    def by_operation(self, v: Value) -> None:
        """Do one statement: a rotation, or a comparison's outcome, as x86-64 does it best."""
        found = self._rotated(v)
        if found is None:
            found = self._outcome(v)
        if found is None:
            super().by_operation(v)
        else:
            self.values[id(v)] = found

    def _rotated(self, v: Value) -> ir.Value | None:
        """A value rotated by a number from the record; None if ``v`` is anything else."""
        found = rotation(v)
        if found is None or self.encoding is None:
            return None
        if self.encoding.places.get(id(found[1]), ("", 0))[0] != "small":
            return None
        what, amount = found
        if what.op == "concat" and what.args[0] is what.args[1] and bound(amount) < what.args[0].width:
            half = self._rotated_by(self.value(what.args[0]), amount)
            whole = self.b.zext(half, self.integer(v.width))
            high = self.b.shl(whole, ir.Constant(whole.type, half.type.width))
            return self.b.or_(high, whole)
        return self._rotated_by(self.value(what), amount)

    def _rotated_by(self, what: ir.Value, amount: Value) -> ir.Value:
        # LLVM would have the number in a register.
        hole = self._hole_of(amount)
        letter = _ROTATES.get(what.type.width)
        assert hole is not None
        assert letter is not None
        kind = ir.FunctionType(what.type, [what.type, POINTER])
        code = ir.InlineAsm(kind, f"rol{letter} $2, $0", "=r,0,i,~{flags}")
        return self.b.call(code, [what, self._symbol(hole)])

    def _outcome(self, v: Value) -> ir.Value | None:
        """The field of CR after a comparison; None if ``v`` is anything else."""
        found = comparison(v)
        if found is None:
            return None
        b, kind = self.b, self.integer(v.width)
        less, equal, overflow = map(self.value, found)
        outcome = b.select(equal, ir.Constant(kind, 0b0010), ir.Constant(kind, 0b0100))
        outcome = b.select(less, ir.Constant(kind, 0b1000), outcome)
        return b.or_(outcome, b.zext(overflow, kind))

    # CR, of which the state has each field in a byte

    def statement(self, v: Value) -> None:
        """Do one statement. If it changes a part of CR, the other fields stay as they are."""
        changed = replaced(self._constant, v.args[0]) if v.op == "set" and v.detail == "CR" else None
        if changed is None or changed[0] != "CR":
            super().statement(v)
        else:
            self._set_fields(changed[1], self.value(changed[2]))

    def _constant(self, v: Value) -> int | None:
        return computed(v, self._variant.known)

    def _field(self, number: int) -> ir.Value:
        return self.at(self.field("CR_FIELDS"), number)

    @staticmethod
    def _shift(number: int) -> int:
        return _CR_FIELD * (_CR_FIELDS - 1 - number)

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state. Of the fields of CR, LLVM loads only those that matter."""
        if name != "CR":
            return super().read(name, width)
        b, kind = self.b, ir.IntType(width)
        whole: ir.Value = ir.Constant(kind, 0)
        for number in range(_CR_FIELDS):
            # Of the byte, only the field's bits count. LLVM cannot know that the others are 0.
            field = b.zext(b.and_(b.load(self._field(number), typ=I8), _FIELD_ONES), kind)
            whole = b.or_(whole, b.shl(field, ir.Constant(kind, self._shift(number))))
        return whole

    def _set_fields(self, ones: int, value: ir.Value) -> None:
        """Set those bits of CR that are in a mask."""
        b = self.b
        for number in range(_CR_FIELDS):
            shift = self._shift(number)
            changed = ones >> shift & mask(_CR_FIELD)
            if not changed:
                continue
            field = b.and_(
                b.trunc(b.lshr(value, ir.Constant(value.type, shift)), I8), ir.Constant(I8, changed)
            )
            if changed != mask(_CR_FIELD):
                kept = b.load(self._field(number), typ=I8)
                field = b.or_(b.and_(kept, ir.Constant(I8, mask(_CR_FIELD) & ~changed)), field)
            b.store(field, self._field(number))

    # Where control goes

    def _go_to(self, name: str) -> None:
        """Go on in the line, or leave it by code that sees to the arguments."""
        module = self.function.module
        if name not in module.globals:
            ir.Function(module, HANDLER, name).calling_convention = HANDLER_CONVENTION
        record, budget = self._line
        self.go_on(module.globals[name], record, budget)

    def leave(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Leave the instruction, undone, to its handler."""
        self._go_to(OWN)

    def miss(self, ea: ir.Value, size: int, store: bool) -> None:
        """Leave an access that the TLB lacks to the handler."""
        self._go_to(OWN)

    def leave_done(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Stencils hand no thread back behind their instruction."""
        raise NoStencilError

    def continue_at(self, record: ir.Value) -> None:
        """Go on with the instruction at ``record``. There is some budget left."""
        handler = self.b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        self.go_on(handler, record, self.b.add(self._line[1], self._hole(Hole("spent"))))

    def jump(self, target: ir.Value) -> None:
        """Go on at an address in another page. One function finds all their records: lines are short."""
        function = self.b.load(self.field("reach"), typ=REACH_POINTER)
        self.continue_at(self.b.call(function, [self.state, target]))

    def finish(self) -> None:
        """Go on with the next instruction: fall through unless the program said otherwise."""
        if self.ended:
            return
        b = self.b
        jumps, falls = self.block_named("jumps"), self.block_named("falls")
        # What falls through is to lie last.
        b.cbranch(b.load(self.jumped, typ=I1), jumps, falls).set_weights(_LIKELY)
        b.position_at_end(falls)
        self._go_to(NEXT)
        b.position_at_end(jumps)
        if self.encoding is not None and self.encoding.jump is not None:
            self._go_to(TAKEN)
        else:
            self.jump(b.load(self.nia, typ=I64))
