"""CR and XER in a region: each bit that the region changes is a value of one bit.

Meanings read and write these registers as a whole. Here a field's change becomes that of its bits, and a test
of a bit reads that bit, so a compare and the branch behind it meet in one value, as do two additions and the
carry between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import or_
from typing import Final, Protocol

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8, I64, word
from chronovisor.engine.regions.code import Site
from chronovisor.isa.registers import REGISTERS
from chronovisor.isa.values import Value, mask

NAMES: Final = ("CR", "XER")

Maker = Callable[[], ir.Value]
"""What makes a field of CR, 8 bits."""
Change = tuple[int, "Maker | None"]
"""Bits that changed, as a mask; and what makes them if they are a field of CR; None: their values do."""
Known = tuple[frozenset[int], tuple[Change, ...]]
"""The numbers of the bits that are in their places; and what changed and is not settled, in order."""


def is_read(v: Value) -> bool:
    """Whether a value is one of the registers as a whole."""
    return v.op == "get" and v.detail in NAMES


def replaced(site: Site, v: Value) -> tuple[str, int, Value] | None:
    """The register that a value is, but for some bits; these bits as a mask; what has their new values.

    None if the value is no such register with some known bits replaced.
    """
    if v.op != "or" or v.args[0].op != "and" or not is_read(v.args[0].args[0]):
        return None
    read, kept = v.args[0].args[0], site.constant(v.args[0].args[1])
    return None if kept is None else (str(read.detail), ~kept & mask(read.width), v.args[1])


def comparison(v: Value) -> tuple[Value, Value, Value] | None:
    """Of a field of CR that a comparison sets: less, equal and the summary overflow; None for another value.

    Exactly one of the field's first three bits is set.
    """
    if v.op != "zext" or v.args[0].op != "concat":
        return None
    first, overflow = v.args[0].args
    if first.op != "concat" or first.args[0].op != "concat":
        return None
    (less, greater), equal = first.args[0].args, first.args[1]
    is_rest = greater.op == "not" and greater.args[0].op == "or" and greater.args[0].args == (less, equal)
    is_pair = less.op in ("slt", "ult") and equal.op == "eq" and less.args == equal.args
    return (less, equal, overflow) if is_rest and is_pair else None


def read_again(v: Value) -> tuple[str, int] | None:
    """The register and the number of the bit that a value of one bit is; None for another value."""
    if v.op != "extract" or v.width != 1 or not is_read(v.args[0]):
        return None
    assert isinstance(v.detail, int)
    return str(v.args[0].detail), v.detail


def bits(ones: int) -> Iterator[int]:
    """The numbers of the bits of a mask that are ones; 0 is the least significant."""
    while ones:
        lowest = ones & -ones
        yield lowest.bit_length() - 1
        ones ^= lowest


def changed(sites: Iterable[Site], name: str) -> int:
    """The bits of a register that any of the instructions changes, as a mask."""
    whole = mask(REGISTERS[name].width)
    found = 0
    for site in sites:
        assert site.program is not None
        for s in site.program.statements():
            if s.op == "set" and s.detail == name:
                one = replaced(site, s.args[0])
                found |= whole if one is None or one[0] != name else one[1]
    return found


class StateAccess(Protocol):
    """What is needed of a function in the making."""

    b: ir.IRBuilder

    def at(self, base: ir.Value, offset: int) -> ir.Value:
        """The address ``offset`` bytes behind ``base``."""

    def field(self, name: str) -> ir.Value:
        """The address of a field of the state."""

    def read_state(self, name: str) -> ir.Value:
        """A field as it is in the state."""

    def write_state(self, name: str, value: ir.Value) -> None:
        """Set a field in the state."""


class BitRegister:
    """A register in the making of one function: each bit that the function changes is a value of one bit.

    The state has the register, but for the changes that are not settled yet.
    """

    def __init__(self, low: StateAccess, name: str, ones: int) -> None:
        self._low, self._b = low, low.b
        self.name = name
        self._width = REGISTERS[name].width
        self._ones = ones
        self._places = {number: self._b.alloca(I1) for number in bits(ones)}
        #: How often it was written: a value that was read before a write must not be taken behind it.
        self.version = 0
        self.known: Known = (frozenset(), ())

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        place = self._places.get(number)
        if place is None:
            return self._kept(number)
        valid, changes = self.known
        if number not in valid:
            self._b.store(self._kept(number), place)
            self.known = valid | {number}, changes
        return self._b.load(place, typ=I1)

    def _kept(self, number: int) -> ir.Value:
        """A bit in the state."""
        return self._bit_of(self._low.read_state(self.name), number)

    def _bit_of(self, value: ir.Value, number: int) -> ir.Value:
        shifted = self._b.lshr(value, ir.Constant(value.type, number)) if number else value
        return self._b.trunc(shifted, I1)

    def load(self) -> None:
        """Have each bit that is changed in its place."""
        for number in self._places:
            self.bit(number)

    def part(self, low: int, width: int, kind: ir.Type | None = None) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        kind = kind or ir.IntType(width)
        result: ir.Value = ir.Constant(kind, 0)
        for number in range(width):
            bit = self.bit(low + number)
            wide = bit if kind == I1 else self._b.zext(bit, kind)
            result = self._b.or_(result, self._b.shl(wide, ir.Constant(kind, number)))
        return result

    def settle(self, everything: bool = False) -> None:
        """Have the changes in the state; or ``everything`` that the function changes, which is loaded."""
        valid, changes = self.known
        if everything:
            changes = ((self._ones, None),)
        if changes:
            self._write(changes)
        self.known = valid, ()

    def _write(self, changes: tuple[Change, ...]) -> None:
        b, changed = self._b, reduce(or_, (ones for ones, _ in changes))
        whole = b.and_(self._low.read_state(self.name), word(~changed & mask(self._width)))
        for number in bits(changed):
            whole = b.or_(whole, b.shl(b.zext(self.bit(number), I64), word(number)))
        self._low.write_state(self.name, whole)

    def whole(self, everything: bool) -> ir.Value:
        """The register in its width, which is settled before."""
        self.settle(everything)
        whole = self._low.read_state(self.name)
        return whole if self._width == I64.width else self._b.trunc(whole, ir.IntType(self._width))

    def changed_as_bits(self) -> None:
        """Any bit may have changed, and is in its place."""
        self.known = frozenset(self._places), ((self._ones, None),)

    def replace(self, ones: int, value: ir.Value, make: Maker | None = None) -> None:
        """Give the bits of a mask their values in ``value``, which has the register's width.

        ``make`` makes the same, if these bits are a field of CR and there is a cheaper way to it.
        """
        b = self._b
        for number, bit in [(number, self._bit_of(value, number)) for number in bits(ones)]:
            b.store(bit, self._places[number])
        valid, changes = self.known
        before = tuple(one for one in changes if one[0] & ~ones)
        self.known = valid | set(bits(ones)), (*before, (ones, make))
        self.version += 1


class ConditionRegister(BitRegister):
    """CR: the state has each of its fields in a byte, so that one can be set without the others."""

    def _field(self, low: int) -> ir.Value:
        """The address of the field whose least significant bit has this number."""
        return self._low.at(self._low.field("CR_FIELDS"), (self._width - low) // _FIELD - 1)

    def _kept(self, number: int) -> ir.Value:
        inside = number % _FIELD
        return self._bit_of(self._b.load(self._field(number - inside), typ=I8), inside)

    def _write(self, changes: tuple[Change, ...]) -> None:
        makers: dict[int, Maker | None] = {}
        for ones, make in changes:
            for low in {number - number % _FIELD for number in bits(ones)}:
                makers[low] = make if ones == mask(_FIELD) << low else None
        for low, one in makers.items():
            self._b.store(self.part(low, _FIELD, I8) if one is None else one(), self._field(low))


_FIELD = 4
"""The bits of a field of CR."""


def bit_register(low: StateAccess, name: str, ones: int) -> BitRegister:
    """A register of NAMES whose bits of a mask are changed."""
    return ConditionRegister(low, name, ones) if name == "CR" else BitRegister(low, name, ones)
