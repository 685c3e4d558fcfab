"""CR and XER in a region: their parts are values of LLVM's.

Meanings read and write these registers as a whole. Here a change of some bits is one of these bits alone, and
a test of a bit reads that bit: a compare and the branch behind it meet in one value, as do two additions
and the carry between them. XER is kept bit by bit, CR by its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from chronovisor.engine.native import changed_bits
from chronovisor.engine.native.changed_bits import NAMES, bits, is_read
from chronovisor.engine.native.emitter import I1, I64, word
from chronovisor.engine.regions.code import Site
from chronovisor.isa.registers import REGISTERS
from chronovisor.isa.values import Value, mask

__all__ = ["NAMES", "bits", "is_read"]

FIELD = 4
"""The bits of a field of CR."""

Maker = Callable[[], ir.Value]
"""Makes a value at the place in the function that needs the value."""
Known = Any
"""What a register of one kind knows at a place in the function; it never changes."""


@dataclass(frozen=True)
class Compared:
    """The outcome of a comparison: less, equal or neither, of 1 bit each. ``overflow`` makes XER's SO."""

    less: ir.Value
    equal: ir.Value
    overflow: Maker
    is_later: bool
    """Whether the function leaves XER's SO alone: it may be read when it is needed."""
    operands: tuple[ir.Value, ir.Value]
    """What is compared."""
    kind: Comparison


@dataclass(frozen=True)
class Extracted:
    """New bits of XER that are bits of other values."""

    of: Mapping[int, tuple[ir.Value, int]]
    """For a bit, by its number: the value of 64 bits that it is a bit of, and its number there."""


def replaced(site: Site, v: Value) -> tuple[str, int, Value] | None:
    """See `changed_bits.replaced`: what is known is what the instruction determines."""
    return changed_bits.replaced(site.constant, v)


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


def field_comparison(site: Site, v: Value) -> tuple[Value, Value, Value] | None:
    """See `comparison`, of a field of CR that is already shifted to its place in the register."""
    low = site.constant(v.args[1]) if v.op == "shl" else None
    return None if low is None else comparison(v.args[0])


@dataclass(frozen=True)
class Comparison:
    """A kind of comparison: what its operands are."""

    is_signed: bool
    width: int

    @classmethod
    def of(cls, less: Value) -> Comparison:
        """The kind of the comparison that says whether one operand is less."""
        return cls(less.op == "slt", less.args[0].width)


def compared(sites: Iterable[Site]) -> dict[int, Comparison]:
    """The fields of CR that comparisons alone set, by their least significant bits' numbers: by what kind.

    If there are several kinds, it is one that all of them can be turned into: see `condition_register`.
    """
    found: dict[int, set[Comparison | None]] = {}
    for site in sites:
        for ones, new in _new_bits(site, "CR"):
            outcome = None if new is None else field_comparison(site, new)
            kind = None if outcome is None else Comparison.of(outcome[0])
            for low in range(0, REGISTERS["CR"].width, FIELD):
                if ones >> low & mask(FIELD):
                    found.setdefault(low, set()).add(kind)
    return {low: kind for low, kinds in found.items() if (kind := _common(kinds)) is not None}


def _common(kinds: Set[Comparison | None]) -> Comparison | None:
    """The kind that comparisons of several kinds can be turned into; None if one of them is no comparison."""
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    return known[0] if len(known) == 1 else Comparison(any(kind.is_signed for kind in known), I64.width)


def extracted(site: Site, v: Value) -> Iterator[tuple[int, Value, int]]:
    """The bits of a value that are bits of others, of 64 bits each.

    A bit's number comes first, then the other value, then the bit's number there.
    """
    if v.op == "or":
        for part in v.args:
            yield from extracted(site, part)
    elif v.op == "shl" and v.args[0].op == "zext" and (low := site.constant(v.args[1])) is not None:
        bit = v.args[0].args[0]
        if bit.op == "extract" and bit.width == 1 and not is_read(bit.args[0]):
            assert isinstance(bit.detail, int)
            if bit.args[0].width == I64.width:
                yield low, bit.args[0], bit.detail


def always_extracted(sites: Iterable[Site], name: str) -> dict[int, int]:
    """The bits of a register that the instructions only set to a bit of a value, whose number is always the
    same: that number, by the register's bit.
    """
    found: dict[int, set[int | None]] = {}
    for site in sites:
        for ones, new in _new_bits(site, name):
            of = {} if new is None else {number: inside for number, _, inside in extracted(site, new)}
            for number in bits(ones):
                found.setdefault(number, set()).add(of.get(number))
    return {n: inside for n, all_ in found.items() if len(all_) == 1 and (inside := all_.pop()) is not None}


def _new_bits(site: Site, name: str) -> Iterator[tuple[int, Value | None]]:
    """What an instruction does to a register: the bits that it changes, and what has their new values."""
    assert site.program is not None
    for s in site.program.statements():
        if s.op == "set" and s.detail == name:
            one = replaced(site, s.args[0])
            known = one is not None and one[0] == name
            yield (one[1], one[2]) if one is not None and known else (mask(REGISTERS[name].width), None)


def read_again(v: Value) -> tuple[str, int] | None:
    """The register and the number of the bit that a value of one bit is; None for another value."""
    if v.op != "extract" or v.width != 1 or not is_read(v.args[0]):
        return None
    assert isinstance(v.detail, int)
    return str(v.args[0].detail), v.detail


def changed(sites: Iterable[Site], name: str) -> int:
    """The bits of a register that any of the instructions changes, as a mask."""
    found = 0
    for site in sites:
        for ones, _ in _new_bits(site, name):
            found |= ones
    return found


Origin = Compared | Extracted
"""Where new bits come from."""


class StateAccess(Protocol):
    """What is needed of a function in the making."""

    b: ir.IRBuilder

    @property
    def is_in_loop(self) -> bool:
        """Whether the instruction in the making is in the tight loop."""

    def summary_overflow(self) -> ir.Value:
        """XER's SO, 1 bit, which the function leaves alone."""

    def at(self, base: ir.Value, offset: int) -> ir.Value:
        """The address ``offset`` bytes behind ``base``."""

    def field(self, name: str) -> ir.Value:
        """The address of a field of the state."""

    def read_state(self, name: str) -> ir.Value:
        """A field as it is in the state."""

    def write_state(self, name: str, value: ir.Value) -> None:
        """Set a field in the state."""


class PartedRegister(ABC):
    """A register in the making of one function.

    The state has the register, but for the changes that are not settled yet. In a tight loop the changes are
    in places, of which LLVM makes values.
    """

    nothing: Known
    """What is known if nothing is."""

    def __init__(self, low: StateAccess, name: str) -> None:
        self._low, self._b = low, low.b
        self.name = name
        self._width = REGISTERS[name].width
        #: How often it was written: a value that was read before a write must not be taken behind it.
        self.version = 0
        self.known = self.nothing

    @abstractmethod
    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""

    @abstractmethod
    def enter_loop(self) -> None:
        """Have what the loop changes in its places."""

    @abstractmethod
    def join_in_loop(self) -> Known:
        """What is known where control comes from two sides in the loop, of which this is one."""

    @abstractmethod
    def settle(self) -> None:
        """Write the changes to the state. In a tight loop, write everything that the loop changes."""

    @abstractmethod
    def _replace(self, ones: int, value: Maker, origin: Origin | None) -> None:
        """Give the bits of a mask their values in what ``value`` makes."""

    def replace(self, ones: int, value: Maker, origin: Origin | None = None) -> None:
        """Give the bits of a mask their values in what ``value`` makes, which has the register's width.

        ``origin`` says the same in another way: a comparison, if these bits are a field of CR that one sets,
        or what bits of XER are extracted from.
        """
        self._replace(ones, value, origin)
        self.version += 1

    def part(self, low: int, width: int) -> ir.Value:
        """Some neighbouring bits, from ``low`` up."""
        kind = ir.IntType(width)
        result: ir.Value = ir.Constant(kind, 0)
        for number in range(width):
            bit = self.bit(low + number)
            wide = bit if kind == I1 else self._b.zext(bit, kind)
            result = self._b.or_(result, self._b.shl(wide, ir.Constant(kind, number)))
        return result

    def few(self, ones: int) -> ir.Value | None:
        """The bits of a mask where they are in the register, if they are made of few parts of it."""
        return None

    def whole(self) -> ir.Value:
        """The register in its width, which is settled before."""
        self.settle()
        whole = self._low.read_state(self.name)
        return whole if self._width == I64.width else self._b.trunc(whole, ir.IntType(self._width))

    def _bit_of(self, value: ir.Value, number: int) -> ir.Value:
        shifted = self._b.lshr(value, ir.Constant(value.type, number)) if number else value
        return self._b.trunc(shifted, I1)


class BitRegister(PartedRegister):
    """XER: each bit that the function changes has a place.

    Known are the bits that are there, and those of them that are not settled. Of some bits the place has the
    64 bits that the bit is extracted from, so that it is extracted only if something needs it.
    """

    nothing: Known = (0, 0)

    def __init__(self, low: StateAccess, name: str, ones: int, extracted: Mapping[int, int]) -> None:
        """Have places for the bits of a mask; ``extracted`` are as in `always_extracted`."""
        super().__init__(low, name)
        self._ones, self._extracted = ones, extracted
        self._places = {n: self._b.alloca(I64 if n in extracted else I1) for n in bits(ones)}

    def bit(self, number: int) -> ir.Value:
        """A bit: 0 is the least significant."""
        place = self._places.get(number)
        if place is None:
            return self._kept(number)
        inside, (there, changed) = self._extracted.get(number), self.known
        if not there >> number & 1:
            self._b.store(self._kept(number) if inside is None else self._moved(number, inside), place)
            self.known = there | 1 << number, changed
        value = self._b.load(place, typ=place.allocated_type)
        return value if inside is None else self._bit_of(value, inside)

    def _moved(self, number: int, inside: int) -> ir.Value:
        """The register in the state, moved so that a bit gets another number.

        If the place had the bit alone, LLVM would extract it in each round of a loop, not only behind it.
        """
        b, whole = self._b, self._low.read_state(self.name)
        return (
            b.shl(whole, word(inside - number)) if inside > number else b.lshr(whole, word(number - inside))
        )

    def _in_place(self, number: int, value: Maker, origin: Extracted | None) -> ir.Value:
        """What a bit's place has if the bit is that of a value."""
        b, inside = self._b, self._extracted.get(number)
        of, at = (None, None) if origin is None else origin.of.get(number, (None, None))
        if inside is not None and at == inside:
            return of
        bit = self._bit_of(value(), number)
        return bit if inside is None else b.shl(b.zext(bit, I64), word(inside))

    def _kept(self, number: int) -> ir.Value:
        """A bit in the state."""
        return self._bit_of(self._low.read_state(self.name), number)

    def enter_loop(self) -> None:
        """Have what the loop changes in its places."""
        for number in self._places:
            self.bit(number)

    def join_in_loop(self) -> Known:
        """What is known where control comes from two sides in the loop, of which this is one."""
        return self.known

    def settle(self) -> None:
        """Write the changes to the state. In a tight loop, write everything that the loop changes."""
        there, changed = self.known
        if self._low.is_in_loop:
            changed = self._ones
        if changed:
            b = self._b
            whole = b.and_(self._low.read_state(self.name), word(~changed & mask(self._width)))
            for number in bits(changed):
                whole = b.or_(whole, b.shl(b.zext(self.bit(number), I64), word(number)))
            self._low.write_state(self.name, whole)
        self.known = there, 0

    def _replace(self, ones: int, value: Maker, origin: Origin | None) -> None:
        assert not isinstance(origin, Compared)
        # A value may be made of bits that it replaces.
        for number, new in [(number, self._in_place(number, value, origin)) for number in bits(ones)]:
            self._b.store(new, self._places[number])
        there, changed = self.known
        self.known = there | ones, changed | ones
