"""CR and XER in a region: each bit that the region changes is a value of one bit.

Meanings read and write these registers as a whole. Here a field's change becomes that of its bits, and a test
of a bit reads that bit, so a compare and the branch behind it meet in one value, as do two additions and the
carry between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import or_
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I64, word
from chronovisor.engine.regions.code import Site
from chronovisor.isa.registers import REGISTERS
from chronovisor.isa.values import Value, mask

NAMES: Final = ("CR", "XER")

Change = tuple[int, "Callable[[], ir.Value]"]
"""Bits that changed, as a mask; and what makes their values, of 64 bits with zeros around."""
Known = tuple[frozenset[int], tuple[Change, ...]]
"""The numbers of the bits that are in their places; and what changed and is not settled, the first one first."""


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


class BitRegister:
    """A register in the making of one function: each bit that the function changes is a value of one bit.

    The state has the register as a whole, but for the changes that are not settled yet.
    """

    def __init__(self, builder: ir.IRBuilder, name: str, ones: int, kept: Callable[[], ir.Value]) -> None:
        self._b = builder
        self.name = name
        self._width = REGISTERS[name].width
        self._ones = ones
        #: Reads the whole in the state, 64 bits.
        self._kept = kept
        self._places = {number: builder.alloca(I1) for number in bits(ones)}
        #: How often it was written: a value that was read before a write must not be taken behind it.
        self.version = 0
        self.known: Known = (frozenset(), ())

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        place = self._places.get(number)
        if place is None:
            return self._bit_of(self._kept(), number)
        valid, changes = self.known
        if number not in valid:
            self._b.store(self._bit_of(self._kept(), number), place)
            self.known = valid | {number}, changes
        return self._b.load(place, typ=I1)

    def _bit_of(self, value: ir.Value, number: int) -> ir.Value:
        shifted = self._b.lshr(value, ir.Constant(value.type, number)) if number else value
        return self._b.trunc(shifted, I1)

    def load(self) -> None:
        """Have each bit that is changed in its place."""
        for number in self._places:
            self.bit(number)

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        kind = ir.IntType(width)
        result: ir.Value = ir.Constant(kind, 0)
        for number in range(width):
            bit = self.bit(low + number)
            wide = bit if width == 1 else self._b.zext(bit, kind)
            result = self._b.or_(result, self._b.shl(wide, ir.Constant(kind, number)))
        return result

    def packed(self) -> ir.Value:
        """The register as a whole, 64 bits, made of its bits."""
        result = self._b.and_(self._kept(), word(~self._ones & mask(64)))
        for number in self._places:
            wide = self._b.zext(self.bit(number), I64)
            result = self._b.or_(result, self._b.shl(wide, word(number)))
        return result

    def whole(self) -> ir.Value:
        """The register as a whole, 64 bits, made of what the state has and of the changes."""
        b, changes = self._b, self.known[1]
        whole, later = self._kept(), 0
        changed = reduce(or_, (ones for ones, _ in changes), 0)
        if changed:
            whole = b.and_(whole, word(~changed & mask(64)))
        for ones, make in reversed(changes):
            made = make()
            # What a later change replaced once more is that change's.
            whole = b.or_(whole, b.and_(made, word(ones & ~later)) if ones & later else made)
            later |= ones
        return whole

    def settled(self) -> None:
        """The state has the whole."""
        self.known = self.known[0], ()

    def changed_as_bits(self) -> None:
        """Any bit may have changed, and is in its place."""
        self.known = frozenset(self._places), ((self._ones, self._changed_bits),)

    def _changed_bits(self) -> ir.Value:
        return self._b.and_(self.packed(), word(self._ones))

    def replace(self, ones: int, value: ir.Value, make: Callable[[], ir.Value] | None = None) -> None:
        """Give the bits of a mask their values in ``value``, which has the register's width.

        ``make`` makes the same, of 64 bits with zeros around, if there is a cheaper way to it.
        """
        b = self._b
        for number, bit in [(number, self._bit_of(value, number)) for number in bits(ones)]:
            b.store(bit, self._places[number])

        def masked() -> ir.Value:
            return b.and_(value if value.type == I64 else b.zext(value, I64), word(ones))

        valid, changes = self.known
        before = tuple(one for one in changes if one[0] & ~ones)
        self.known = valid | set(bits(ones)), (*before, (ones, make or masked))
        self.version += 1

    def narrow(self, whole: ir.Value) -> ir.Value:
        """A whole of 64 bits in the register's width."""
        return whole if self._width == I64.width else self._b.trunc(whole, ir.IntType(self._width))
