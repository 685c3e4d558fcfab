"""Powers of two and logarithms to the base of two, rounded to a format.

`decimal` computes them to as many digits as one likes. Sixty are more than any rounding needs: a result that
is not exact is irrational, and none of binary32 comes that near to the middle of two numbers.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, ROUND_FLOOR, Context, Decimal, localcontext

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.arithmetic import finish, quiet_nan
from chronovisor.isa.ieee.formats import Format, Kind
from chronovisor.isa.ieee.rounding import Result

_PRECISE = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)
_PLACES = 160
"""Binary places of a result before it is rounded."""


def _fixed(number: Decimal) -> int:
    """A number of at most some thousands as an integer of so many binary places."""
    return int(number * Decimal(2) ** _PLACES)


def power_of_two(form: Format, a: int, rounding: int) -> Result:
    """Return 2 to the power of ``a``."""
    if nan := quiet_nan(form, a):
        return nan
    x = form.decode(a)
    if x.kind is Kind.INFINITY:
        return Result(0 if x.negative else form.infinity, 0)
    magnitude = x.significand << x.exponent if x.exponent >= 0 else x.significand >> -x.exponent
    if (far := 4 * form.bias) < magnitude:
        # Too large or too small for the format, no matter by how much.
        return finish(form, form, False, 1, -far if x.negative else far, rounding)
    with localcontext(_PRECISE):
        power = Decimal(-x.significand if x.negative else x.significand) * Decimal(2) ** x.exponent
        whole = power.to_integral_value(ROUND_FLOOR)
        significand = _fixed(Decimal(2) ** (power - whole))
    return finish(form, form, False, significand, int(whole) - _PLACES, rounding)


def logarithm(form: Format, a: int, rounding: int) -> Result:
    """Return the logarithm of ``a`` to the base of 2."""
    if nan := quiet_nan(form, a):
        return nan
    x = form.decode(a)
    if x.kind is Kind.ZERO:
        return Result(form.signed(True, form.infinity), int(FPSCR.ZX))
    if x.negative:
        return Result(form.default_nan, int(FPSCR.VXSQRT))
    if x.kind is Kind.INFINITY:
        return Result(a, 0)
    whole = x.significand.bit_length() - 1 + x.exponent
    if x.significand.bit_count() == 1:
        return finish(form, form, whole < 0, abs(whole), 0, rounding) if whole else Result(0, 0)
    with localcontext(_PRECISE):
        # The factor that is between 1 and 2, and then the power of two.
        factor = Decimal(x.significand) / Decimal(2) ** (x.significand.bit_length() - 1)
        number = factor.ln() / Decimal(2).ln() + whole
        magnitude = _fixed(abs(number))
    return finish(form, form, number < 0, magnitude, -_PLACES, rounding)
