"""Fillers: native functions that write an instruction's operands into its record.

A filler is ``fill(record, word, offset)``: the instruction word and the instruction's offset within its page,
in bytes. It returns 1 if it filled the record for the handler of a jump within the page, else 0. Instructions
whose operands are computed in the same way share a filler.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from llvmlite import ir

from chronovisor.engine.native.emitter import I8, I64, POINTER, Emitter, Row, word
from chronovisor.engine.native.encoding import ADDRESS, Encoding
from chronovisor.engine.native.layout import PAGE_SHIFT, RECORD_SMALL, RECORD_WIDE, SMALL_COUNT, WIDE_COUNT
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.values import Value, mask

FILL = ir.FunctionType(I64, [POINTER, I64, I64])

#: Two addresses of an instruction. A jump whose distance differs between the two depends on the address.
_ADDRESSES = (1 << 28, 3 << 28)


def shape(far: Encoding, near: Encoding | None) -> Hashable:
    """What the filler of an instruction depends on. ``near`` is None if no jump is known at decoding."""
    layouts = [far] if near is None else [far, near]
    values = [(*map(_shape, one.wide), None, *map(_shape, one.small)) for one in layouts]
    return (*values, None if near is None or near.target is None else _shape(near.target))


def _shape(v: Value) -> Hashable:
    if v.op != "operand" or v.detail == ADDRESS:
        return (v.op, v.width, v.detail, *map(_shape, v.args))
    field = FIELDS[str(v.detail)]
    return (field.pieces, field.kind is Kind.SIGNED, field.shift)


class _Filler(Emitter):
    def __init__(self, module: ir.Module, name: str) -> None:
        super().__init__(ir.Function(module, FILL, name), _ROWS)
        self.function.attributes.add("nounwind")
        self.record, self.word, self.offset = self.function.args
        self.address = _ADDRESSES[0]

    def computed(self, v: Value) -> ir.Value:
        """The LLVM value of a fixed one."""
        for a in v.args:
            self.computed(a)
        self.statement(v)
        return self.value(v)

    def fill(self, layout: Encoding) -> None:
        """Write all operands of the record; those that the handler does not read become 0."""
        for n, wide in enumerate(self._padded(layout.wide, I64, WIDE_COUNT)):
            self.b.store(wide, self.at(self.record, RECORD_WIDE + (8 * n)))
        for n, small in enumerate(self._padded(layout.small, I8, SMALL_COUNT)):
            self.b.store(small, self.at(self.record, RECORD_SMALL + n))

    def _padded(self, values: Sequence[Value], kind: ir.IntType, count: int) -> list[ir.Value]:
        found = [_resized(self, self.computed(v), kind) for v in values]
        return found + [ir.Constant(kind, 0)] * (count - len(found))

    def distance(self, target: Value, address: int) -> ir.Value:
        """How far an instruction at this address jumps, in bytes."""
        self.address = address
        return self.b.sub(self.computed(target), word(address))


def _resized(e: Emitter, value: ir.Value, kind: ir.IntType) -> ir.Value:
    if value.type.width == kind.width:
        return value
    return e.b.zext(value, kind) if value.type.width < kind.width else e.b.trunc(value, kind)


def _operand(e: _Filler, v: Value) -> ir.Value:
    """A field of the instruction word, as `Field.decode` has it, or the instruction's address."""
    if v.detail == ADDRESS:
        return word(e.address)
    field, b = FIELDS[str(v.detail)], e.b
    number: ir.Value = word(0)
    for first, last in field.pieces:
        size = last - first + 1
        piece = b.and_(b.lshr(e.word, word(31 - last)), word(mask(size)))
        number = b.or_(b.shl(number, word(size)), piece)
    if field.kind is Kind.SIGNED:
        above = word(64 - field.width)
        number = b.ashr(b.shl(number, above), above)
    return b.shl(number, word(field.shift))


_ROWS: dict[str, Row] = {**PURE_ROWS, "operand": _operand}


def define_filler(module: ir.Module, name: str, far: Encoding, near: Encoding | None) -> ir.Function:
    """Define the filler of an instruction.

    ``near`` is the layout for a jump within the instruction's page, or None if no jump is known at decoding.
    """
    e = _Filler(module, name)
    b = e.b
    if near is not None:
        assert near.target is not None
        one, other = (e.distance(near.target, address) for address in _ADDRESSES)
        inside = b.icmp_unsigned("<", b.add(e.offset, one), word(1 << PAGE_SHIFT))
        jumps_far, jumps_near = e.block_named("far"), e.block_named("near")
        b.cbranch(b.and_(b.icmp_unsigned("==", one, other), inside), jumps_near, jumps_far)
        b.position_at_end(jumps_near)
        e.address = _ADDRESSES[0]
        e.fill(near)
        b.ret(word(1))
        b.position_at_end(jumps_far)
    e.fill(far)
    b.ret(word(0))
    return e.function


def define_fill_nothing(module: ir.Module) -> None:
    """Define the filler of instructions that are the concrete evaluator's: all operands become 0."""
    define_filler(module, "chronovisor_fill_nothing", Encoding((), (), {}, {}, None), None)
