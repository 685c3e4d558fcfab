"""CR in a region: its fields are values of LLVM's, or what comparisons have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8
from chronovisor.engine.regions.bit_registers import (
    FIELD,
    Compared,
    Comparison,
    Known,
    Maker,
    Origin,
    PartedRegister,
    StateAccess,
    bits,
)
from chronovisor.isa.values import mask

_FEW = 2
"""Of so many fields at most a value is put together; more are read at once."""
_FROM_XER = 1 << FIELD
"""In a field's place: its least significant bit is what XER's SO is when the field is settled."""


@dataclass(frozen=True)
class _Field:
    """What a field of CR is: 8 bits, or the outcome of a comparison; and whether the state has it."""

    value: ir.Value | Compared
    is_settled: bool


class _Place:
    """The place of a field that the tight loop changes. It has the field as the loop set it, but for SO."""

    def __init__(self, register: ConditionRegister, b: ir.IRBuilder) -> None:
        self._register, self._b = register, b
        self._kept = b.alloca(I8)

    def enter_loop(self, value: ir.Value) -> None:
        """The field has this value when the loop begins."""
        self._b.store(value, self._kept)

    def set(self, value: ir.Value | Compared) -> None:
        """The loop gives the field this value."""
        self._b.store(self._register.made(value, in_place=True), self._kept)

    def value(self) -> ir.Value:
        """The field."""
        b, kept = self._b, self._b.load(self._kept, typ=I8)
        overflow = b.and_(b.lshr(kept, _byte(FIELD)), b.zext(self._register.summary_overflow(), I8))
        return b.or_(b.and_(kept, _byte(mask(FIELD))), overflow)


class _PlaceOfComparisons(_Place):
    """The same for a field that comparisons alone set: it has what was compared last.

    So the outcome is made only when control leaves the loop. Operands of another kind are moved so that this
    kind of comparison finds the same.
    """

    def __init__(self, register: ConditionRegister, b: ir.IRBuilder, kind: Comparison) -> None:
        super().__init__(register, b)
        self._kind = kind
        self._operands = [b.alloca(ir.IntType(kind.width)) for _ in range(2)]
        self._is_compared = b.alloca(I1)

    def enter_loop(self, value: ir.Value) -> None:
        """The field has this value when the loop begins."""
        super().enter_loop(value)
        for place in self._operands:
            self._b.store(ir.Constant(place.allocated_type, 0), place)
        self._b.store(ir.Constant(I1, 0), self._is_compared)

    def set(self, value: ir.Value | Compared) -> None:
        """The loop gives the field this value."""
        assert isinstance(value, Compared)
        for operand, place in zip(value.operands, self._operands, strict=True):
            self._b.store(self._moved(operand, value.kind), place)
        self._b.store(ir.Constant(I1, 1), self._is_compared)

    def _moved(self, operand: ir.Value, kind: Comparison) -> ir.Value:
        """An operand of a kind of comparison as one of this place's kind."""
        b, to = self._b, ir.IntType(self._kind.width)
        if operand.type != to:
            return (b.sext if kind.is_signed else b.zext)(operand, to)
        lowest = ir.Constant(to, 1 << self._kind.width - 1)
        return operand if kind.is_signed == self._kind.is_signed else b.xor(operand, lowest)

    def value(self) -> ir.Value:
        """The field."""
        b = self._b
        one, other = [b.load(place, typ=place.allocated_type) for place in self._operands]
        compare = b.icmp_signed if self._kind.is_signed else b.icmp_unsigned
        less, equal = compare("<", one, other), compare("==", one, other)
        outcome = Compared(less, equal, self._register.summary_overflow, True, (one, other), self._kind)
        made = self._register.made(outcome)
        return b.select(b.load(self._is_compared, typ=I1), made, b.load(self._kept, typ=I8))


class ConditionRegister(PartedRegister):
    """CR: the state has each of its fields in a byte, so that one can be set without the others.

    Known are fields, by the numbers of their least significant bits. Those that the tight loop changes have
    places. Of some of them it is known by what kind of comparisons the loop sets them: see `compared`.
    """

    nothing: Known = MappingProxyType({})

    def __init__(self, low: StateAccess, name: str, in_loop: int, compared: Mapping[int, Comparison]) -> None:
        super().__init__(low, name)
        self._places = {
            low: _PlaceOfComparisons(self, self._b, compared[low])
            if low in compared
            else _Place(self, self._b)
            for low in _fields(in_loop)
        }

    def summary_overflow(self) -> ir.Value:
        """XER's SO, 1 bit, of a tight loop's field: the function leaves SO alone."""
        return self._low.summary_overflow()

    def _field(self, low: int) -> ir.Value:
        """The address of the field whose least significant bit has this number."""
        return self._low.at(self._low.field("CR_FIELDS"), (self._width - low) // FIELD - 1)

    def _present(self, low: int) -> ir.Value | Compared:
        """A field's value, which is known from here on."""
        if low not in self.known:
            place = self._places.get(low) if self._low.is_in_loop else None
            value = self._b.load(self._field(low), typ=I8) if place is None else place.value()
            self._know(low, _Field(value, True))
        return self.known[low].value

    def _know(self, low: int, field: _Field) -> None:
        self.known = MappingProxyType({**self.known, low: field})

    def made(self, value: ir.Value | Compared, in_place: bool = False) -> ir.Value:
        """A field as 8 bits. Callers make it only when something needs it: most fields are never read."""
        if not isinstance(value, Compared):
            return value
        b, later = self._b, _FROM_XER if in_place and value.is_later else 0
        kind = b.select(
            value.less, _byte(8 | later), b.select(value.equal, _byte(2 | later), _byte(4 | later))
        )
        return kind if later else b.or_(kind, b.zext(value.overflow(), I8))

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        inside = number % FIELD
        value = self._present(number - inside)
        if not isinstance(value, Compared):
            return self._bit_of(value, inside)
        if inside == 0:
            return value.overflow()
        return (value.equal, self._b.not_(self._b.or_(value.less, value.equal)), value.less)[inside - 1]

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        if low % FIELD == 0 and width == FIELD:
            return self._b.trunc(self.made(self._present(low)), ir.IntType(FIELD))
        return super().part(low, width)

    def few(self, ones: int) -> ir.Value | None:
        """The bits of a mask where they are in the register, if they are of few fields."""
        b, fields = self._b, _fields(ones)
        if len(fields) > _FEW:
            return None
        kind = ir.IntType(self._width)
        found: ir.Value = ir.Constant(kind, 0)
        for low in fields:
            field = b.and_(self.made(self._present(low)), _byte(ones >> low & mask(FIELD)))
            found = b.or_(found, b.shl(b.zext(field, kind), ir.Constant(kind, low)))
        return found

    def enter_loop(self) -> None:
        """Have what the loop changes in its places."""
        for low, place in self._places.items():
            place.enter_loop(self._b.load(self._field(low), typ=I8))

    def join_in_loop(self) -> Known:
        """What is known where control comes from two sides in the loop, of which this is one."""
        return self.nothing

    def settle(self) -> None:
        """Write the changes to the state. In a tight loop, write everything that the loop changes."""
        if self._low.is_in_loop:
            for low, place in self._places.items():
                self._b.store(place.value(), self._field(low))
        for low, field in self.known.items():
            if not field.is_settled:
                self._b.store(self.made(field.value), self._field(low))
        self.known = MappingProxyType({low: replace(one, is_settled=True) for low, one in self.known.items()})

    def _replace(self, ones: int, value: Maker, origin: Origin | None) -> None:
        b, compared = self._b, origin if isinstance(origin, Compared) else None
        for low in _fields(ones):
            changed, field = ones >> low & mask(FIELD), compared
            if compared is None:
                whole = value()
                shifted = b.lshr(whole, ir.Constant(whole.type, low)) if low else whole
                field = b.and_(b.trunc(shifted, I8), _byte(changed))
                if changed != mask(FIELD):
                    kept = b.and_(self.made(self._present(low)), _byte(~changed & mask(FIELD)))
                    field = b.or_(kept, field)
            if self._low.is_in_loop:
                self._places[low].set(field)
            self._know(low, _Field(field, self._low.is_in_loop))


def _fields(ones: int) -> list[int]:
    """The fields that have bits of a mask, by the numbers of their least significant bits."""
    return sorted({number - number % FIELD for number in bits(ones)})


def _byte(value: int) -> ir.Constant:
    return ir.Constant(I8, value)
