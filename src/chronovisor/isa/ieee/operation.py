"""What an operation of the `ieee` family is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chronovisor.isa.ieee.rounding import Result

RAISED_WIDTH: Final = 32
"""The bits above a result: the bits of FPSCR's lower half that the operation raises."""

ROUNDING_WIDTH: Final = 5
"""The bits of a rounding operand: a `Rounding`, and which exceptions are enabled (`rounding.MODE`)."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: the widths of its operands and of its result, in bits, and what computes it.

    The last operand of all but comparisons is the rounding mode.
    """

    operands: tuple[int, ...]
    width: int
    compute: Callable[..., Result]

    def __call__(self, *arguments: int) -> int:
        """Return the result with the raised bits above it."""
        bits, raised = self.compute(*arguments)
        return raised << self.width | bits
