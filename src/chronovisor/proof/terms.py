"""The prover's arithmetics: how an exact integer is a term.

Both mean Python's unbounded integers and differ only in what the prover is quick with: bit-vectors where
code takes words apart, integers where it compares sums and rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import z3

Operand: TypeAlias = Any
"""A term of one arithmetic, or an int."""

Operation: TypeAlias = Callable[[Any, Any], Any]


class Terms(Protocol):
    """An arithmetic. A result lies from `low` to `high`, which the caller knows."""

    def solver(self) -> z3.Solver:
        """Return a solver that is good at this arithmetic."""

    def unknown(self, name: str, low: int, high: int) -> tuple[Operand, Operand, list[z3.BoolRef]]:
        """Return an unknown from `low` to `high`: the constant, the term to compute with, what bounds it."""

    def number(self, value: Any) -> int:
        """Return the int of a constant's value in a model."""

    def fitted(self, term: Operand, low: int, high: int) -> Operand:
        """Return `term` in the form that is kept for an integer from `low` to `high`."""

    def combined(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Return a sum, difference or product."""

    def compared(self, operation: Operation, a: Operand, b: Operand) -> z3.BoolRef:
        """Return the outcome of a comparison."""

    def bitwise(self, operation: Operation, a: Operand, b: Operand, low: int, high: int) -> Operand:
        """Return a bitwise operation on two's complement; TypeError where this arithmetic has none."""

    def low_bits(self, term: Operand, bits: int) -> Operand:
        """Return the low `bits` bits: the remainder of division by 2^bits, which is not negative."""

    def low_bits_cleared(self, term: Operand, bits: int) -> Operand:
        """Return the term without its low `bits` bits: what they count is taken off."""

    def shifted_right(self, term: Operand, bits: int) -> Operand:
        """Return the quotient of division by 2^bits, rounded down."""

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Return quotient and remainder of division by a positive number, rounded down."""

    def absolute(self, term: Operand, high: int) -> Operand:
        """Return the absolute value, at most `high`."""


def width_of(low: int, high: int) -> int:
    """Return the bits that two's complement needs for every number from `low` to `high`."""
    return max((low if low >= 0 else ~low).bit_length(), (high if high >= 0 else ~high).bit_length()) + 1


class BitVectors:
    """Two's complement, always wide enough: no sum is cut off and nothing wraps that would not in Python."""

    def solver(self) -> z3.Solver:
        """Return a solver of bit-vectors."""
        # Decided anew each time: quicker here than what a solver learns from one question for the next.
        return z3.Then("simplify", "solve-eqs", "bit-blast", "sat").solver()

    def unknown(self, name: str, low: int, high: int) -> tuple[Operand, Operand, list[z3.BoolRef]]:
        """Return an unknown, with bounds where not all values of its width are meant."""
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
        """Shift with the sign coming in."""
        return term >> min(bits, term.size() - 1)

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Divide, and take one off where that was rounded up."""
        width = max(term.size(), width_of(0, by)) + 1
        a, b = self._widened(term, width), z3.BitVecVal(by, width)
        remainder = z3.SRem(a, b)
        below = remainder < 0
        return z3.If(below, a / b - 1, a / b), z3.If(below, remainder + b, remainder)

    def absolute(self, term: Operand, high: int) -> Operand:
        """Negate where negative."""
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
        # It leaves out what products of two unknowns would need, and is a third faster for that.
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
        """Take the remainder, which the prover's integers have as Python has it."""
        return term % (1 << bits)

    def low_bits_cleared(self, term: Operand, bits: int) -> Operand:
        """Take the remainder off."""
        return term - term % (1 << bits)

    def shifted_right(self, term: Operand, bits: int) -> Operand:
        """Divide, rounding down."""
        return term / (1 << bits)

    def divided(self, term: Operand, by: int) -> tuple[Operand, Operand]:
        """Divide, rounding down."""
        return term / by, term % by

    def absolute(self, term: Operand, high: int) -> Operand:
        """Negate where negative."""
        return z3.If(term < 0, -term, term)
