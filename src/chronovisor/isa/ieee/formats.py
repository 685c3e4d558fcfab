"""The binary interchange formats of IEEE 754, and what a pattern of bits in one of them stands for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property


class Kind(Enum):
    """What a pattern of bits stands for."""

    ZERO = "a zero"
    FINITE = "a finite number that is not zero, normal or denormal"
    INFINITY = "an infinity"
    QUIET_NAN = "a NaN that raises nothing"
    SIGNALLING_NAN = "a NaN that raises an invalid operation when it is used"


@dataclass(frozen=True, slots=True)
class Number:
    """A decoded pattern. A finite one stands for ``significand * 2**exponent``, with the sign in front."""

    kind: Kind
    negative: bool
    significand: int
    exponent: int

    @property
    def is_nan(self) -> bool:
        """Whether it is a NaN of either kind."""
        return self.kind in (Kind.QUIET_NAN, Kind.SIGNALLING_NAN)


@dataclass(frozen=True)
class Format:
    """A format of ``width`` bits whose significands have ``precision`` bits, the implicit one included."""

    name: str
    width: int
    precision: int

    @cached_property
    def fraction_bits(self) -> int:
        """How many bits of the significand are stored."""
        return self.precision - 1

    @cached_property
    def bias(self) -> int:
        """What is added to exponents to store them; also the exponent of the largest finite numbers."""
        return (1 << (self.width - self.precision - 1)) - 1

    @cached_property
    def smallest_exponent(self) -> int:
        """The exponent of the smallest normal numbers."""
        return 1 - self.bias

    @cached_property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.width - 1)

    @cached_property
    def infinity(self) -> int:
        """Positive infinity. Its ones are the exponent field."""
        return self.sign - (1 << self.fraction_bits)

    @cached_property
    def quiet(self) -> int:
        """The bit of the fraction that tells quiet NaNs from signalling ones."""
        return 1 << (self.fraction_bits - 1)

    @cached_property
    def default_nan(self) -> int:
        """The NaN that an invalid operation gives if no operand is a NaN."""
        return self.infinity | self.quiet

    def signed(self, negative: bool, magnitude: int) -> int:
        """A pattern from its sign and its other bits."""
        return magnitude | self.sign if negative else magnitude

    def decode(self, bits: int) -> Number:
        """What a pattern stands for."""
        negative = bool(bits & self.sign)
        biased = (bits & self.infinity) >> self.fraction_bits
        fraction = bits & ((1 << self.fraction_bits) - 1)
        if bits & self.infinity == self.infinity:
            if not fraction:
                return Number(Kind.INFINITY, negative, 0, 0)
            kind = Kind.QUIET_NAN if bits & self.quiet else Kind.SIGNALLING_NAN
            return Number(kind, negative, fraction, 0)
        if not biased and not fraction:
            return Number(Kind.ZERO, negative, 0, 0)
        significand = fraction | (1 << self.fraction_bits if biased else 0)
        # Denormals have the exponent of the smallest normal numbers.
        return Number(Kind.FINITE, negative, significand, max(biased, 1) - self.bias - self.fraction_bits)


BINARY16 = Format("binary16", 16, 11)
BINARY32 = Format("binary32", 32, 24)
BINARY64 = Format("binary64", 64, 53)
BINARY128 = Format("binary128", 128, 113)

EXTENDED = Format("extended", 79, 64)
"""The double-extended precision, to which `xsrqpxp` rounds: it has the range of binary128. (In memory such
numbers have 80 bits, because their implicit bit is stored.)"""

FORMATS = (BINARY32, BINARY64, BINARY128)
"""The formats of arithmetic."""
