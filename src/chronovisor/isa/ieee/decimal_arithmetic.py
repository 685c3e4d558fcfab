"""Decimal arithmetic (Power ISA 3.0B Book I 5.4 to 5.6), by Python's `decimal`.

A rounding operand is FPSCR's decimal rounding mode, and above it which exceptions are enabled
(`rounding.UNDERFLOW_ENABLED`, `rounding.OVERFLOW_ENABLED`).
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.decimal_formats import Datum, DecimalFormat, Kind
from chronovisor.isa.ieee.rounding import INEXACT, MODE, OVERFLOW_ENABLED, UNDERFLOW_ENABLED, Result

ROUNDINGS: Final = (
    decimal.ROUND_HALF_EVEN,
    decimal.ROUND_DOWN,
    decimal.ROUND_CEILING,
    decimal.ROUND_FLOOR,
    decimal.ROUND_HALF_UP,
    decimal.ROUND_HALF_DOWN,
    decimal.ROUND_UP,
    decimal.ROUND_05UP,
)
"""By the numbers of FPSCR[DRN]."""
_INTEGERS: Final = range(-(1 << 63), 1 << 63)
_FAR: Final = 1_000_000
"""Beyond the exponents of all formats."""


def signed(bits: int) -> int:
    """Return the signed integer of 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits


def as_number(datum: Datum) -> Decimal:
    """Return a finite datum or an infinity as Python's."""
    if datum.kind is Kind.INFINITY:
        return Decimal("-Infinity" if datum.negative else "Infinity")
    return Decimal((int(datum.negative), tuple(map(int, str(datum.digits))), datum.exponent))


def as_datum(number: Decimal) -> Datum:
    """Return a finite number or an infinity of Python's as a datum."""
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        return Datum(Kind.INFINITY, bool(sign))
    return Datum(Kind.FINITE, bool(sign), int("".join(map(str, digits))), exponent)


def quiet(form: DecimalFormat, nan: Datum) -> int:
    """Return the bits of a NaN made quiet."""
    return form.encode(Datum(Kind.QUIET, nan.negative, nan.digits))


def default_nan(form: DecimalFormat) -> int:
    """Return the NaN that invalid operations give."""
    return form.encode(Datum(Kind.QUIET, negative=False))


def of_nans(form: DecimalFormat, *operands: Datum) -> Result | None:
    """Return the result of an operation with a NaN among its operands; None without one (5.5.10)."""
    for kind in (Kind.SIGNALLING, Kind.QUIET):
        for one in operands:
            if one.kind is kind:
                signals = any(other.kind is Kind.SIGNALLING for other in operands)
                return Result(quiet(form, one), int(FPSCR.VXSNAN) if signals else 0)
    return None


def _context(form: DecimalFormat, rounding: str) -> decimal.Context:
    return decimal.Context(
        prec=form.precision,
        rounding=rounding,
        Emin=form.smallest_exponent,
        Emax=form.largest_exponent,
        clamp=1,
        traps=[],
    )


def rounded(form: DecimalFormat, compute: Callable[[decimal.Context], Decimal], rounding: int) -> Result:
    """Compute and round once to a format, with the exceptions that this raises."""
    context = _context(form, ROUNDINGS[rounding & MODE])
    number = compute(context)
    flags = context.flags
    raised = 0
    if flags[decimal.Inexact]:
        toward_zero = compute(_context(form, decimal.ROUND_DOWN))
        raised |= INEXACT | (int(FPSCR.FR) if toward_zero != number else 0)
    over = flags[decimal.Overflow] and rounding & OVERFLOW_ENABLED
    under = flags[decimal.Subnormal] and rounding & UNDERFLOW_ENABLED
    if over or under:
        return _adjusted(form, compute, rounding, over=bool(over))
    if flags[decimal.Overflow]:
        raised |= int(FPSCR.OX)
    if flags[decimal.Underflow]:
        raised |= int(FPSCR.UX)
    return Result(form.encode(as_datum(number)), raised)


def _adjusted(
    form: DecimalFormat, compute: Callable[[decimal.Context], Decimal], rounding: int, over: bool
) -> Result:
    """Return the result of an enabled overflow or underflow, with the adjusted exponent (5.5.10)."""
    context = _context(form, ROUNDINGS[rounding & MODE])
    context.Emin, context.Emax, context.clamp = -_FAR, _FAR, 0
    number = compute(context)
    raised = int(FPSCR.OX if over else FPSCR.UX)
    if context.flags[decimal.Inexact]:
        context.rounding = decimal.ROUND_DOWN
        raised |= INEXACT | (int(FPSCR.FR) if compute(context) != number else 0)
    by = 3 * form.largest_exponent // 2
    moved = number.scaleb(-by if over else by, decimal.Context(prec=form.precision, Emin=-_FAR, Emax=_FAR))
    return Result(form.encode(as_datum(_context(form, decimal.ROUND_DOWN).plus(moved))), raised)


def arithmetic(form: DecimalFormat, operation: str, a: int, b: int, rounding: int) -> Result:
    """Add, subtract, multiply or divide."""
    x, y = form.decode(a), form.decode(b)
    if (nan := of_nans(form, x, y)) is not None:
        return nan
    infinite = (x.kind is Kind.INFINITY, y.kind is Kind.INFINITY)
    raised = 0
    match operation:
        case "add" | "subtract" if all(infinite) and (x.negative == y.negative) == (operation == "subtract"):
            raised = int(FPSCR.VXISI)
        case "multiply" if (infinite[0] and y.is_zero) or (infinite[1] and x.is_zero):
            raised = int(FPSCR.VXIMZ)
        case "divide" if all(infinite):
            raised = int(FPSCR.VXIDI)
        case "divide" if x.is_zero and y.is_zero:
            raised = int(FPSCR.VXZDZ)
        case "divide" if y.is_zero and not infinite[0]:
            return Result(form.encode(Datum(Kind.INFINITY, x.negative != y.negative)), int(FPSCR.ZX))
    if raised:
        return Result(default_nan(form), raised)
    p, q = as_number(x), as_number(y)
    return rounded(form, lambda context: getattr(context, operation)(p, q), rounding)


def compare(form: DecimalFormat, a: int, b: int) -> Result:
    """Return less, greater, equal, unordered as the bits of a condition field."""
    x, y = form.decode(a), form.decode(b)
    if x.is_nan or y.is_nan:
        signals = Kind.SIGNALLING in (x.kind, y.kind)
        return Result(1, int(FPSCR.VXSNAN) if signals else 0)
    p, q = as_number(x), as_number(y)
    return Result(8 if p < q else 4 if p > q else 2, 0)


def is_subnormal(form: DecimalFormat, number: Datum) -> bool:
    """Whether a finite number that is not zero is below the smallest normal numbers."""
    return number.exponent + len(str(number.digits)) - 1 < form.smallest_exponent


def classify(form: DecimalFormat, a: int) -> Result:
    """Return FPRF of a result, five bits (5.2.2)."""
    x = form.decode(a)
    match x.kind:
        case Kind.QUIET | Kind.SIGNALLING:
            return Result(0b10001, 0)
        case Kind.INFINITY:
            return Result(0b01001 if x.negative else 0b00101, 0)
    if not x.digits:
        return Result(0b10010 if x.negative else 0b00010, 0)
    return Result(is_subnormal(form, x) << 4 | (0b01000 if x.negative else 0b00100), 0)


def convert(form: DecimalFormat, to: DecimalFormat, signals: bool, a: int, rounding: int) -> Result:
    """Convert to another format. With `signals` a signalling NaN is an invalid operation, and made quiet."""
    x = form.decode(a)
    if x.is_nan:
        payload = x.digits % 10 ** (to.precision - 1)
        raises = signals and x.kind is Kind.SIGNALLING
        kind = Kind.QUIET if raises else x.kind
        return Result(to.encode(Datum(kind, x.negative, payload)), int(FPSCR.VXSNAN) if raises else 0)
    number = as_number(x)
    return rounded(to, lambda context: context.plus(number) if number else _zero(context, x, to), rounding)


def _zero(context: decimal.Context, zero: Datum, to: DecimalFormat) -> Decimal:
    """A zero keeps its sign, and its exponent as far as the format has it."""
    exponent = min(max(zero.exponent, to.exponents[0]), to.exponents[-1])
    return Decimal((int(zero.negative), (0,), exponent))


def to_integer(form: DecimalFormat, a: int, rounding: int) -> Result:
    """Convert to a signed integer of 64 bits; the nearest one if there is no such integer."""
    x = form.decode(a)
    wrong = int(FPSCR.VXCVI)
    if x.is_nan:
        signals = int(FPSCR.VXSNAN) if x.kind is Kind.SIGNALLING else 0
        return Result(1 << 63, wrong | signals)
    nearest = Result(1 << 63 if x.negative else _INTEGERS[-1], wrong)
    number = as_number(x)
    if x.kind is Kind.INFINITY or (number and number.adjusted() > 20):
        return nearest
    if not number:
        return Result(0, 0)
    context = decimal.Context(prec=100, rounding=ROUNDINGS[rounding & MODE], traps=[])
    integer = int(context.to_integral_exact(number))
    if integer not in _INTEGERS:
        return nearest
    raised = 0
    if context.flags[decimal.Inexact]:
        raised = INEXACT | (int(FPSCR.FR) if abs(integer) > abs(number) else 0)
    return Result(integer & (1 << 64) - 1, raised)


def from_integer(form: DecimalFormat, a: int, rounding: int) -> Result:
    """Convert a signed integer of 64 bits."""
    number = Decimal(signed(a))
    return rounded(form, lambda context: context.plus(number), rounding)
