"""Arithmetic on patterns of bits, exact until the last rounding (Power ISA 3.0B Book I 4.3 to 4.6.6).

Each function takes operands in one format, rounds to the precision and range of ``to``, and gives the result
in the operands' format: Power's single-precision instructions work on the double format in this way. If an
operand is a NaN, the result is the first such operand in Power's order, made quiet. It loses the fraction
bits that ``to`` does not have: the book says so of `frsp` alone, but processors do it in all instructions
that round to single precision.
"""

from __future__ import annotations

from math import isqrt

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.formats import Format, Kind, Number
from chronovisor.isa.ieee.rounding import MODE, Result, Rounding, adjusted, rounded


def quiet_nan(form: Format, *operands: int) -> Result | None:
    """Return what the first NaN among the operands makes of an operation, or None if there is no NaN."""
    numbers = [form.decode(bits) for bits in operands]
    nans = [bits for bits, number in zip(operands, numbers, strict=True) if number.is_nan]
    if not nans:
        return None
    signalling = any(number.kind is Kind.SIGNALLING_NAN for number in numbers)
    return Result(nans[0] | form.quiet, int(FPSCR.VXSNAN) if signalling else 0)


def nan_of(form: Format, to: Format, *operands: int) -> Result | None:
    """As `quiet_nan`, without the fraction bits that ``to`` does not have."""
    if nan := quiet_nan(form, *operands):
        missing = form.precision - to.precision
        return Result(nan.bits >> missing << missing, nan.raised)
    return None


def _invalid(form: Format, why: FPSCR) -> Result:
    return Result(form.default_nan, int(why))


def _infinity(form: Format, negative: bool) -> Result:
    return Result(form.signed(negative, form.infinity), 0)


def _zero(form: Format, negative: bool) -> Result:
    return Result(form.signed(negative, 0), 0)


def widened(form: Format, narrow: Format, bits: int) -> int:
    """A number, infinity or zero of a narrow format in a wider one."""
    number = narrow.decode(bits)
    if number.kind is Kind.INFINITY:
        return form.signed(number.negative, form.infinity)
    if number.kind is Kind.ZERO:
        return form.signed(number.negative, 0)
    return rounded(form, number.negative, number.significand, number.exponent, Rounding.TOWARD_ZERO).bits


def finish(
    form: Format, to: Format, negative: bool, significand: int, exponent: int, rounding: int
) -> Result:
    """Round ``significand * 2**exponent`` to ``to``, and give it in ``form``."""
    if rounding > MODE and (trapped := adjusted(form, to, negative, significand, exponent, rounding)):
        return trapped
    bits, raised = rounded(to, negative, significand, exponent, rounding)
    return Result(bits if to is form else widened(form, to, bits), raised)


def _sum(form: Format, to: Format, a: Number, b: Number, rounding: int) -> Result:
    """The sum of two numbers that are finite or zero."""
    exponent = min(x.exponent for x in (a, b))
    total = sum((-x.significand if x.negative else x.significand) << (x.exponent - exponent) for x in (a, b))
    if total:
        return finish(form, to, total < 0, abs(total), exponent, rounding)
    both = a.kind is b.kind is Kind.ZERO and a.negative == b.negative
    return _zero(form, a.negative if both else rounding & MODE == Rounding.DOWN)


def _flipped(number: Number, flip: bool) -> Number:
    return Number(number.kind, number.negative != flip, number.significand, number.exponent)


def add(form: Format, to: Format, a: int, b: int, rounding: int, subtract: bool = False) -> Result:
    """Return ``a + b``, or ``a - b``."""
    if nan := nan_of(form, to, a, b):
        return nan
    x, y = form.decode(a), _flipped(form.decode(b), subtract)
    if x.kind is y.kind is Kind.INFINITY and x.negative != y.negative:
        return _invalid(form, FPSCR.VXISI)
    for one in (x, y):
        if one.kind is Kind.INFINITY:
            return _infinity(form, one.negative)
    return _sum(form, to, x, y, rounding)


def subtract(form: Format, to: Format, a: int, b: int, rounding: int) -> Result:
    """Return ``a - b``."""
    return add(form, to, a, b, rounding, subtract=True)


def _product(x: Number, y: Number) -> Number | None:
    """Return the exact product of two numbers that are no NaNs; None for an infinity times zero."""
    kinds = {x.kind, y.kind}
    if kinds == {Kind.INFINITY, Kind.ZERO}:
        return None
    kind = next((k for k in (Kind.INFINITY, Kind.ZERO) if k in kinds), Kind.FINITE)
    # A zero's exponent is no number's: it must not make the other addend of a sum longer.
    exponent = x.exponent + y.exponent if kind is Kind.FINITE else 0
    return Number(kind, x.negative != y.negative, x.significand * y.significand, exponent)


def multiply(form: Format, to: Format, a: int, b: int, rounding: int) -> Result:
    """Return ``a * b``."""
    if nan := nan_of(form, to, a, b):
        return nan
    product = _product(form.decode(a), form.decode(b))
    if product is None:
        return _invalid(form, FPSCR.VXIMZ)
    if product.kind is Kind.INFINITY:
        return _infinity(form, product.negative)
    if product.kind is Kind.ZERO:
        return _zero(form, product.negative)
    return finish(form, to, product.negative, product.significand, product.exponent, rounding)


def multiply_add(
    form: Format, to: Format, a: int, c: int, b: int, rounding: int, subtract: bool = False
) -> Result:
    """Return ``a * c + b``, or ``a * c - b``, rounded once. The order of NaNs is a, b, c."""
    x, y, addend = form.decode(a), form.decode(c), _flipped(form.decode(b), subtract)
    product = None if x.is_nan or y.is_nan else _product(x, y)
    invalid = int(FPSCR.VXIMZ) if product is None and not (x.is_nan or y.is_nan) else 0
    if nan := nan_of(form, to, a, b, c):
        return Result(nan.bits, nan.raised | invalid)
    if product is None:
        return _invalid(form, FPSCR.VXIMZ)
    if product.kind is addend.kind is Kind.INFINITY and product.negative != addend.negative:
        return _invalid(form, FPSCR.VXISI)
    for one in (product, addend):
        if one.kind is Kind.INFINITY:
            return _infinity(form, one.negative)
    return _sum(form, to, product, addend, rounding)


def multiply_subtract(form: Format, to: Format, a: int, c: int, b: int, rounding: int) -> Result:
    """Return ``a * c - b``, rounded once."""
    return multiply_add(form, to, a, c, b, rounding, subtract=True)


def divide(form: Format, to: Format, a: int, b: int, rounding: int) -> Result:
    """Return ``a / b``."""
    if nan := nan_of(form, to, a, b):
        return nan
    x, y = form.decode(a), form.decode(b)
    negative = x.negative != y.negative
    if x.kind is y.kind and x.kind is not Kind.FINITE:
        return _invalid(form, FPSCR.VXIDI if x.kind is Kind.INFINITY else FPSCR.VXZDZ)
    if x.kind is Kind.INFINITY:
        return _infinity(form, negative)
    if x.kind is Kind.ZERO or y.kind is Kind.INFINITY:
        return _zero(form, negative)
    if y.kind is Kind.ZERO:
        return Result(_infinity(form, negative).bits, int(FPSCR.ZX))
    # Two bits more than are kept, and one that says whether more follow, round like the exact quotient.
    more = max(0, form.precision + 2 + y.significand.bit_length() - x.significand.bit_length())
    quotient, rest = divmod(x.significand << more, y.significand)
    significand = quotient << 1 | (rest != 0)
    return finish(form, to, negative, significand, x.exponent - y.exponent - more - 1, rounding)


def square_root(form: Format, to: Format, a: int, rounding: int) -> Result:
    """Return the square root of ``a``."""
    if nan := nan_of(form, to, a):
        return nan
    x = form.decode(a)
    if x.kind is Kind.ZERO:
        return Result(a, 0)
    if x.negative:
        return _invalid(form, FPSCR.VXSQRT)
    if x.kind is Kind.INFINITY:
        return Result(a, 0)
    more = 2 * form.precision + 4
    more += (x.exponent - more) & 1
    radicand = x.significand << more
    root = isqrt(radicand)
    significand = root << 1 | (root * root != radicand)
    return finish(form, to, False, significand, (x.exponent - more) // 2 - 1, rounding)
