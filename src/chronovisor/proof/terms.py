"""The prover's arithmetics: how an exact integer becomes a term.

Both arithmetics mean Python's unbounded integers. They differ in speed: bit-vectors are faster for code that
takes words apart, integers for code that compares sums and rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import z3

Operand: TypeAlias = Any
"""A term of one arithmetic, or an int."""

Operation: TypeAlias = Callable[[Any, Any], Any]


class Terms(Protocol):
    """An arithmetic. `low` and `high` are the bounds of a result, which the caller knows."""

    def solver(self) -> z3.Solver:
        """Return a solver for this arithmetic."""

    def unknown(self, name: str, low: int, high: int) -> tuple[Operand, Operand, list[z3.BoolRef]]:
        """Return an unknown from `low` to `high`: the constant, the term to compute with, and its bounds."""

    def number(self, value: Any) -> int:
        """Return the int of a constant's value in a model."""

    def fitted(self, term: Operand, low: int, high: int) -> Operand:
        """Return `term` in the form in which an integer from `low` to `high` is kept."""

    def combined(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Return a sum, difference or product."""

    def compared(self, operation: Operation, a: Operand, b: Operand) -> z3.BoolRef:
        """Return the outcome of a comparison."""

    def bitwise(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Return a bitwise operation on two's complement. Raises `TypeError` if the arithmetic has none."""

    def low_bits(self, term: Operand, bits: int) -> Operand:
        """Return the low `bits` bits: the remainder of division by 2^bits, which is not negative."""

    def low_bits_cleared(self, term: Operand, bits: int) -> Operand:
        """Return the term with its low `bits` bits set to 0."""

    def shifted_right(self, term: Operand, bits: int) -> Operand:
        """Return the quotient of division by 2^bits, rounded down."""

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Return quotient and remainder of division by a positive number, rounded down."""

    def absolute(self, term: Operand, high: int) -> Operand:
        """Return the absolute value, at most `high`."""


def width_of(low: int, high: int) -> int:
    """Return how many bits two's complement needs for the numbers from `low` to `high`."""
    return max((low if low >= 0 else ~low).bit_length(), (high if high >= 0 else ~high).bit_length()) + 1


class BitVectors:
    """Two's complement, always wide enough: no result is cut off, and none wraps."""

    def solver(self) -> z3.Solver:
        """Return a solver of bit-vectors."""
        # Each question is solved from scratch. Here this is faster than an incremental solver.
        return z3.Then("simplify", "solve-eqs", "bit-blast", "sat").solver()

    def unknown(self, name: str, low: int, high: int) -> tuple[Operand, Operand, list[z3.BoolRef]]:
        """Return an unknown, with bounds unless all values of its width are meant."""
        if low == 0 and high & (high + 1) == 0:
            word = z3.BitVec(name, high.bit_length() + 1)
            return word, word, [z3.Extract(high.bit_length(), high.bit_length(), word) == 0]
        word = z3.BitVec(name, width_of(low, high))
        return word, word, [word >= low, word <= high]

    def number(self, value: Any) -> int:
        """Return the int, read as two's complement."""
        return int(value.as_signed_long())

    def fitted(self, term: Operand, low: int, high: int) -> Operand:
        """Return the term just wide enough."""
        return self._widened(term, width_of(low, high))

    def combined(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Compute in a width that holds the operands and the result."""
        return operation(*self._aligned(a, b, width_of(low, high)))

    def compared(self, operation: Operation, a: Operand, b: Operand) -> z3.BoolRef:
        """Compare as signed numbers."""
        return operation(*self._aligned(a, b, 1))

    bitwise = combined

    def low_bits(self, term: Operand, bits: int) -> Operand:
        """Cut the bits out."""
        return z3.ZeroExt(1, z3.Extract(bits - 1, 0, self._widened(term, max(bits, term.size()))))

    def low_bits_cleared(self, term: Operand, bits: int) -> Operand:
        """Put zeros there."""
        wide = self._widened(term, max(bits + 1, term.size()))
        return z3.Concat(z3.Extract(wide.size() - 1, bits, wide), z3.BitVecVal(0, bits))

    def shifted_right(self, term: Operand, bits: int) -> Operand:
        """Shift, and fill with the sign."""
        return term >> min(bits, term.size() - 1)

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Divide, and subtract 1 from a quotient that was rounded up."""
        width = max(term.size(), width_of(0, by)) + 1
        a, b = self._widened(term, width), z3.BitVecVal(by, width)
        remainder = z3.SRem(a, b)
        below = remainder < 0
        return z3.If(below, a / b - 1, a / b), z3.If(below, remainder + b, remainder)

    def absolute(self, term: Operand, high: int) -> Operand:
        """Negate a negative number."""
        wide = self._widened(term, width_of(-high, high))
        return z3.If(wide < 0, -wide, wide)

    def _aligned(self, a: Operand, b: Operand, width: int) -> tuple[Operand, Operand]:
        width = max(width, *(width_of(x, x) if isinstance(x, int) else x.size() for x in (a, b)))
        return self._widened(a, width), self._widened(b, width)

    @staticmethod
    def _widened(term: Operand, width: int) -> Operand:
        if isinstance(term, int):
            return z3.BitVecVal(term, width)
        size = term.size()
        if size == width:
            return term
        return z3.SignExt(width - size, term) if size < width else z3.Extract(width - 1, 0, term)


class Integers:
    """The prover's own integers: sums and comparisons, and remainders of division by known numbers."""

    def solver(self) -> z3.Solver:
        """Return a solver of linear integer arithmetic."""
        # A third faster than the general solver. It does not support products of two unknowns.
        return z3.SolverFor("QF_LIA")

    def unknown(self, name: str, low: int, high: int) -> tuple[Operand, Operand, list[z3.BoolRef]]:
        """Return an unknown with its bounds."""
        constant = z3.Int(name)
        return constant, constant, [constant >= low, constant <= high]

    def number(self, value: Any) -> int:
        """Return the int."""
        return int(value.as_long())

    def fitted(self, term: Operand, low: int, high: int) -> Operand:
        """Return the term itself."""
        return term

    def combined(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Compute."""
        return operation(a, b)

    def compared(self, operation: Operation, a: Operand, b: Operand) -> z3.BoolRef:
        """Compare."""
        return operation(a, b)

    def bitwise(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Refuse."""
        raise TypeError("integers have no bits: this claim needs bit-vectors")

    def low_bits(self, term: Operand, bits: int) -> Operand:
        """Return the remainder, which is as Python's."""
        return term % (1 << bits)

    def low_bits_cleared(self, term: Operand, bits: int) -> Operand:
        """Subtract the remainder."""
        return term - term % (1 << bits)

    def shifted_right(self, term: Operand, bits: int) -> Operand:
        """Divide, rounding down."""
        return term / (1 << bits)

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Divide, rounding down."""
        return term / by, term % by

    def absolute(self, term: Operand, high: int) -> Operand:
        """Negate a negative number."""
        return z3.If(term < 0, -term, term)
