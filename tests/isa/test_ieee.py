"""IEEE arithmetic against the host's doubles, and against exact rationals where the host cannot say."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from functools import cache
from random import Random

import pytest

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee import IEEE, Rounding
from chronovisor.isa.ieee.formats import (
    BINARY16,
    BINARY32,
    BINARY64,
    BINARY128,
    EXTENDED,
    FORMATS,
    Format,
    Kind,
)
from chronovisor.isa.ieee.rounding import MODE, OVERFLOW_ENABLED, UNDERFLOW_ENABLED

_INVALID = int(
    FPSCR.VXSNAN | FPSCR.VXISI | FPSCR.VXIDI | FPSCR.VXZDZ | FPSCR.VXIMZ | FPSCR.VXSQRT | FPSCR.VXCVI
)


def drawn(random: Random, form: Format) -> int:
    """A pattern, near a boundary more often than not."""
    fraction = (1 << form.fraction_bits) - 1
    top = form.infinity >> form.fraction_bits
    exponent = random.choice(
        (0, 1, 2, top, top - 1, form.bias, random.randrange(top + 1), form.bias + random.randrange(-60, 60))
    )
    low = random.choice(
        (
            0,
            1,
            fraction,
            form.quiet,
            random.getrandbits(form.fraction_bits),
            1 << random.randrange(form.fraction_bits),
        )
    )
    return form.signed(bool(random.getrandbits(1)), exponent << form.fraction_bits | low & fraction)


def outcome(name: str, *arguments: int) -> tuple[int, int]:
    """The bits of a result, and what the operation raises."""
    operation = IEEE[name]
    both = operation(*arguments)
    return both & ((1 << operation.width) - 1), both >> operation.width


def double(bits: int) -> float:
    """The host's double."""
    number: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return number


def pattern(number: float) -> int:
    """The bits of a double."""
    return int.from_bytes(struct.pack(">d", number), "big")


def exact(form: Format, bits: int) -> Fraction:
    """The number that a finite pattern stands for."""
    number = form.decode(bits)
    assert number.kind in (Kind.FINITE, Kind.ZERO)
    magnitude = Fraction(number.significand) * Fraction(2) ** number.exponent
    return -magnitude if number.negative else magnitude


def finite(random: Random, form: Format) -> int:
    """A drawn pattern that is finite."""
    while True:
        bits = drawn(random, form)
        if form.decode(bits).kind in (Kind.FINITE, Kind.ZERO):
            return bits


@cache
def neighbours(form: Format, number: Fraction) -> tuple[int, int]:
    """The patterns nearest to a magnitude: not above, not below."""
    exponent = number.numerator.bit_length() - number.denominator.bit_length()
    exponent = max(exponent - (Fraction(2) ** exponent > number), form.smallest_exponent)
    units = number // Fraction(2) ** (exponent - form.fraction_bits)
    low = min((exponent - form.smallest_exponent << form.fraction_bits) + units, form.infinity - 1)
    if exact(form, low) == number:
        return low, low
    assert exact(form, low) < number
    assert low + 1 == form.infinity or exact(form, low + 1) > number
    return low, low + 1


def judged(form: Format, number: Fraction, rounding: int) -> tuple[int, int]:
    """What rounding an exact number gives and raises, by another way than the implementation's."""
    negative, magnitude = number < 0, abs(number)
    below, above = neighbours(form, magnitude)
    if below == above:
        return form.signed(negative, below), 0
    largest, step = form.infinity - 1, Fraction(2) ** (form.bias - form.fraction_bits)
    there = exact(form, below)
    following = there + step if above == form.infinity else exact(form, above)
    middle = (there + following) / 2
    match rounding:
        case Rounding.NEAREST_EVEN:
            up = magnitude > middle or (magnitude == middle and below & 1 == 1)
        case Rounding.NEAREST_AWAY:
            up = magnitude >= middle
        case Rounding.TO_ODD:
            up = below & 1 == 0
        case Rounding.TOWARD_ZERO:
            up = False
        case _:
            up = negative == (rounding == Rounding.DOWN)
    if below == largest and magnitude >= following and rounding == Rounding.NEAREST_EVEN:
        up = True
    raised = FPSCR.XX | FPSCR.FI | (FPSCR.FR if up else 0)
    if below == largest and (up or magnitude >= following):
        raised |= FPSCR.OX
    if magnitude < Fraction(2) ** form.smallest_exponent:
        raised |= FPSCR.UX
    return form.signed(negative, above if up else below), int(raised)


def test_arithmetic_on_doubles_agrees_with_the_host() -> None:
    random = Random(1)
    compared = 0
    for _ in range(4000):
        a, b = drawn(random, BINARY64), drawn(random, BINARY64)
        x, y = double(a), double(b)
        cases = {"add": x + y, "subtract": x - y, "multiply": x * y}
        if y:
            cases["divide"] = x / y
        for name, expected in cases.items():
            bits, raised = outcome(f"{name} binary64", a, b, Rounding.NEAREST_EVEN)
            if math.isnan(expected):
                assert math.isnan(double(bits))
                assert raised & _INVALID or math.isnan(x) or math.isnan(y)
            else:
                assert bits == pattern(expected), (name, hex(a), hex(b))
            compared += 1
        if x >= 0:
            bits, _raised = outcome("square_root binary64", a, Rounding.NEAREST_EVEN)
            assert bits == pattern(math.sqrt(x))
            compared += 1
        relation = 8 if x < y else 4 if x > y else 2 if x == y else 1
        assert outcome("compare binary64", a, b)[0] == relation
    assert compared > 15_000


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_rounding_agrees_with_rationals(form: Format) -> None:
    random = Random(2)
    compared = inexact = extreme = 0
    for _ in range(8 if form is BINARY128 else 120):
        a, b, c = (finite(random, form) for _ in range(3))
        x, y, z = (exact(form, bits) for bits in (a, b, c))
        results = {
            "add": (x + y, (a, b)),
            "subtract": (x - y, (a, b)),
            "multiply": (x * y, (a, b)),
            "multiply_add": (x * y + z, (a, b, c)),
            "multiply_subtract": (x * y - z, (a, b, c)),
        }
        if y:
            results["divide"] = (x / y, (a, b))
        for name, (number, operands) in results.items():
            for rounding in Rounding:
                if number:
                    expected = judged(form, number, rounding)
                    assert outcome(f"{name} {form.name}", *operands, rounding) == expected, (name, operands)
                    compared += 1
                    inexact += expected[1] != 0
                    extreme += expected[1] & (FPSCR.OX | FPSCR.UX) != 0
    assert compared > (200 if form is BINARY128 else 3_500)
    assert inexact > compared // 3
    assert extreme > compared // 50


def test_square_roots_agree_with_rationals() -> None:
    random = Random(3)
    compared = 0
    for form in FORMATS:
        for _ in range(100):
            a = finite(random, form) & ~form.sign or 1
            for rounding in (Rounding.TOWARD_ZERO, Rounding.UP):
                bits, raised = outcome(f"square_root {form.name}", a, rounding)
                root, square = exact(form, bits), exact(form, a)
                last = exact(form, bits + 1) - root
                if raised:
                    assert raised & ~FPSCR.FR == FPSCR.XX | FPSCR.FI
                    assert (root - last) ** 2 < square < (root + last) ** 2
                    assert (root * root > square) is (rounding is Rounding.UP) is bool(raised & FPSCR.FR)
                else:
                    assert root * root == square
                compared += 1
    assert compared == 600


def test_a_single_precision_result_is_rounded_once() -> None:
    random = Random(4)
    compared = 0
    for _ in range(500):
        a, b, c = (finite(random, BINARY64) for _ in range(3))
        x, y, z = (exact(BINARY64, bits) for bits in (a, b, c))
        for name, number, operands in (
            ("add", x + y, (a, b)),
            ("multiply", x * y, (a, b)),
            ("multiply_add", x * y + z, (a, b, c)),
            ("round", x, (a,)),
        ):
            if number:
                rounding = random.choice(list(Rounding))
                narrow, raised = judged(BINARY32, number, rounding)
                bits, found = outcome(f"{name} binary64 as binary32", *operands, rounding)
                assert found == raised
                if BINARY32.decode(narrow).kind is Kind.INFINITY:
                    assert bits & ~BINARY64.sign == BINARY64.infinity
                else:
                    assert exact(BINARY64, bits) == exact(BINARY32, narrow)
                compared += 1
    assert compared > 1_500


def test_conversions_agree_with_rationals() -> None:
    random = Random(5)
    compared = saturated = 0
    for form in FORMATS:
        for to in FORMATS:
            for _ in range(40):
                a = finite(random, form)
                if to is not form and exact(form, a):
                    rounding = random.choice(list(Rounding))
                    found = outcome(f"convert {form.name} to {to.name}", a, rounding)
                    assert found == judged(to, exact(form, a), rounding)
                    compared += 1
        for name, low, high in (
            ("signed32", -(1 << 31), (1 << 31) - 1),
            ("unsigned32", 0, (1 << 32) - 1),
            ("signed64", -(1 << 63), (1 << 63) - 1),
            ("unsigned64", 0, (1 << 64) - 1),
        ):
            ones = high - low
            for _ in range(100):
                a = finite(random, form)
                number = exact(form, a)
                bits, raised = outcome(f"{form.name} to {name}", a, Rounding.TOWARD_ZERO)
                cut = math.trunc(number)
                clamped = min(max(cut, low), high)
                assert bits == clamped & ones
                wrong = FPSCR.VXCVI if cut != clamped else FPSCR.XX | FPSCR.FI if cut != number else 0
                assert raised == wrong
                saturated += cut != clamped
                bits, raised = outcome(f"{form.name} to {name}", a, Rounding.NEAREST_EVEN)
                assert bits == min(max(round(number), low), high) & ones
                integer = random.randrange(low, high + 1) >> random.randrange(64)
                if integer:
                    rounding = random.choice(list(Rounding))
                    found = outcome(f"{name} to {form.name}", integer & ones, rounding)
                    assert found == judged(form, Fraction(integer), rounding)
                compared += 3
            # The nearest integers to a number and its half, up and down.
            for half in (Fraction(1, 2), Fraction(3, 2), Fraction(5, 2), Fraction(-1, 2), Fraction(-5, 2)):
                a, _ = judged(form, half, Rounding.NEAREST_EVEN)
                for rounding, expected in (
                    (Rounding.UP, math.ceil(half)),
                    (Rounding.DOWN, math.floor(half)),
                    (Rounding.NEAREST_EVEN, round(half)),
                    (
                        Rounding.NEAREST_AWAY,
                        math.trunc(half + (Fraction(1, 2) if half > 0 else -Fraction(1, 2))),
                    ),
                ):
                    whole, raised = outcome(f"integral {form.name}", a, rounding)
                    assert exact(form, whole) == expected
                    assert raised & FPSCR.XX
                    assert whole & form.sign == a & form.sign
                    compared += 1
    assert compared > 4_000
    assert saturated > 250


def test_halves_agree_with_the_host_and_with_rationals() -> None:
    random = Random(6)
    compared = 0
    for bits in range(1 << BINARY16.width):
        if BINARY16.decode(bits).kind in (Kind.FINITE, Kind.ZERO, Kind.INFINITY):
            number: float = struct.unpack(">e", bits.to_bytes(2, "big"))[0]
            assert outcome("convert binary16 to binary64", bits, 0) == (pattern(number), 0)
            compared += 1
    assert compared == 2 * (31 * 1024 + 1)
    compared = 0
    for form in (BINARY32, BINARY64):
        for _ in range(400):
            number = Fraction(random.getrandbits(24) - (1 << 23) or 1) / 2 ** random.randrange(8, 42)
            a, _ = judged(form, number, Rounding.TOWARD_ZERO)
            rounding = random.choice(list(Rounding))
            found = outcome(f"convert {form.name} to binary16", a, rounding)
            assert found == judged(BINARY16, exact(form, a), rounding)
            compared += 1
    assert compared == 800


def test_rounding_to_double_extended_precision_agrees_with_rationals() -> None:
    random = Random(7)
    compared = 0
    for _ in range(60):
        a, rounding = finite(random, BINARY128), random.choice(list(Rounding))
        if number := exact(BINARY128, a):
            narrow, raised = judged(EXTENDED, number, rounding)
            bits, found = outcome("round binary128 as extended", a, rounding)
            assert found == raised
            if EXTENDED.decode(narrow).kind is Kind.INFINITY:
                assert bits & ~BINARY128.sign == BINARY128.infinity
            else:
                assert exact(BINARY128, bits) == exact(EXTENDED, narrow)
            compared += 1
    assert compared > 40


def _single(bits: int) -> float:
    number: float = struct.unpack(">f", bits.to_bytes(4, "big"))[0]
    return number


def test_powers_and_logarithms_agree_with_the_host() -> None:
    """The host's doubles are so much more precise than singles that they say which one is nearest."""
    random = Random(8)
    compared = 0
    for _ in range(2000):
        a = drawn(random, BINARY32)
        x = _single(a)
        if math.isnan(x):
            continue
        if x > -150:
            power, _ = outcome("power_of_two binary32", a, Rounding.NEAREST_EVEN)
            exact_power = 2.0**x if x < 200 else math.inf
            assert math.isclose(_single(power), exact_power, rel_tol=2**-23, abs_tol=2**-149) or (
                exact_power > 2.0**127 and math.isinf(_single(power))
            )
            compared += 1
        if x > 0 and math.isfinite(x):
            found, _ = outcome("logarithm binary32", a, Rounding.NEAREST_EVEN)
            assert math.isclose(_single(found), math.log2(x), rel_tol=2**-23)
            compared += 1
    assert compared > 2000
    for whole in range(-126, 128):
        bits = (BINARY32.bias + whole) << 23
        number = BINARY32.signed(whole < 0, int.from_bytes(struct.pack(">f", abs(whole)), "big"))
        for rounding in Rounding:
            assert outcome("logarithm binary32", bits, rounding) == (number, 0)
            assert outcome("power_of_two binary32", number, rounding) == (bits, 0)


@pytest.mark.parametrize(
    ("name", "operand", "bits"),
    [
        ("power_of_two", 0xFF80_0000, 0),
        ("power_of_two", 0x7F80_0000, 0x7F80_0000),
        ("power_of_two", 0x8000_0000, 0x3F80_0000),
        ("power_of_two", 0xC360_0000, 0),
        ("logarithm", 0x8000_0000, 0xFF80_0000),
        ("logarithm", 0x7F80_0000, 0x7F80_0000),
        ("logarithm", 0xBF80_0000, 0x7FC0_0000),
        ("logarithm", 0x3F80_0000, 0),
        ("logarithm", 0xFF80_0001, 0xFFC0_0001),
    ],
)
def test_ends_of_powers_and_logarithms(name: str, operand: int, bits: int) -> None:
    assert outcome(f"{name} binary32", operand, Rounding.NEAREST_EVEN)[0] == bits


_SNAN, _QNAN, _OTHER = 0x7FF4_0000_0000_0001, 0xFFF8_0000_0000_0002, 0x7FF8_0000_0000_0003
_INF, _ONE, _NONE = 0x7FF0_0000_0000_0000, 0x3FF0_0000_0000_0000, 0
_MINUS, _DEFAULT = 1 << 63, 0x7FF8_0000_0000_0000


@pytest.mark.parametrize(
    ("name", "operands", "bits", "raised"),
    [
        ("add", (_INF, _INF | _MINUS), _DEFAULT, FPSCR.VXISI),
        ("subtract", (_INF, _INF), _DEFAULT, FPSCR.VXISI),
        ("subtract", (_INF, _INF | _MINUS), _INF, 0),
        ("multiply", (_INF, _NONE), _DEFAULT, FPSCR.VXIMZ),
        ("divide", (_NONE, _NONE | _MINUS), _DEFAULT, FPSCR.VXZDZ),
        ("divide", (_INF, _INF), _DEFAULT, FPSCR.VXIDI),
        ("divide", (_ONE, _NONE | _MINUS), _INF | _MINUS, FPSCR.ZX),
        ("square_root", (_ONE | _MINUS,), _DEFAULT, FPSCR.VXSQRT),
        ("square_root", (_MINUS,), _MINUS, 0),
        ("add", (_OTHER, _SNAN), _OTHER, FPSCR.VXSNAN),
        ("add", (_SNAN, _QNAN), _SNAN | 1 << 51, FPSCR.VXSNAN),
        ("subtract", (_ONE, _QNAN), _QNAN, 0),
        # fmadd takes FRA, FRC, FRB; the order of NaNs is FRA, FRB, FRC.
        ("multiply_add", (_ONE, _OTHER, _QNAN), _QNAN, 0),
        ("multiply_add", (_INF, _NONE, _QNAN), _QNAN, FPSCR.VXIMZ),
        ("multiply_add", (_INF, _NONE, _SNAN), _SNAN | 1 << 51, FPSCR.VXIMZ | FPSCR.VXSNAN),
        ("multiply_add", (_INF, _ONE, _INF | _MINUS), _DEFAULT, FPSCR.VXISI),
        ("multiply_subtract", (_INF, _ONE, _INF), _DEFAULT, FPSCR.VXISI),
        ("multiply_subtract", (_ONE, _ONE, _QNAN), _QNAN, 0),
        ("compare", (_ONE, _SNAN), 1, FPSCR.VXSNAN),
        ("compare", (_NONE, _MINUS), 2, 0),
    ],
)
def test_invalid_operations_and_nans(name: str, operands: tuple[int, ...], bits: int, raised: int) -> None:
    rounding = () if name == "compare" else (Rounding.NEAREST_EVEN,)
    assert outcome(f"{name} binary64", *operands, *rounding) == (bits, raised)


def test_a_nan_loses_what_single_precision_does_not_have() -> None:
    nan, cut = 0x7FF7_FFFF_FFFF_FFFF, 0x7FFF_FFFF_E000_0000
    for name, count in (("add", 2), ("divide", 2), ("multiply_add", 3), ("square_root", 1), ("round", 1)):
        for place in range(count):
            operands = [_ONE] * count
            operands[place] = nan
            found = outcome(f"{name} binary64 as binary32", *operands, Rounding.NEAREST_EVEN)
            assert found == (cut, FPSCR.VXSNAN)


def test_exact_zeros_have_the_sign_of_the_rounding_mode() -> None:
    for rounding in Rounding:
        expected = _MINUS if rounding is Rounding.DOWN else 0
        assert outcome("add binary64", _ONE, _ONE | _MINUS, rounding) == (expected, 0)
        assert outcome("add binary64", _MINUS, _MINUS, rounding) == (_MINUS, 0)
        assert outcome("add binary64", 0, _MINUS, rounding) == (expected, 0)


def test_enabled_overflows_and_underflows_agree_with_rationals() -> None:
    """The result is as if exponents had no bounds, times a power of two, in the operands' format."""
    random = Random(7)
    enabled = MODE + 1 | OVERFLOW_ENABLED
    large = small = 0
    for name, narrow, by in (
        ("multiply binary64", BINARY64, 1536),
        ("multiply binary64 as binary32", BINARY32, 192),
    ):
        for _ in range(3_000):
            # Squares of numbers near the roots of the largest and the smallest ones.
            exponent = random.choice((-1, 1)) * (narrow.bias // 2 + random.randrange(-2, 4))
            a, b = (
                (exponent + BINARY64.bias << 52)
                + (random.getrandbits(narrow.fraction_bits) << 52 - narrow.fraction_bits)
                for _ in range(2)
            )
            product = exact(BINARY64, a) * exact(BINARY64, b)
            bits, raised = outcome(name, a, b, enabled)
            found = exact(BINARY64, bits)
            unit = Fraction(2) ** by
            if raised & FPSCR.OX:
                large, found = large + 1, found * unit
                assert found >= Fraction(2) ** (narrow.bias + 1)
            elif raised & FPSCR.UX:
                small, found = small + 1, found / unit
                assert product < Fraction(2) ** narrow.smallest_exponent
            else:
                assert Fraction(2) ** narrow.smallest_exponent <= product < Fraction(2) ** (narrow.bias + 1)
            assert abs(found / product - 1) <= Fraction(1, 2**narrow.precision)
            assert (found != product) == bool(raised & FPSCR.FI)
    assert large > 500
    assert small > 500


def test_an_enabled_underflow_need_not_be_inexact() -> None:
    smallest = 1 << 52
    for rounding, raised in ((0, 0), (UNDERFLOW_ENABLED, int(FPSCR.UX)), (OVERFLOW_ENABLED, 0)):
        assert outcome("subtract binary64", smallest, 1, rounding)[1] == raised
