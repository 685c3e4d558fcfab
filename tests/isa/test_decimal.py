"""Decimal formats and arithmetic; tests/oracle/test_decimals.py compares the instructions with QEMU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee import IEEE
from chronovisor.isa.ieee.decimal_formats import (
    DECIMAL32,
    DECIMAL64,
    DECIMAL128,
    PACKED,
    UNPACKED,
    Datum,
    DecimalFormat,
    Kind,
)
from chronovisor.isa.ieee.rounding import OVERFLOW_ENABLED, UNDERFLOW_ENABLED

FORMATS = (DECIMAL32, DECIMAL64, DECIMAL128)


def number(form: DecimalFormat, digits: int, exponent: int = 0, negative: bool = False) -> int:
    return form.encode(Datum(Kind.FINITE, negative, digits, exponent))


def done(name: str, *operands: int) -> tuple[int, int]:
    operation = IEEE[name]
    both = operation(*operands)
    return both & (1 << operation.width) - 1, both >> operation.width


def test_known_encodings() -> None:
    # By IEEE 754's own examples and decNumber's.
    assert [PACKED[n] for n in (5, 9, 55, 79, 80, 99, 555, 999)] == [
        *(0x005, 0x009, 0x055, 0x079, 0x00A, 0x05F, 0x2D5, 0x0FF)
    ]
    assert [UNPACKED[PACKED[n]] for n in range(1000)] == list(range(1000))
    assert [UNPACKED[one] for one in (0x16E, 0x26E, 0x3FF)] == [888, 888, 999]
    assert number(DECIMAL64, 1) == 0x2238_0000_0000_0001
    assert number(DECIMAL64, 9_999_999_999_999_999, 369) == 0x77FC_FF3F_CFF3_FCFF
    assert number(DECIMAL32, 1) == 0x2250_0001
    assert number(DECIMAL128, 1) == 0x2208_0000 << 96 | 1


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(st.data())
def test_what_is_encoded_is_decoded(form: DecimalFormat, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(Kind))
    most = form.precision if kind is Kind.FINITE else form.precision - 1
    digits = 0 if kind is Kind.INFINITY else data.draw(st.integers(0, 10**most - 1))
    biased = data.draw(st.integers(0, form.largest_biased)) if kind is Kind.FINITE else form.bias
    datum = Datum(kind, data.draw(st.booleans()), digits, biased - form.bias)
    assert form.decode(form.encode(datum)) == datum


@pytest.mark.parametrize(("form", "by"), [(DECIMAL64, 576), (DECIMAL128, 9216)])
def test_enabled_overflow_and_underflow_adjust_the_exponent(form: DecimalFormat, by: int) -> None:
    top = form.largest_biased - form.bias
    large, ten = number(form, 10**form.precision - 1, top), number(form, 10)
    infinity = form.encode(Datum(Kind.INFINITY, negative=False))
    lost = int(FPSCR.OX | FPSCR.XX | FPSCR.FI | FPSCR.FR)
    assert done(f"multiply {form.name}", large, ten, 0) == (infinity, lost)
    found, raised = done(f"multiply {form.name}", large, ten, OVERFLOW_ENABLED)
    assert raised == FPSCR.OX
    assert form.decode(found) == Datum(Kind.FINITE, False, 10**form.precision - 1, top + 1 - by)
    tiny, seven = number(form, 3, -form.bias), number(form, 7)
    assert done(f"divide {form.name}", tiny, seven, 0) == (
        number(form, 0, -form.bias),
        int(FPSCR.UX | FPSCR.XX | FPSCR.FI),
    )
    found, raised = done(f"divide {form.name}", tiny, seven, UNDERFLOW_ENABLED)
    assert raised & ~int(FPSCR.FR) == FPSCR.UX | FPSCR.XX | FPSCR.FI
    quotient = form.decode(found)
    assert quotient.digits == (3 * 10**form.precision + 3) // 7
    assert quotient.exponent == -form.bias - form.precision + by


def test_rounding_modes() -> None:
    """A half, by each number of FPSCR[DRN]; the last keeps 2 as a digit from which one can round again."""
    halves = [number(DECIMAL64, digits, -1, negative) for digits in (5, 15, 25) for negative in (False, True)]
    by_mode = [
        *((0, 0, 2, -2, 2, -2), (0, 0, 1, -1, 2, -2), (1, 0, 2, -1, 3, -2), (0, -1, 1, -2, 2, -3)),
        *((1, -1, 2, -2, 3, -3), (0, 0, 1, -1, 2, -2), (1, -1, 2, -2, 3, -3), (1, -1, 1, -1, 2, -2)),
    ]
    for mode, expected in enumerate(by_mode):
        found = [done("decimal64 to signed64", half, mode)[0] for half in halves]
        assert found == [one & (1 << 64) - 1 for one in expected], mode


def test_operands_that_are_none() -> None:
    infinity = DECIMAL64.encode(Datum(Kind.INFINITY, negative=False))
    zero, one = number(DECIMAL64, 0), number(DECIMAL64, 1)
    nan = DECIMAL64.encode(Datum(Kind.QUIET, negative=False))
    for name, operands, raised in (
        ("subtract", (infinity, infinity), FPSCR.VXISI),
        ("multiply", (infinity, zero), FPSCR.VXIMZ),
        ("divide", (infinity, infinity), FPSCR.VXIDI),
        ("divide", (zero, zero), FPSCR.VXZDZ),
    ):
        assert done(f"{name} decimal64", *operands, 0) == (nan, raised)
    assert done("divide decimal64", one, zero, 0) == (infinity, FPSCR.ZX)
    signalling = DECIMAL64.encode(Datum(Kind.SIGNALLING, negative=True, digits=7))
    quiet = DECIMAL64.encode(Datum(Kind.QUIET, negative=True, digits=7))
    assert done("add decimal64", nan, signalling, 0) == (quiet, FPSCR.VXSNAN)
