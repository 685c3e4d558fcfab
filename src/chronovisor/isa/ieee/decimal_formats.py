"""The decimal formats: densely packed decimals in the encodings of Power ISA 3.0B Book I 5.4 and 5.5."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


def _packed(number: int) -> int:
    """Three digits in ten bits (IEEE 754, table of the encodings of declets)."""
    digits = (number // 100, number // 10 % 10, number % 10)
    a, b, c = digits
    x, y, z = (digit & 7 for digit in digits)
    match tuple(digit > 7 for digit in digits):
        case (False, False, False):
            return x << 7 | y << 4 | z
        case (False, False, True):
            return x << 7 | y << 4 | 0x8 | c & 1
        case (False, True, False):
            return x << 7 | (z & 6) << 4 | (b & 1) << 4 | 0xA | z & 1
        case (True, False, False):
            return (z & 6) << 7 | (a & 1) << 7 | y << 4 | 0xC | z & 1
        case (True, True, False):
            return (z & 6) << 7 | (a & 1) << 7 | (b & 1) << 4 | 0xE | z & 1
        case (True, False, True):
            return (y & 6) << 7 | (a & 1) << 7 | 0x20 | (y & 1) << 4 | 0xE | c & 1
        case (False, True, True):
            return x << 7 | 0x40 | (b & 1) << 4 | 0xE | c & 1
        case _:
            return (a & 1) << 7 | 0x60 | (b & 1) << 4 | 0xE | c & 1


def _unpacked(declet: int) -> int:
    """The digits of any ten bits, those that no number is encoded in included."""
    a, b, c = declet >> 7, declet >> 4 & 7, declet & 7
    low = (a & 1, b & 1, c & 1)
    if not declet & 8:
        digits = (a, b, c)
    else:
        match declet >> 1 & 7:
            case 0b100:
                digits = (a, b, 8 | low[2])
            case 0b101:
                digits = (a, 8 | low[1], b & 6 | low[2])
            case 0b110:
                digits = (8 | low[0], b, a & 6 | low[2])
            case _:
                match b >> 1:
                    case 0:
                        digits = (8 | low[0], 8 | low[1], a & 6 | low[2])
                    case 1:
                        digits = (8 | low[0], a & 6 | low[1], 8 | low[2])
                    case 2:
                        digits = (a, 8 | low[1], 8 | low[2])
                    case _:
                        digits = (8 | low[0], 8 | low[1], 8 | low[2])
    return digits[0] * 100 + digits[1] * 10 + digits[2]


PACKED: Final = tuple(map(_packed, range(1000)))
"""The declet of each three digits."""
UNPACKED: Final = tuple(map(_unpacked, range(1024)))
"""The three digits of each declet."""


class Kind(Enum):
    """What a datum is."""

    FINITE = 0
    INFINITY = 1
    QUIET = 2
    SIGNALLING = 3


@dataclass(frozen=True, slots=True)
class Datum:
    """A datum: of a finite number the digits and the exponent of the last one, of a NaN its payload."""

    kind: Kind
    negative: bool
    digits: int = 0
    exponent: int = 0

    @property
    def is_nan(self) -> bool:
        """Whether it is a NaN of either kind."""
        return self.kind in (Kind.QUIET, Kind.SIGNALLING)

    @property
    def is_zero(self) -> bool:
        """Whether it is a zero of any exponent."""
        return self.kind is Kind.FINITE and not self.digits


@dataclass(frozen=True, slots=True)
class DecimalFormat:
    """A decimal interchange format."""

    name: str
    width: int
    precision: int
    """Digits."""
    bias: int

    @property
    def trailing(self) -> int:
        """The bits of the declets behind the first digit."""
        return self.precision // 3 * 10

    @property
    def largest_biased(self) -> int:
        """The largest biased exponent."""
        return 3 * (1 << self.width - 6 - self.trailing) - 1

    @property
    def exponents(self) -> range:
        """The exponents that the last digit can have."""
        return range(-self.bias, self.largest_biased - self.bias + 1)

    @property
    def largest_exponent(self) -> int:
        """The exponent of the first digit of the largest numbers."""
        return self.exponents[-1] + self.precision - 1

    @property
    def smallest_exponent(self) -> int:
        """The exponent of the first digit of the smallest normal numbers."""
        return 1 - self.largest_exponent

    def trailing_digits(self, bits: int) -> int:
        """Return the digits behind the first one. Infinities have them, too."""
        digits = 0
        for shift in range(self.trailing - 10, -1, -10):
            digits = digits * 1000 + UNPACKED[bits >> shift & 0x3FF]
        return digits

    def with_trailing_digits(self, bits: int, digits: int) -> int:
        """Return the bits with other digits behind the first one."""
        bits = bits >> self.trailing << self.trailing
        for shift in range(0, self.trailing, 10):
            digits, three = divmod(digits, 1000)
            bits |= PACKED[three] << shift
        return bits

    def decode(self, bits: int) -> Datum:
        """Return what the bits are."""
        digits = self.trailing_digits(bits)
        negative = bool(bits >> self.width - 1)
        combination = bits >> self.width - 6 & 0x1F
        following = self.width - 6 - self.trailing
        more = bits >> self.trailing & (1 << following) - 1
        if combination == 0x1F:
            return Datum(Kind.SIGNALLING if more >> following - 1 else Kind.QUIET, negative, digits)
        if combination == 0x1E:
            return Datum(Kind.INFINITY, negative)
        if combination >> 3 == 3:
            first, top = 8 | combination & 1, combination >> 1 & 3
        else:
            first, top = combination & 7, combination >> 3
        exponent = (top << following | more) - self.bias
        return Datum(Kind.FINITE, negative, first * 10 ** (self.precision - 1) + digits, exponent)

    def encode(self, datum: Datum) -> int:
        """Return the bits of a datum that fits."""
        following = self.width - 6 - self.trailing
        first, rest = divmod(datum.digits, 10 ** (self.precision - 1))
        low = self.with_trailing_digits(0, rest)
        sign = datum.negative << self.width - 1
        match datum.kind:
            case Kind.SIGNALLING:
                return sign | 0x3F << self.width - 7 | low
            case Kind.QUIET:
                return sign | 0x1F << self.width - 6 | low
            case Kind.INFINITY:
                return sign | 0x1E << self.width - 6
        biased = datum.exponent + self.bias
        top, more = biased >> following, biased & (1 << following) - 1
        combination: int = 0x18 | top << 1 | first & 1 if first > 7 else top << 3 | first
        return sign | combination << self.width - 6 | more << self.trailing | low


DECIMAL32: Final = DecimalFormat("decimal32", 32, 7, 101)
DECIMAL64: Final = DecimalFormat("decimal64", 64, 16, 398)
DECIMAL128: Final = DecimalFormat("decimal128", 128, 34, 6176)
