"""Exponents, significands and classes of vector-scalar numbers (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, BINARY128, Format
from chronovisor.isa.meanings.floating_point_compare import FPCC, divide_flags, square_root_flags, test_result
from chronovisor.isa.meanings.floating_point_exceptions import place
from chronovisor.isa.meanings.floating_point_storage import double_from_single, single_from_double
from chronovisor.isa.meanings.vector_scalar_arithmetic import first, set_first
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_FORMATS = {"sp": BINARY32, "dp": BINARY64}


def _exponent(form: Format, number: Value) -> Value:
    """The biased exponent, as wide as the number."""
    return number.extract(form.fraction_bits, form.width - form.precision).zext(form.width)


def _significand(form: Format, number: Value) -> Value:
    """The significand with its implicit bit, as wide as the number."""
    biased = number.extract(form.fraction_bits, form.width - form.precision)
    normal = ~(biased.eq(0) | (~biased).eq(0))
    fraction = number & ((1 << form.fraction_bits) - 1)
    return fraction | (normal.zext(form.width) << form.fraction_bits)


def _with_exponent(form: Format, number: Value, exponent: Value) -> Value:
    """A number with another biased exponent, the low bits of ``exponent``."""
    field = (exponent << form.fraction_bits) & form.infinity
    return (number & ~form.infinity) | field


def _in_class(m: Machine, form: Format, number: Value, mask: Value, smallest: int | None = None) -> Value:
    """1 bit: a number is of one of the classes that ``mask`` chooses, 7 bits.

    They are NaN, +infinity, -infinity, +0, -0, positive and negative denormal. ``smallest`` is the smallest
    number that is not denormal, the format's own by default.
    """
    magnitude = number.trunc(form.width - 1)
    negative = number.extract(form.width - 1, 1)
    nan, infinite, zero = magnitude.ugt(form.infinity), magnitude.eq(form.infinity), magnitude.eq(0)
    denormal = magnitude.ult(smallest or 1 << form.fraction_bits) & ~zero

    def signed(kind: Value, positive: int) -> Value:
        chosen = m.select(negative, mask.extract(positive - 1, 1), mask.extract(positive, 1))
        return kind & chosen

    return (nan & mask.extract(6, 1)) | signed(infinite, 5) | signed(zero, 3) | signed(denormal, 1)


def _set_condition(m: Machine, BF: Value, condition: Value) -> None:
    """CR field BF and FPCC become a condition of 4 bits."""
    m.cr[BF] = condition
    m["FPSCR"] = (m["FPSCR"] & ~FPCC) | (condition.zext(64) << place(FPSCR.FU))


def _test_class(m: Machine, form: Format, number: Value, DCMX: Value, smallest: int | None = None) -> Value:
    """The condition that a test of a number's class gives: its sign, and whether it is in a class."""
    found = _in_class(m, form, number, DCMX.trunc(7), smallest)
    return m.concat(number.extract(form.width - 1, 1), m.value(0, 1), found, m.value(0, 1))


def _compare_exponents(m: Machine, form: Format, BF: Value, a: Value, b: Value) -> None:
    x, y = _exponent(form, a), _exponent(form, b)
    unordered = a.trunc(form.width - 1).ugt(form.infinity) | b.trunc(form.width - 1).ugt(form.infinity)
    relation = m.concat(x.ult(y), x.ugt(y), x.eq(y), m.value(0, 1))
    _set_condition(m, BF, m.select(unordered, m.value(1, 4), relation))


# Doubles and singles in doubles


@meaning("xsxexpdp")
def xsxexpdp(m: Machine, RT: Value, XB: Value) -> None:
    m.gpr[RT] = _exponent(BINARY64, first(m, XB))


@meaning("xsxsigdp")
def xsxsigdp(m: Machine, RT: Value, XB: Value) -> None:
    m.gpr[RT] = _significand(BINARY64, first(m, XB))


@meaning("xsiexpdp")
def xsiexpdp(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
    set_first(m, XT, _with_exponent(BINARY64, m.gpr[RA], m.gpr[RB]))


@meaning("xscmpexpdp")
def xscmpexpdp(m: Machine, BF: Value, XA: Value, XB: Value) -> None:
    _compare_exponents(m, BINARY64, BF, first(m, XA), first(m, XB))


@meaning("xststdcdp")
def xststdcdp(m: Machine, BF: Value, XB: Value, DCMX: Value) -> None:
    _set_condition(m, BF, _test_class(m, BINARY64, first(m, XB), DCMX))


@meaning("xststdcsp")
def xststdcsp(m: Machine, BF: Value, XB: Value, DCMX: Value) -> None:
    number = first(m, XB)
    # The smallest normal number is that of the single format.
    smallest = BINARY32.smallest_exponent + BINARY64.bias << BINARY64.fraction_bits
    condition = _test_class(m, BINARY64, number, DCMX, smallest)
    inexact = number.ne(double_from_single(m, single_from_double(m, number)))
    _set_condition(m, BF, condition | inexact.zext(4))


# Quadruples


@meaning("xsxexpqp")
def xsxexpqp(m: Machine, VRT: Value, VRB: Value) -> None:
    m.vr[VRT] = _exponent(BINARY128, m.vr[VRB]) << 64


@meaning("xsxsigqp")
def xsxsigqp(m: Machine, VRT: Value, VRB: Value) -> None:
    m.vr[VRT] = _significand(BINARY128, m.vr[VRB])


@meaning("xsiexpqp")
def xsiexpqp(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
    m.vr[VRT] = _with_exponent(BINARY128, m.vr[VRA], m.vr[VRB] >> 64)


@meaning("xscmpexpqp")
def xscmpexpqp(m: Machine, BF: Value, VRA: Value, VRB: Value) -> None:
    _compare_exponents(m, BINARY128, BF, m.vr[VRA], m.vr[VRB])


@meaning("xststdcqp")
def xststdcqp(m: Machine, BF: Value, VRB: Value, DCMX: Value) -> None:
    _set_condition(m, BF, _test_class(m, BINARY128, m.vr[VRB], DCMX))


# All elements


def _declare_of_elements(suffix: str, form: Format) -> None:
    @meaning(f"xvxexp{suffix}")
    def exponents(m: Machine, XT: Value, XB: Value) -> None:
        m.vsr[XT] = m.each(form.width, lambda b: _exponent(form, b), m.vsr[XB])

    @meaning(f"xvxsig{suffix}")
    def significands(m: Machine, XT: Value, XB: Value) -> None:
        m.vsr[XT] = m.each(form.width, lambda b: _significand(form, b), m.vsr[XB])

    @meaning(f"xviexp{suffix}")
    def insert_exponents(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        m.vsr[XT] = m.each(form.width, lambda a, b: _with_exponent(form, a, b), m.vsr[XA], m.vsr[XB])

    @meaning(f"xvtstdc{suffix}")
    def test_classes(m: Machine, XT: Value, XB: Value, DCMX7: Value) -> None:
        source = m.vsr[XB]
        found = [
            _in_class(m, form, source.extract(low, form.width), DCMX7.trunc(7)).sext(form.width)
            for low in range(128 - form.width, -1, -form.width)
        ]
        m.vsr[XT] = m.concat(*found)

    def any_of(m: Machine, flags: list[tuple[Value, Value]]) -> Value:
        fe, fg = flags[0]
        for more_fe, more_fg in flags[1:]:
            fe, fg = fe | more_fe, fg | more_fg
        return test_result(m, (fe, fg))

    @meaning(f"xvtdiv{suffix}")
    def test_divide(m: Machine, BF: Value, XA: Value, XB: Value) -> None:
        a, b = m.vsr[XA], m.vsr[XB]
        lows = range(0, 128, form.width)
        m.cr[BF] = any_of(
            m, [divide_flags(form, a.extract(low, form.width), b.extract(low, form.width)) for low in lows]
        )

    @meaning(f"xvtsqrt{suffix}")
    def test_square_root(m: Machine, BF: Value, XB: Value) -> None:
        b = m.vsr[XB]
        lows = range(0, 128, form.width)
        m.cr[BF] = any_of(m, [square_root_flags(form, b.extract(low, form.width)) for low in lows])


for _suffix, _form in _FORMATS.items():
    _declare_of_elements(_suffix, _form)
