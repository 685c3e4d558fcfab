"""The condition register in a region: each bit that the region changes is a value of one bit.

Meanings read and write the register as a whole. Here a field's change becomes that of four bits, and a test
of a bit reads that bit, so a compare and the branch behind it meet in one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I32, I64, word
from chronovisor.engine.regions.code import Site
from chronovisor.isa.values import Value

WIDTH = 32


def is_read(v: Value) -> bool:
    """Whether a value is the whole register."""
    return v.op == "get" and v.detail == "CR"


def replaced(site: Site, v: Value) -> tuple[int, Value] | None:
    """The bits that a new value of the register replaces, as a mask, and what has their new values.

    None if the value is not the register with some known bits replaced.
    """
    if v.op != "or" or v.args[0].op != "and" or not is_read(v.args[0].args[0]):
        return None
    kept = site.constant(v.args[0].args[1])
    return None if kept is None else (~kept & ((1 << WIDTH) - 1), v.args[1])


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits of a mask that are ones; 0 is the least significant."""
    return (number for number in range(WIDTH) if mask >> number & 1)


def changed(sites: Iterable[Site]) -> int:
    """The bits that any of the instructions changes, as a mask."""
    mask = 0
    for site in sites:
        assert site.program is not None
        for s in site.program.statements():
            if s.op == "set" and s.detail == "CR":
                found = replaced(site, s.args[0])
                mask |= (1 << WIDTH) - 1 if found is None else found[0]
    return mask


class ConditionRegister:
    """The register of one region. ``whole`` is its value at the region's entry, 64 bits."""

    def __init__(self, builder: ir.IRBuilder, mask: int, whole: ir.Value) -> None:
        self._b = builder
        self._mask = mask
        self._entered = whole
        self._places = {number: builder.alloca(I1) for number in bits(mask)}
        for number, place in self._places.items():
            builder.store(self._bit_of(whole, number), place)
        self.changes = bool(mask)
        """Whether the region changes it."""
        #: How often it was written: a value that was read before a write must not be taken behind it.
        self.version = 0

    def _bit_of(self, value: ir.Value, number: int) -> ir.Value:
        shifted = self._b.lshr(value, ir.Constant(value.type, number)) if number else value
        return self._b.trunc(shifted, I1)

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        place = self._places.get(number)
        return self._bit_of(self._entered, number) if place is None else self._b.load(place, typ=I1)

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        kind = ir.IntType(width)
        result: ir.Value = ir.Constant(kind, 0)
        for number in range(width):
            bit = self.bit(low + number)
            wide = bit if width == 1 else self._b.zext(bit, kind)
            result = self._b.or_(result, self._b.shl(wide, ir.Constant(kind, number)))
        return result

    def whole(self) -> ir.Value:
        """The register, 64 bits."""
        result = self._b.and_(self._entered, word(~self._mask & ((1 << WIDTH) - 1)))
        for number in self._places:
            wide = self._b.zext(self.bit(number), I64)
            result = self._b.or_(result, self._b.shl(wide, word(number)))
        return result

    def replace(self, mask: int, value: ir.Value) -> None:
        """Give the bits of a mask their values in ``value``, 32 bits."""
        for number, bit in [(number, self._bit_of(value, number)) for number in bits(mask)]:
            self._b.store(bit, self._places[number])
        self.version += 1

    def read(self) -> ir.Value:
        """The register, 32 bits."""
        return self._b.trunc(self.whole(), I32)
