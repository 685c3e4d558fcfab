"""Rounding exact numbers to a format, with the exceptions that this raises (Power ISA 3.0B Book I 4.3.6)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.formats import Format

INEXACT = int(FPSCR.XX | FPSCR.FI)

MODE = 0x7
"""The bits of a rounding operand that are a `Rounding`; above them are FPSCR's enable bits of …"""
UNDERFLOW_ENABLED = 0x8
OVERFLOW_ENABLED = 0x10


class Rounding(IntEnum):
    """How to round. The first four have the numbers of FPSCR[RN]."""

    NEAREST_EVEN = 0
    TOWARD_ZERO = 1
    UP = 2
    DOWN = 3
    NEAREST_AWAY = 4
    TO_ODD = 5
    """Cut off what does not fit, and set the last bit if anything was cut off. Rounding the result again, to
    a format narrower by two bits or more, is then as good as rounding once."""


class Result(NamedTuple):
    """The bits of a result, and the bits of FPSCR that its operation raises: exceptions, FR and FI."""

    bits: int
    raised: int


def rounded_integer(negative: bool, significand: int, drop: int, rounding: int) -> tuple[int, int]:
    """Return ``significand / 2**drop`` as an integer, and FR, FI and XX; ``drop`` may be negative."""
    if drop <= 0:
        return significand << -drop, 0
    kept, rest = significand >> drop, significand & ((1 << drop) - 1)
    if not rest:
        return kept, 0
    half = 1 << (drop - 1)
    match rounding & MODE:
        case Rounding.NEAREST_EVEN:
            up = rest > half or (rest == half and kept & 1 == 1)
        case Rounding.NEAREST_AWAY:
            up = rest >= half
        case Rounding.TOWARD_ZERO:
            up = False
        case Rounding.UP:
            up = not negative
        case Rounding.DOWN:
            up = negative
        case _:
            up = not kept & 1
    return kept + up, INEXACT | (int(FPSCR.FR) if up else 0)


def _overflow(negative: bool, rounding: int) -> bool:
    """Whether a result that is too large becomes an infinity, rather than the largest finite number."""
    mode = rounding & MODE
    if mode in (Rounding.NEAREST_EVEN, Rounding.NEAREST_AWAY):
        return True
    return mode == (Rounding.DOWN if negative else Rounding.UP)


def rounded(to: Format, negative: bool, significand: int, exponent: int, rounding: int) -> Result:
    """Round ``significand * 2**exponent``, which is not zero, to a format.

    Results are those of disabled overflow and underflow exceptions; `adjusted` has those of enabled ones.
    Tininess is detected before rounding; a tiny result raises UX if it is inexact, too. FR, which the book
    leaves undefined on overflow, says there as elsewhere whether the result's magnitude is too large.
    """
    leading = significand.bit_length() - 1 + exponent
    tiny = leading < to.smallest_exponent
    last = max(leading, to.smallest_exponent) - to.fraction_bits
    kept, raised = rounded_integer(negative, significand, last - exponent, rounding)
    # A denormal's implicit bit is missing, so its exponent field comes out as 0. A carry out of the
    # significand goes into the exponent.
    magnitude = ((last + to.fraction_bits + to.bias - 1) << to.fraction_bits) + kept
    if magnitude >= to.infinity:
        infinite = _overflow(negative, rounding)
        raised = int(FPSCR.OX) | INEXACT | (int(FPSCR.FR) if infinite else 0)
        magnitude = to.infinity if infinite else to.infinity - 1
    elif tiny and raised:
        raised |= int(FPSCR.UX)
    return Result(to.signed(negative, magnitude), raised)


def adjusted(
    form: Format, to: Format, negative: bool, significand: int, exponent: int, rounding: int
) -> Result | None:
    """The result in ``form`` of an enabled overflow or underflow, None if there is neither.

    Source: Book I 4.4.3 and 4.4.4.
    The number is rounded to the precision of ``to`` without regard to its range. Then its exponent is made
    smaller or larger by three quarters of the range of exponents. An enabled underflow need not be inexact.
    """
    leading = significand.bit_length() - 1 + exponent
    last = leading - to.fraction_bits
    kept, raised = rounded_integer(negative, significand, last - exponent, rounding)
    by = 3 * (to.bias + 1) // 2
    if rounding & UNDERFLOW_ENABLED and leading < to.smallest_exponent:
        raised |= int(FPSCR.UX)
    elif rounding & OVERFLOW_ENABLED and kept.bit_length() + last > to.bias + 1:
        raised |= int(FPSCR.OX)
        by = -by
    else:
        return None
    return Result(rounded(form, negative, kept, last + by, Rounding.TOWARD_ZERO).bits, raised)
