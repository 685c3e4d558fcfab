"""CR in a region: its fields are values of LLVM's, or what comparisons have found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from llvmlite import ir

from chronovisor.engine.native.emitter import I8
from chronovisor.engine.regions.bit_registers import Compared, Known, PartedRegister, StateAccess, bits
from chronovisor.isa.values import mask

_FIELD = 4
"""The bits of a field of CR."""
_FEW = 2
"""Of so many fields at most a value is put together; more are read at once."""
_FROM_XER = 1 << _FIELD
"""In a field's place: its least significant bit is what XER's SO is when the field is settled."""


@dataclass(frozen=True)
class _Field:
    """What a field of CR is: 8 bits, or the outcome of a comparison; and whether the state has it."""

    value: ir.Value | Compared
    is_settled: bool


class ConditionRegister(PartedRegister):
    """CR: the state has each of its fields in a byte, so that one can be set without the others.

    Known are fields, by the numbers of their least significant bits. Those that the tight loop changes have
    places.
    """

    nothing: Known = MappingProxyType({})

    def __init__(self, low: StateAccess, name: str, in_loop: int) -> None:
        super().__init__(low, name)
        self._places = {low: self._b.alloca(I8) for low in _fields(in_loop)}

    def _field(self, low: int) -> ir.Value:
        """The address of the field whose least significant bit has this number."""
        return self._low.at(self._low.field("CR_FIELDS"), (self._width - low) // _FIELD - 1)

    def _present(self, low: int) -> ir.Value | Compared:
        """A field's value, which is known from here on."""
        if low not in self.known:
            place = self._places.get(low) if self._low.is_in_loop else None
            value = (
                self._b.load(self._field(low), typ=I8)
                if place is None
                else self._exact(self._b.load(place, typ=I8))
            )
            self._know(low, _Field(value, True))
        return self.known[low].value

    def _know(self, low: int, field: _Field) -> None:
        self.known = MappingProxyType({**self.known, low: field})

    def _exact(self, kept: ir.Value) -> ir.Value:
        """The field whose place has this."""
        b = self._b
        overflow = b.and_(b.lshr(kept, _byte(_FIELD)), b.zext(self._low.summary_overflow(), I8))
        return b.or_(b.and_(kept, _byte(mask(_FIELD))), overflow)

    def _made(self, value: ir.Value | Compared, in_place: bool = False) -> ir.Value:
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
        inside = number % _FIELD
        value = self._present(number - inside)
        if not isinstance(value, Compared):
            return self._bit_of(value, inside)
        if inside == 0:
            return value.overflow()
        return (value.equal, self._b.not_(self._b.or_(value.less, value.equal)), value.less)[inside - 1]

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        if low % _FIELD == 0 and width == _FIELD:
            return self._b.trunc(self._made(self._present(low)), ir.IntType(_FIELD))
        return super().part(low, width)

    def few(self, ones: int) -> ir.Value | None:
        """The bits of a mask where they are in the register, if they are of few fields."""
        b, fields = self._b, _fields(ones)
        if len(fields) > _FEW:
            return None
        kind = ir.IntType(self._width)
        found: ir.Value = ir.Constant(kind, 0)
        for low in fields:
            field = b.and_(self._made(self._present(low)), _byte(ones >> low & mask(_FIELD)))
            found = b.or_(found, b.shl(b.zext(field, kind), ir.Constant(kind, low)))
        return found

    def enter_loop(self) -> None:
        """Have what the loop changes in its places."""
        for low, place in self._places.items():
            self._b.store(self._b.load(self._field(low), typ=I8), place)

    def join_in_loop(self) -> Known:
        """What is known where control comes from two sides in the loop, of which this is one."""
        return self.nothing

    def settle(self) -> None:
        """Write the changes to the state. In a tight loop, write everything that the loop changes."""
        if self._low.is_in_loop:
            for low, place in self._places.items():
                self._b.store(self._exact(self._b.load(place, typ=I8)), self._field(low))
        for low, field in self.known.items():
            if not field.is_settled:
                self._b.store(self._made(field.value), self._field(low))
        self.known = MappingProxyType({low: replace(one, is_settled=True) for low, one in self.known.items()})

    def _replace(self, ones: int, value: ir.Value, compared: Compared | None) -> None:
        b = self._b
        for low in _fields(ones):
            changed, field = ones >> low & mask(_FIELD), compared
            if compared is None:
                shifted = b.lshr(value, ir.Constant(value.type, low)) if low else value
                field = b.and_(b.trunc(shifted, I8), _byte(changed))
                if changed != mask(_FIELD):
                    kept = b.and_(self._made(self._present(low)), _byte(~changed & mask(_FIELD)))
                    field = b.or_(kept, field)
            if self._low.is_in_loop:
                b.store(self._made(field, in_place=True), self._places[low])
            self._know(low, _Field(field, self._low.is_in_loop))


def _fields(ones: int) -> list[int]:
    """The fields that have bits of a mask, by the numbers of their least significant bits."""
    return sorted({number - number % _FIELD for number in bits(ones)})


def _byte(value: int) -> ir.Constant:
    return ir.Constant(I8, value)
