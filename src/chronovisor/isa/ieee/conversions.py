"""Comparison, conversion between formats, from and to integers (Power ISA 3.0B Book I 4.6.7, 4.6.8, A.2)."""

from __future__ import annotations

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.arithmetic import finish, nan_of, quiet_nan
from chronovisor.isa.ieee.formats import Format, Kind
from chronovisor.isa.ieee.rounding import Result, rounded_integer

LESS, GREATER, EQUAL, UNORDERED = 8, 4, 2, 1


def compare(form: Format, a: int, b: int) -> Result:
    """Return one of LESS, GREATER, EQUAL and UNORDERED for ``a`` against ``b``.

    Of the exceptions it raises VXSNAN alone: whether VXVC comes too depends on the instruction.
    """
    if nan := quiet_nan(form, a, b):
        return Result(UNORDERED, nan.raised)
    # Without the sign, patterns are in the order of the magnitudes.
    x, y = (-(bits ^ form.sign) if bits & form.sign else bits for bits in (a, b))
    return Result(EQUAL if x == y else LESS if x < y else GREATER, 0)


def narrowed_nan(form: Format, to: Format, nan: Result) -> Result:
    """A quiet NaN in another format: its fraction keeps the upper bits."""
    fraction = nan.bits & ((1 << form.fraction_bits) - 1)
    more = to.fraction_bits - form.fraction_bits
    fraction = fraction << more if more >= 0 else fraction >> -more
    return Result(to.signed(bool(nan.bits & form.sign), to.infinity | fraction), nan.raised)


def convert(form: Format, to: Format, a: int, rounding: int) -> Result:
    """Return a number of one format in another format."""
    if nan := quiet_nan(form, a):
        return narrowed_nan(form, to, nan)
    x = form.decode(a)
    if x.kind is Kind.FINITE:
        return finish(to, to, x.negative, x.significand, x.exponent, rounding)
    return Result(to.signed(x.negative, to.infinity if x.kind is Kind.INFINITY else 0), 0)


def round_to(form: Format, to: Format, a: int, rounding: int) -> Result:
    """Return a number rounded to the precision and range of a narrower format, in its own format."""
    if nan := nan_of(form, to, a):
        return nan
    x = form.decode(a)
    if x.kind is not Kind.FINITE:
        return Result(a, 0)
    return finish(form, to, x.negative, x.significand, x.exponent, rounding)


def integral(form: Format, a: int, rounding: int) -> Result:
    """Return a number rounded to an integer, in its own format, with XX, FI and FR."""
    if nan := quiet_nan(form, a):
        return nan
    x = form.decode(a)
    if x.kind is not Kind.FINITE or x.exponent >= 0:
        return Result(a, 0)
    integer, raised = rounded_integer(x.negative, x.significand, -x.exponent, rounding)
    if not integer:
        return Result(form.signed(x.negative, 0), raised)
    return Result(finish(form, form, x.negative, integer, 0, rounding).bits, raised)


def to_integer(form: Format, width: int, signed: bool, a: int, rounding: int) -> Result:
    """Return a number as an integer of ``width`` bits.

    One that is too large or too small becomes the nearest integer that there is, and a NaN the smallest one;
    both raise VXCVI.
    """
    smallest = -(1 << (width - 1)) if signed else 0
    largest = (1 << (width - 1 if signed else width)) - 1
    ones = (1 << width) - 1
    if nan := quiet_nan(form, a):
        return Result(smallest & ones, nan.raised | int(FPSCR.VXCVI))
    x = form.decode(a)
    if x.kind is Kind.INFINITY:
        return Result((smallest if x.negative else largest) & ones, int(FPSCR.VXCVI))
    integer, raised = rounded_integer(x.negative, x.significand, -x.exponent, rounding)
    integer = -integer if x.negative else integer
    if not smallest <= integer <= largest:
        return Result((smallest if integer < 0 else largest) & ones, int(FPSCR.VXCVI))
    return Result(integer & ones, raised)


def from_integer(form: Format, to: Format, width: int, signed: bool, a: int, rounding: int) -> Result:
    """Return an integer of ``width`` bits as a number, rounded to ``to``, in ``form``."""
    negative = signed and bool(a >> (width - 1))
    magnitude = (1 << width) - a if negative else a
    if not magnitude:
        return Result(0, 0)
    return finish(form, to, negative, magnitude, 0, rounding)
