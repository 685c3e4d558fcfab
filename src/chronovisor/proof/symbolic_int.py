"""Integers that stand for many numbers. Production code written for ints runs on them, and is proven for all
of the numbers at once.

A `SymbolicInt` has the type `int`, but each of its operators makes a term of the prover. It is as unbounded
as Python's own integers: it knows the interval in which it lies, and its term is always wide enough for the
interval (`chronovisor.proof.terms`). So no proof rests on a wrap that Python does not make. Comparisons give
truth values, by which code takes decisions (`chronovisor.proof.symbolic_bool`).

Operations without a meaning for many numbers at once (`int()`, indexing, hashing) raise `TypeError`. C code
could read the underlying int without calling these operators. That int is far too large to index, shift or
count by.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

from chronovisor.proof.symbolic_bool import Decider, SymbolicBool, refuse
from chronovisor.proof.terms import Operation

_UNDERNEATH = (1 << 4096) + 0x5EED


class SymbolicInt(int):
    """An integer that depends on the unknowns, from `low` to `high` inclusive.

    Its `term` is a term of its path's arithmetic.
    """

    path: Decider
    term: Any
    low: int
    high: int

    @staticmethod
    def made(path: Decider, term: Any, low: int, high: int) -> int:
        """Return the integer with this `term`, or an int if the interval has one number only."""
        if low == high:
            return low
        value = int.__new__(SymbolicInt, _UNDERNEATH)
        value.path = path
        value.term = path.terms.fitted(term, low, high)
        value.low = low
        value.high = high
        return value

    # Sums and products

    def __add__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        return self._made(lambda a, b: a + b, other, self.low + low, self.high + high)

    __radd__ = __add__

    def __neg__(self) -> int:
        return 0 - self

    def __pos__(self) -> int:
        return self

    def __sub__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        return self._made(lambda a, b: a - b, other, self.low - high, self.high - low)

    def __rsub__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        return self._made(lambda a, b: b - a, other, low - self.high, high - self.low)

    def __mul__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        corners = [a * b for a in (self.low, self.high) for b in _interval(other)]
        return self._made(lambda a, b: a * b, other, min(corners), max(corners))

    __rmul__ = __mul__

    def __abs__(self) -> int:
        if self.low >= 0:
            return self
        if self.high <= 0:
            return -self
        high = max(-self.low, self.high)
        return SymbolicInt.made(self.path, self.path.terms.absolute(self.term, high), 0, high)

    # Division by known numbers, rounded down as in Python

    def __floordiv__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        if isinstance(other, SymbolicInt) or other <= 0:
            refuse(f"division by {other!r}")
        if other & (other - 1) == 0:
            return self >> (other.bit_length() - 1)
        return self._divided(other)[0]

    def __mod__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        if isinstance(other, SymbolicInt) or other <= 0:
            refuse(f"a remainder of division by {other!r}")
        if other & (other - 1) == 0:
            return self & (other - 1)
        return self._divided(other)[1]

    def __divmod__(self, other: int) -> tuple[int, int]:
        return self // other, self % other

    def _divided(self, other: int) -> tuple[int, int]:
        quotient, remainder = self.path.terms.divided(self.term, other)
        return (
            SymbolicInt.made(self.path, quotient, self.low // other, self.high // other),
            SymbolicInt.made(self.path, remainder, 0, other - 1),
        )

    # Bits

    def __invert__(self) -> int:
        return -1 - self

    def __lshift__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        if isinstance(other, SymbolicInt):
            refuse("a shift by an unknown number")
        return self * (1 << other)

    def __rshift__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        if isinstance(other, SymbolicInt):
            refuse("a shift by an unknown number")
        shifted = self.path.terms.shifted_right(self.term, other)
        return SymbolicInt.made(self.path, shifted, self.low >> other, self.high >> other)

    def __and__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        if type(other) is int and other >= 0 and other & (other + 1) == 0:
            return self._low_bits(other)
        if type(other) is int and other < 0 and -other & (-other - 1) == 0:
            if other == -1:
                return self
            bits = (-other).bit_length() - 1
            term = self.path.terms.low_bits_cleared(self.term, bits)
            return SymbolicInt.made(self.path, term, self.low & other, self.high & other)
        low, high = _interval(other)
        if self.low >= 0 and low >= 0:
            bounds = 0, min(self.high, high)
        elif self.low >= 0 or low >= 0:
            bounds = 0, self.high if self.low >= 0 else high
        else:
            bounds = self._whole_width(other)
        return self._bitwise(lambda a, b: a & b, other, *bounds)

    __rand__ = __and__

    def __or__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        return self._bitwise(lambda a, b: a | b, other, *self._whole_width(other))

    __ror__ = __or__

    def __xor__(self, other: int) -> int:
        if not _is_integer(other):
            return NotImplemented
        return self._bitwise(lambda a, b: a ^ b, other, *self._whole_width(other))

    __rxor__ = __xor__

    def _low_bits(self, ones: int) -> int:
        if self.low >= 0 and self.high <= ones:
            return self
        if ones == 0:
            return 0
        return SymbolicInt.made(self.path, self.path.terms.low_bits(self.term, ones.bit_length()), 0, ones)

    def _whole_width(self, other: int) -> tuple[int, int]:
        low, high = _interval(other)
        bits = max(n.bit_length() for n in (self.low, self.high, low, high))
        return (0 if self.low >= 0 and low >= 0 else -(1 << bits)), (1 << bits) - 1

    def _bitwise(self, operation: Operation, other: int, low: int, high: int) -> int:
        term = self.path.terms.bitwise(operation, self.term, _term(other), low, high)
        return SymbolicInt.made(self.path, term, low, high)

    # Comparisons are signed, as for ints. If the intervals decide one, the prover is not asked.

    def __lt__(self, other: int) -> bool:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        if self.high < low or self.low >= high:
            return self.high < low
        return self._compared(lambda a, b: a < b, other)

    def __le__(self, other: int) -> bool:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        if self.high <= low or self.low > high:
            return self.high <= low
        return self._compared(lambda a, b: a <= b, other)

    def __gt__(self, other: int) -> bool:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        if self.low > high or self.high <= low:
            return self.low > high
        return self._compared(lambda a, b: a > b, other)

    def __ge__(self, other: int) -> bool:
        if not _is_integer(other):
            return NotImplemented
        low, high = _interval(other)
        if self.low >= high or self.high < low:
            return self.low >= high
        return self._compared(lambda a, b: a >= b, other)

    def __eq__(self, other: object) -> bool:
        if not _is_integer(other):
            return False
        low, high = _interval(other)
        if self.high < low or self.low > high:
            return False
        return self._compared(lambda a, b: a == b, other)

    def __ne__(self, other: object) -> bool:
        if not _is_integer(other):
            return True
        low, high = _interval(other)
        if self.high < low or self.low > high:
            return True
        return self._compared(lambda a, b: a != b, other)

    def __bool__(self) -> bool:
        return bool(self != 0)

    # Operations without a meaning for many numbers at once

    def __index__(self) -> NoReturn:
        refuse("an index")

    def __int__(self) -> NoReturn:
        refuse("one int")

    def __float__(self) -> NoReturn:
        refuse("a float")

    def __hash__(self) -> NoReturn:
        refuse("a hash")

    def __rfloordiv__(self, other: object) -> NoReturn:
        refuse("a divisor")

    def __rmod__(self, other: object) -> NoReturn:
        refuse("a divisor")

    def __rdivmod__(self, other: object) -> NoReturn:
        refuse("a divisor")

    def __rlshift__(self, other: object) -> NoReturn:
        refuse("a count of bits to shift by")

    def __rrshift__(self, other: object) -> NoReturn:
        refuse("a count of bits to shift by")

    def __truediv__(self, other: object) -> NoReturn:
        refuse("a float")

    def __rtruediv__(self, other: object) -> NoReturn:
        refuse("a float")

    def __pow__(self, *other: object) -> NoReturn:
        refuse("a power")

    def __rpow__(self, *other: object) -> NoReturn:
        refuse("a power")

    def __round__(self, ndigits: object = None) -> NoReturn:
        refuse("a rounded number")

    def __trunc__(self) -> NoReturn:
        refuse("one int")

    def __floor__(self) -> NoReturn:
        refuse("one int")

    def __ceil__(self) -> NoReturn:
        refuse("one int")

    def bit_length(self) -> NoReturn:
        """Refuse: the numbers differ in it."""
        refuse("a length in bits")

    def bit_count(self) -> NoReturn:
        """Refuse: the numbers differ in it."""
        refuse("a number of ones")

    def to_bytes(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: the numbers differ in them."""
        refuse("bytes")

    def __repr__(self) -> str:
        return f"<{self.low}..{self.high}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    # Terms

    def _made(self, operation: Operation, other: int, low: int, high: int) -> int:
        term = self.path.terms.combined(operation, self.term, _term(other), low, high)
        return SymbolicInt.made(self.path, term, low, high)

    def _compared(self, operation: Operation, other: object) -> bool:
        return SymbolicBool.made(self.path, self.path.terms.compared(operation, self.term, _term(other)))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _interval(value: object) -> tuple[int, int]:
    if isinstance(value, SymbolicInt):
        return value.low, value.high
    number = cast(int, value)
    return number, number


def _term(value: object) -> Any:
    return value.term if isinstance(value, SymbolicInt) else value
