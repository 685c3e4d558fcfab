"""Decimal integers in vector registers (Power ISA 3.0B Book I 6.17).

A packed decimal has 31 digits of four bits and a sign code in its last four bits. If a number is not valid,
CR field 6 says so and the book leaves the result undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.elementwise import register_wise
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_EACH: Final = 0x1111_1111_1111_1111_1111_1111_1111_1111
"""A one in each digit of 128 bits."""
_NINES: Final = 9 * _EACH >> 4
"""31 nines."""
_PLUS, _OTHER_PLUS, _MINUS = 0xC, 0xF, 0xD
"""The sign codes of results. PS chooses between the first two."""
_INVALID: Final = 0b0001


def _digits_valid(digits: Value) -> Value:
    """1 bit: no four bits are more than 9."""
    more_than_nine = (digits >> 3) & ((digits >> 2) | (digits >> 1)) & (_EACH & ((1 << digits.width) - 1))
    return more_than_nine.eq(0)


class _Packed:
    """A packed decimal as an operand."""

    def __init__(self, number: Value) -> None:
        self.digits = number.extract(4, 124)
        self.code = number.trunc(4)
        self.negative = self.code.eq(0xB) | self.code.eq(_MINUS)
        self.valid = _digits_valid(self.digits) & ~self.code.ult(0xA)


def _sign(m: Machine, negative: Value, PS: Value | None = None) -> Value:
    plus = m.value(_PLUS, 4) if PS is None else m.select(PS.eq(0), _PLUS, _OTHER_PLUS, 4)
    return m.select(negative, m.value(_MINUS, 4), plus)


def _condition(
    m: Machine, valid: Value, negative: Value, zero: Value, overflow: Value | None = None
) -> Value:
    """What CR field 6 says of a result: LT, GT, EQ, and whether it overflowed or is invalid.

    A result that overflowed is not zero, whatever is left of it.
    """
    last = m.value(0, 1) if overflow is None else overflow
    zero = zero & ~last
    return m.select(valid, m.concat(negative & ~zero, ~(negative | zero), zero, last), m.value(_INVALID, 4))


def _set(m: Machine, VRT: Value, result: Value, condition: Value) -> None:
    m.vr[VRT] = result
    m.cr[6] = condition


# Sums


def _sum(a: Value, b: Value, carry: int = 0) -> Value:
    """The sum of two numbers of 31 digits in 32 digits; ``carry`` is added, too."""
    wide, other = a.zext(128), b.zext(128)
    # With 6 more in each digit a carry leaves it as from a digit of base 16. Take the 6 away if none does.
    larger = wide + (6 * _EACH >> 4)
    total = larger + other + carry
    no_carry = ~(larger ^ other ^ total) & (_EACH & ~1)
    return total - ((no_carry >> 2) | (no_carry >> 3))


def _difference(a: Value, b: Value) -> Value:
    """The difference of two numbers, of which the first is not smaller: a + (99…9 - b) + 1."""
    return _sum(a, _NINES - b, 1).trunc(124)


def _add(m: Machine, VRT: Value, a: _Packed, b: _Packed, b_negative: Value, PS: Value) -> None:
    same, b_larger = ~(a.negative ^ b_negative), a.digits.ult(b.digits)
    total = _sum(a.digits, b.digits)
    difference = m.select(b_larger, _difference(b.digits, a.digits), _difference(a.digits, b.digits))
    digits = m.select(same, total.trunc(124), difference)
    overflow = same & total.extract(124, 4).ne(0)
    zero = digits.eq(0) & ~overflow
    larger_negative = m.select(b_larger, b_negative, a.negative)
    negative = m.select(same, a.negative, larger_negative) & ~zero
    condition = _condition(m, a.valid & b.valid, negative, zero, overflow)
    _set(m, VRT, m.concat(digits, _sign(m, negative, PS)), condition)


@meaning("bcdadd.")
def bcdadd(m: Machine, VRT: Value, VRA: Value, VRB: Value, PS: Value) -> None:
    b = _Packed(m.vr[VRB])
    _add(m, VRT, _Packed(m.vr[VRA]), b, b.negative, PS)


@meaning("bcdsub.")
def bcdsub(m: Machine, VRT: Value, VRA: Value, VRB: Value, PS: Value) -> None:
    b = _Packed(m.vr[VRB])
    _add(m, VRT, _Packed(m.vr[VRA]), b, ~b.negative, PS)


# Signs


@meaning("bcdcpsgn.")
def bcdcpsgn(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
    a, b = _Packed(m.vr[VRA]), _Packed(m.vr[VRB])
    condition = _condition(m, a.valid & b.valid, b.negative, a.digits.eq(0))
    _set(m, VRT, m.concat(a.digits, b.code), condition)


@meaning("bcdsetsgn.")
def bcdsetsgn(m: Machine, VRT: Value, VRB: Value, PS: Value) -> None:
    b = _Packed(m.vr[VRB])
    result = m.concat(b.digits, _sign(m, b.negative, PS))
    _set(m, VRT, result, _condition(m, b.valid, b.negative, b.digits.eq(0)))


# Shifts and truncation


def _shifted(m: Machine, digits: Value, by: Value) -> tuple[Value, Value, Value]:
    """Digits shifted left by a signed byte of digits, or right.

    Returns the digits, whether any that is not 0 left them on the left, and the last that left on the right.
    """
    count = by.sext(digits.width) << 2
    right = by.slt(0)
    kept = digits << count
    lost = (kept >> count).ne(digits)
    # The digit that goes out last stays below the others.
    moved = digits.zext(digits.width + 4) << 4 >> (-count).zext(digits.width + 4)
    shifted = m.select(right, moved.extract(4, digits.width), kept)
    return shifted, lost & ~right, m.select(right, moved.trunc(4), m.value(0, 4))


def _declare_shift(mnemonic: str, rounds: bool) -> None:
    @meaning(mnemonic)
    def shift(m: Machine, VRT: Value, VRA: Value, VRB: Value, PS: Value) -> None:
        b, by = _Packed(m.vr[VRB]), m.vr[VRA].extract(64, 8)
        digits, lost, out = _shifted(m, b.digits, by)
        if rounds:
            digits = _sum(digits, (~out.ult(5)).zext(124)).trunc(124)
        result = m.concat(digits, _sign(m, b.negative, PS))
        _set(m, VRT, result, _condition(m, b.valid, b.negative, digits.eq(0), lost))


_declare_shift("bcds.", rounds=False)
_declare_shift("bcdsr.", rounds=True)


@meaning("bcdus.")
def bcdus(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
    b = m.vr[VRB]
    digits, lost, _ = _shifted(m, b, m.vr[VRA].extract(64, 8))
    _set(m, VRT, digits, _condition(m, _digits_valid(b), m.value(0, 1), digits.eq(0), lost))


def _truncated(m: Machine, digits: Value, VRA: Value) -> tuple[Value, Value]:
    """As many digits as the fourth halfword of a register says, and whether others are not 0."""
    count = m.vr[VRA].extract(64, 16).zext(digits.width) << 2
    others = digits >> count << count
    return digits ^ others, others.ne(0)


@meaning("bcdtrunc.")
def bcdtrunc(m: Machine, VRT: Value, VRA: Value, VRB: Value, PS: Value) -> None:
    b = _Packed(m.vr[VRB])
    digits, lost = _truncated(m, b.digits, VRA)
    result = m.concat(digits, _sign(m, b.negative, PS))
    _set(m, VRT, result, _condition(m, b.valid, b.negative, digits.eq(0), lost))


@meaning("bcdutrunc.")
def bcdutrunc(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
    b = m.vr[VRB]
    digits, lost = _truncated(m, b, VRA)
    _set(m, VRT, digits, _condition(m, _digits_valid(b), m.value(0, 1), digits.eq(0), lost))


# Other formats


def _spread(m: Machine, digits: Value, zone: Value) -> Value:
    """Each digit in an element of its own, below its zone."""
    count = digits.width // 4
    parts = [m.concat(zone, digits.extract(4 * n, 4)) for n in reversed(range(count))]
    return m.concat(*parts)


@meaning("bcdcfn.")
def bcdcfn(m: Machine, VRT: Value, VRB: Value, PS: Value) -> None:
    b = m.vr[VRB]
    # Seven characters of 16 bits, then a plus or a minus.
    characters = [b.extract(16 * n, 16) for n in range(7, 0, -1)]
    sign = b.trunc(16)
    digits = m.concat(*(character.trunc(4) for character in characters))
    valid = (sign.eq(ord("+")) | sign.eq(ord("-"))) & _digits_valid(digits)
    for character in characters:
        valid = valid & character.extract(4, 12).eq(ord("0") >> 4)
    negative = sign.eq(ord("-"))
    result = m.concat(m.value(0, 96), digits, _sign(m, negative, PS))
    _set(m, VRT, result, _condition(m, valid, negative, digits.eq(0)))


@meaning("bcdctn.")
def bcdctn(m: Machine, VRT: Value, VRB: Value) -> None:
    b = _Packed(m.vr[VRB])
    characters = _spread(m, b.digits.trunc(28), m.value(ord("0") >> 4, 12))
    sign = m.select(b.negative, m.value(ord("-"), 16), ord("+"))
    lost = b.digits.extract(28, 96).ne(0)
    _set(m, VRT, m.concat(characters, sign), _condition(m, b.valid, b.negative, b.digits.eq(0), lost))


@meaning("bcdcfz.")
def bcdcfz(m: Machine, VRT: Value, VRB: Value, PS: Value) -> None:
    b = m.vr[VRB]
    ascii = PS.eq(0)
    digits = m.concat(*(b.extract(8 * n, 4) for n in range(15, -1, -1)))
    zone, sign = m.select(ascii, 3, 0xF, 4), b.extract(4, 4)
    # The last zone holds the sign: of ASCII a bit, else a code.
    negative = m.select(ascii, sign.extract(2, 1), sign.eq(0xB) | sign.eq(_MINUS))
    valid = _digits_valid(digits) & (ascii | ~sign.ult(0xA))
    for n in range(1, 16):
        valid = valid & b.extract(8 * n + 4, 4).eq(zone)
    result = m.concat(m.value(0, 60), digits, _sign(m, negative))
    _set(m, VRT, result, _condition(m, valid, negative, digits.eq(0)))


@meaning("bcdctz.")
def bcdctz(m: Machine, VRT: Value, VRB: Value, PS: Value) -> None:
    b = _Packed(m.vr[VRB])
    ascii = PS.eq(0)
    digits = b.digits.trunc(64)
    zones = _spread(m, digits.extract(4, 60), m.select(ascii, 3, 0xF, 4))
    plus, minus = m.select(ascii, 3, _PLUS, 4), m.select(ascii, 7, _MINUS, 4)
    result = m.concat(zones, m.select(b.negative, minus, plus), digits.trunc(4))
    lost = b.digits.extract(64, 60).ne(0)
    _set(m, VRT, result, _condition(m, b.valid, b.negative, b.digits.eq(0), lost))


def _halves(width: int, combine: Callable[[Value, Value], Value]) -> Callable[[Value], Value]:
    """A function of the two halves of an element."""
    return lambda lane: combine(lane.extract(width // 2, width // 2), lane.trunc(width // 2))


def _binary(m: Machine, digits: Value) -> Value:
    """The number that 32 digits are: pairs of digits, of which pairs are made, and so on."""
    number, base = digits, 10
    for width in (8, 16, 32, 64, 128):

        def joined(high: Value, low: Value, width: int = width, base: int = base) -> Value:
            return high.zext(width) * base + low.zext(width)

        number = m.each(width, _halves(width, joined), number)
        base *= base
    return number


def _quotient(number: Value, base: int) -> Value:
    """A number below the square of a base by the base: times an inverse that is precise enough for these."""
    places = (base**3).bit_length()
    inverse = -(-(1 << places) // base)
    return ((number.zext(2 * number.width) * inverse) >> places).trunc(number.width)


def _decimal(m: Machine, number: Value) -> Value:
    """The 32 digits of a number that has no more: cut in halves of digits, and these in halves."""
    digits = number
    for width in (128, 64, 32, 16, 8):
        base = 10 ** (width // 8)

        def cut(lane: Value, width: int = width, base: int = base) -> Value:
            quotient = _quotient(lane, base)
            return (quotient << width // 2) | (lane - quotient * base)

        digits = m.each(width, cut, digits)
    return digits


@meaning("bcdcfsq.")
def bcdcfsq(m: Machine, VRT: Value, VRB: Value, PS: Value) -> None:
    b = m.vr[VRB]
    negative = b.extract(127, 1)
    magnitude = m.select(negative, -b, b)
    too_large = ~magnitude.ult(10**31)
    digits = _decimal(m, m.select(too_large, 0, magnitude)).trunc(124)
    result = m.concat(digits, _sign(m, negative, PS))
    _set(m, VRT, result, _condition(m, m.value(1, 1), negative, b.eq(0), too_large))


@meaning("bcdctsq.")
def bcdctsq(m: Machine, VRT: Value, VRB: Value) -> None:
    b = _Packed(m.vr[VRB])
    number = _binary(m, b.digits.zext(128))
    result = m.select(b.negative, -number, number)
    _set(m, VRT, result, _condition(m, b.valid, b.negative, b.digits.eq(0)))


# Multiplication by ten


def _tenfold(a: Value) -> Value:
    return a.zext(132) * 10


def _tenfold_and_digit(a: Value, b: Value) -> Value:
    return _tenfold(a) + b.trunc(4).zext(132)


def _upper(product: Value) -> Value:
    return product.extract(128, 4).zext(128)


@meaning("vmul10uq")
def vmul10uq(m: Machine, VRT: Value, VRA: Value) -> None:
    m.vr[VRT] = m.vr[VRA] * 10


@meaning("vmul10cuq")
def vmul10cuq(m: Machine, VRT: Value, VRA: Value) -> None:
    m.vr[VRT] = _upper(_tenfold(m.vr[VRA]))


register_wise("vmul10euq", lambda m, a, b: _tenfold_and_digit(a, b).trunc(128))
register_wise("vmul10ecuq", lambda m, a, b: _upper(_tenfold_and_digit(a, b)))
