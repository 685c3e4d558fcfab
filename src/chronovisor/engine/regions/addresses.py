"""What addresses are made of: what registers held when a line of instructions began, and known distances.

An address is a sum of terms, each a number of times, and a distance in bytes. What is not known is a term of
its own, so that two addresses of the same terms differ by their distances alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chronovisor.engine.native.stencils import rotation
from chronovisor.engine.regions.code import Site
from chronovisor.isa.values import Value, mask


@dataclass(frozen=True)
class Register:
    """What a general register held when the line began."""

    number: int


@dataclass(frozen=True)
class Low:
    """The low bits of an address, zero-extended: an index of fewer than 64 bits."""

    address: Address
    width: int


@dataclass(frozen=True)
class Unknown:
    """What a value of the instruction at an offset is, or may be."""

    offset: int
    value: int


Term = Register | Low | Unknown
#: The terms of a sum, and how often it has each.
Origin = frozenset[tuple[Term, int]]

#: The most terms of an address. A sum of more is a term that is not known.
_MOST_TERMS = 3
_NOWHERE: Origin = frozenset()
_ONES: Final = mask(64)


@dataclass(frozen=True)
class Address:
    """A sum of terms, and the distance from it in bytes, which is signed."""

    origin: Origin
    distance: int = 0

    @classmethod
    def known(cls, value: int) -> Address:
        """An address without terms: a doubleword that is known."""
        return cls(_NOWHERE, _signed(value))

    @classmethod
    def of(cls, term: Term) -> Address:
        """An address that is a term."""
        return cls(frozenset([(term, 1)]))

    @property
    def is_partial(self) -> bool:
        """Whether a term has the low bits of another address."""
        return any(isinstance(term, Low) for term, _ in self.origin)

    def plus(self, other: Address) -> Address | None:
        """The sum of two addresses; None if that has too many terms."""
        times = dict(self.origin)
        for term, often in other.origin:
            times[term] = _signed(times.get(term, 0) + often)
        if len(times) > _MOST_TERMS:
            return None
        origin = frozenset((term, often) for term, often in times.items() if often)
        return Address(origin, _signed(self.distance + other.distance))

    def shifted(self, by: int) -> Address:
        """The address shifted to the left by some bits."""
        times = ((term, _signed(often << by)) for term, often in self.origin)
        return Address(
            frozenset((term, often) for term, often in times if often), _signed(self.distance << by)
        )

    def low(self, width: int) -> Address | None:
        """The low bits of the address, zero-extended; None if that is made of low bits already."""
        if not self.origin:
            return Address.known(self.distance & mask(width))
        return None if self.is_partial else Address.of(Low(self, width))

    def step(self, after: Mapping[int, Address]) -> int | None:
        """By how much the address changes from a time to another; None if that is not known.

        ``after`` has what is in registers then that were changed in between. Low bits are taken to change as
        much as what they are the low bits of.
        """
        whole = 0
        for term, often in self.origin:
            step = _step(term, after)
            if step is None:
                return None
            whole += step * often
        return _signed(whole)


def _step(term: Term, after: Mapping[int, Address]) -> int | None:
    if isinstance(term, Low):
        return term.address.step(after)
    if isinstance(term, Unknown):
        return None
    now = after.get(term.number)
    if now is None:
        return 0
    return now.distance if now.origin == Address.of(term).origin else None


def _signed(value: int) -> int:
    """What the low 64 bits of a number are as a signed doubleword."""
    low = value & _ONES
    return low - (_ONES + 1) if low >> 63 else low


@dataclass(frozen=True)
class Shifted:
    """The low ``width`` bits of a doubleword, shifted to the left ``by`` some bits.

    Instructions that do that are `sldi`, `clrldi` and `rldic`.
    """

    value: Value
    width: int
    by: int


def shifted(site: Site, v: Value) -> Shifted | None:
    """What ``v`` is if it is a shift to the left; None if it is something else.

    The meaning of a shift is a rotation without what comes in from the left.
    """
    found = rotation(v.args[0]) if v.op == "and" and v.width == 64 else None
    if found is None:
        return None
    what, amount = found
    by, ones = site.constant(amount), site.constant(v.args[1])
    if by is None or ones is None:
        return None
    width = (ones >> by).bit_length()
    if not width or ones != mask(width) << by:
        return None
    return Shifted(what, width, by)
