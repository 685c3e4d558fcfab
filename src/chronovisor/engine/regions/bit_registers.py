"""CR and XER in a region: each bit that the region changes is a value of one bit.

Meanings read and write these registers as a whole. Here a field's change becomes that of its bits, and a test
of a bit reads that bit, so a compare and the branch behind it meet in one value, as do two additions and the
carry between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I64, word
from chronovisor.engine.regions.code import Site
from chronovisor.isa.registers import REGISTERS
from chronovisor.isa.values import Value, mask

NAMES: Final = ("CR", "XER")


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
    """A register of one region: its value as a whole, and each bit that the region changes.

    In a tight loop only bits are changed; ``settle`` makes the whole of them.
    """

    def __init__(self, builder: ir.IRBuilder, name: str, ones: int) -> None:
        self._b = builder
        self._width = REGISTERS[name].width
        self.all = mask(self._width)
        """All bits, as a mask."""
        self._ones = ones
        self._whole = builder.alloca(I64)
        self._places = {number: builder.alloca(I1) for number in bits(ones)}
        #: How often it was written: a value that was read before a write must not be taken behind it.
        self.version = 0

    def enter(self, whole: ir.Value) -> None:
        """Give the register its value at an entry of the region, 64 bits."""
        self._b.store(whole, self._whole)
        for number, place in self._places.items():
            self._b.store(self._bit_of(whole, number), place)

    def _bit_of(self, value: ir.Value, number: int) -> ir.Value:
        shifted = self._b.lshr(value, ir.Constant(value.type, number)) if number else value
        return self._b.trunc(shifted, I1)

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        place = self._places.get(number)
        return self._bit_of(self.settled(), number) if place is None else self._b.load(place, typ=I1)

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        kind = ir.IntType(width)
        result: ir.Value = ir.Constant(kind, 0)
        for number in range(width):
            bit = self.bit(low + number)
            wide = bit if width == 1 else self._b.zext(bit, kind)
            result = self._b.or_(result, self._b.shl(wide, ir.Constant(kind, number)))
        return result

    def settled(self) -> ir.Value:
        """The register as a whole, 64 bits."""
        return self._b.load(self._whole, typ=I64)

    def _packed(self) -> ir.Value:
        """The register, made of its bits."""
        result = self._b.and_(self.settled(), word(~self._ones & self.all))
        for number in self._places:
            wide = self._b.zext(self.bit(number), I64)
            result = self._b.or_(result, self._b.shl(wide, word(number)))
        return result

    def settle(self) -> None:
        """Make the whole of the bits."""
        self._b.store(self._packed(), self._whole)

    def replace(self, ones: int, value: ir.Value, settle: bool, field: ir.Value | None = None) -> None:
        """Give the bits of a mask their values in ``value``, which has the register's width.

        If not ``settle``, the whole is not to be used before it is settled. ``field`` is the value once more,
        of 64 bits, if there is a cheaper way to it.
        """
        b = self._b
        for number, bit in [(number, self._bit_of(value, number)) for number in bits(ones)]:
            b.store(bit, self._places[number])
        if settle:
            if field is None:
                field = b.and_(value if value.type == I64 else b.zext(value, I64), word(ones))
            kept = b.and_(self.settled(), word(~ones & self.all))
            b.store(b.or_(kept, field), self._whole)
        self.version += 1

    def read(self, settled: bool) -> ir.Value:
        """The register in its width."""
        whole = self.settled() if settled else self._packed()
        return whole if self._width == I64.width else self._b.trunc(whole, ir.IntType(self._width))
