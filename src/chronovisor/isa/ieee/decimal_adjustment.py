"""Exponents and digits of decimal numbers (Power ISA 3.0B Book I 5.6.3, 5.6.4, 5.6.6)."""

from __future__ import annotations

import decimal
from decimal import Decimal

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.decimal_arithmetic import (
    ROUNDINGS,
    as_datum,
    as_number,
    default_nan,
    is_subnormal,
    of_nans,
    signed,
)
from chronovisor.isa.ieee.decimal_formats import Datum, DecimalFormat, Kind
from chronovisor.isa.ieee.rounding import INEXACT, MODE, Result

_UNBOUNDED = decimal.Context(prec=200, Emin=-1_000_000, Emax=1_000_000, traps=[])


def _with_exponent(number: Decimal, exponent: int, rounding: int) -> tuple[Decimal, int]:
    """A finite number with another exponent; what rounding it raises."""
    _, _, old = number.as_tuple()
    assert isinstance(old, int)
    if old - exponent > 100 and number:
        # More digits than any format has.
        return number, 0
    if not number:
        return Decimal((number.as_tuple().sign, (0,), exponent)), 0
    context = _UNBOUNDED.copy()
    context.rounding = ROUNDINGS[rounding & MODE]
    moved = number.quantize(Decimal((0, (1,), exponent)), context=context)
    if not context.flags[decimal.Inexact]:
        return moved, 0
    return moved, INEXACT | (int(FPSCR.FR) if abs(moved) > abs(number) else 0)


def _quantized(form: DecimalFormat, number: Decimal, exponent: int, rounding: int) -> Result:
    if exponent not in form.exponents:
        return Result(default_nan(form), int(FPSCR.VXCVI))
    moved, raised = _with_exponent(number, exponent, rounding)
    datum = as_datum(moved)
    if datum.exponent != exponent or datum.digits >= 10**form.precision:
        return Result(default_nan(form), int(FPSCR.VXCVI))
    return Result(form.encode(datum), raised)


def quantize(form: DecimalFormat, a: int, b: int, rounding: int) -> Result:
    """Give the second operand the first one's exponent."""
    x, y = form.decode(a), form.decode(b)
    if (nan := of_nans(form, x, y)) is not None:
        return nan
    if Kind.INFINITY in (x.kind, y.kind):
        if x.kind is y.kind:
            return Result(form.encode(y), 0)
        return Result(default_nan(form), int(FPSCR.VXCVI))
    return _quantized(form, as_number(y), x.exponent, rounding)


def quantize_to(form: DecimalFormat, exponent: int, b: int, rounding: int) -> Result:
    """Give an operand an exponent, a signed integer of 64 bits."""
    y = form.decode(b)
    if (nan := of_nans(form, y)) is not None:
        return nan
    if y.kind is Kind.INFINITY:
        return Result(default_nan(form), int(FPSCR.VXCVI))
    return _quantized(form, as_number(y), signed(exponent), rounding)


def reround(form: DecimalFormat, count: int, b: int, rounding: int) -> Result:
    """Round to so many significant digits, at least one; 0 leaves the number as it is."""
    y = form.decode(b)
    if (nan := of_nans(form, y)) is not None:
        return nan
    size = len(str(y.digits))
    if y.kind is Kind.INFINITY or not y.digits or not count or size <= count:
        return Result(form.encode(y), 0)
    moved, raised = _with_exponent(as_number(y), y.exponent + size - count, rounding)
    datum = as_datum(moved)
    if datum.digits == 10**count:
        datum = Datum(datum.kind, datum.negative, datum.digits // 10, datum.exponent + 1)
    if datum.exponent > form.exponents[-1]:
        return Result(default_nan(form), int(FPSCR.VXCVI))
    return Result(form.encode(datum), raised)


def integral(form: DecimalFormat, b: int, rounding: int) -> Result:
    """Round to an integer, whose exponent is at least 0."""
    y = form.decode(b)
    if (nan := of_nans(form, y)) is not None:
        return nan
    if y.kind is Kind.INFINITY or y.exponent >= 0:
        return Result(form.encode(y), 0)
    moved, raised = _with_exponent(as_number(y), 0, rounding)
    return Result(form.encode(as_datum(moved)), raised)


def exponent(form: DecimalFormat, b: int) -> Result:
    """Return the biased exponent as a signed integer of 64 bits; -1 to -3 for an infinity or a NaN."""
    y = form.decode(b)
    of_kind = {Kind.INFINITY: -1, Kind.QUIET: -2, Kind.SIGNALLING: -3}
    return Result(of_kind.get(y.kind, y.exponent + form.bias) & (1 << 64) - 1, 0)


def with_exponent(form: DecimalFormat, a: int, b: int) -> Result:
    """Give the second operand's digits the biased exponent that the first is, a signed integer."""
    y, biased = form.decode(b), signed(a)
    if not 0 <= biased <= form.largest_biased:
        kind = {-1: Kind.INFINITY, -3: Kind.SIGNALLING}.get(biased, Kind.QUIET)
        # Declets that encode no number stay as they are.
        trailing = b & (1 << form.trailing) - 1
        return Result(form.encode(Datum(kind, y.negative)) | trailing, 0)
    digits = y.digits if y.kind is Kind.FINITE else form.trailing_digits(b)
    return Result(form.encode(Datum(Kind.FINITE, y.negative, digits, biased - form.bias)), 0)


def shift_left(form: DecimalFormat, a: int, count: int) -> Result:
    """Shift the digits to the left; the exponent stays. Of a NaN the payload is shifted."""
    return _shifted(form, True, a, count)


def shift_right(form: DecimalFormat, a: int, count: int) -> Result:
    """Shift the digits to the right, as `shift_left` does to the left."""
    return _shifted(form, False, a, count)


def _shifted(form: DecimalFormat, left: bool, a: int, count: int) -> Result:
    x = form.decode(a)
    is_finite = x.kind is Kind.FINITE
    digits = x.digits if is_finite else form.trailing_digits(a)
    size = form.precision - (not is_finite)
    moved = digits * 10**count % 10**size if left else digits // 10**count
    if is_finite:
        return Result(form.encode(Datum(x.kind, x.negative, moved, x.exponent)), 0)
    return Result(form.with_trailing_digits(form.encode(x), moved), 0)


def to_packed(form: DecimalFormat, signs: int, b: int) -> Result:
    """Return the rightmost digits as packed decimal: `signs` is the instruction's field SP."""
    y = form.decode(b)
    digits = y.digits if y.kind is Kind.FINITE else form.trailing_digits(b)
    count = form.width // 4 - (signs >> 1)
    packed = int(str(digits % 10**count), 16)
    if signs >> 1:
        positive = 0xF if signs & 1 else 0xC
        packed = packed << 4 | (0xD if y.negative else positive)
    return Result(packed, 0)


def from_packed(form: DecimalFormat, signed: int, b: int) -> Result:
    """Return the number of packed decimal digits, with a sign in the last four bits if it is `signed`."""
    negative, digits = False, b
    wrong = Result(default_nan(form), int(FPSCR.VXCVI))
    if signed:
        sign, digits = b & 0xF, b >> 4
        if sign < 0xA:
            return wrong
        negative = sign in (0xB, 0xD)
    text = f"{digits:x}"
    if not text.isdecimal():
        return wrong
    return Result(form.encode(Datum(Kind.FINITE, negative, int(text))), 0)


def compare_exponents(form: DecimalFormat, a: int, b: int) -> Result:
    """Return less, greater, equal, unordered of two exponents as the bits of a condition field."""
    x, y = form.decode(a), form.decode(b)
    if x.kind is not Kind.FINITE or y.kind is not Kind.FINITE:
        alike = x.kind is y.kind is Kind.INFINITY or (x.is_nan and y.is_nan)
        return Result(2 if alike else 1, 0)
    return Result(8 if x.exponent < y.exponent else 4 if x.exponent > y.exponent else 2, 0)


def compare_significance(form: DecimalFormat, count: int, b: int) -> Result:
    """Compare how many digits are asked for with how many there are."""
    y = form.decode(b)
    if y.kind is not Kind.FINITE:
        return Result(1, 0)
    there = len(str(y.digits)) if y.digits else 0
    if not count:
        return Result(4, 0)
    return Result(8 if count < there else 4 if count > there else 2, 0)


def data_class(form: DecimalFormat, a: int) -> Result:
    """Return the bit of a datum's class in the mask of `dtstdc`."""
    x = form.decode(a)
    match x.kind:
        case Kind.SIGNALLING:
            return Result(0b000001, 0)
        case Kind.QUIET:
            return Result(0b000010, 0)
        case Kind.INFINITY:
            return Result(0b000100, 0)
    if not x.digits:
        return Result(0b100000, 0)
    return Result(0b010000 if is_subnormal(form, x) else 0b001000, 0)


def data_group(form: DecimalFormat, a: int) -> Result:
    """Return the bit of a datum's group in the mask of `dtstdg`."""
    x = form.decode(a)
    if x.kind is not Kind.FINITE:
        return Result(0b000001, 0)
    extreme = x.exponent in (form.exponents[0], form.exponents[-1])
    if not x.digits:
        return Result(0b010000 if extreme else 0b100000, 0)
    if extreme or is_subnormal(form, x):
        return Result(0b001000, 0)
    full = x.digits >= 10 ** (form.precision - 1)
    return Result(0b000010 if full else 0b000100, 0)
