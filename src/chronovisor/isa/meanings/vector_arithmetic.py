"""Vector integer arithmetic (Power ISA 3.0B Book I 6.9.1)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.meanings.elementwise import (
    WIDTHS,
    elementwise,
    limits,
    register_wise,
    saturated,
    saturating,
    widened,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

# Sums and differences

for _letter, _width in WIDTHS.items():
    elementwise(f"vaddu{_letter}m", _width, lambda m, a, b: a + b)
    elementwise(f"vsubu{_letter}m", _width, lambda m, a, b: a - b)

elementwise("vaddcuw", 32, lambda m, a, b: (a + b).ult(a).zext(32))
elementwise("vsubcuw", 32, lambda m, a, b: (~a.ult(b)).zext(32))


def _quadword_sum(a: Value, b: Value, carry: Value) -> Value:
    """The sum in 129 bits: the carry is the first of them."""
    return a.zext(129) + b.zext(129) + carry.zext(129)


def _carry(total: Value) -> Value:
    return total.extract(128, 1).zext(128)


def _one(m: Machine) -> Value:
    return m.value(1, 1)


register_wise("vaddcuq", lambda m, a, b: _carry(_quadword_sum(a, b, m.value(0, 1))))
register_wise("vsubcuq", lambda m, a, b: _carry(_quadword_sum(a, ~b, _one(m))))
register_wise("vaddeuqm", lambda m, a, b, c: _quadword_sum(a, b, c.trunc(1)).trunc(128))
register_wise("vaddecuq", lambda m, a, b, c: _carry(_quadword_sum(a, b, c.trunc(1))))
register_wise("vsubeuqm", lambda m, a, b, c: _quadword_sum(a, ~b, c.trunc(1)).trunc(128))
register_wise("vsubecuq", lambda m, a, b, c: _carry(_quadword_sum(a, ~b, c.trunc(1))))


def _declare_for(letter: str, width: int, sign: str) -> None:
    is_signed, twice = sign == "s", 2 * width

    def wide(value: Value) -> Value:
        return widened(value, twice, is_signed)

    def greater(a: Value, b: Value) -> Value:
        return a.sgt(b) if is_signed else a.ugt(b)

    elementwise(f"vmax{sign}{letter}", width, lambda m, a, b: m.select(greater(a, b), a, b))
    elementwise(f"vmin{sign}{letter}", width, lambda m, a, b: m.select(greater(a, b), b, a))
    if letter == "d":
        return
    low, high = limits(width, is_signed)
    saturating(f"vadd{sign}{letter}s", width, low, high, lambda m, a, b: wide(a) + wide(b))
    saturating(f"vsub{sign}{letter}s", width, low, high, lambda m, a, b: wide(a) - wide(b))
    elementwise(f"vavg{sign}{letter}", width, lambda m, a, b: (wide(a) + wide(b) + 1).extract(1, width))

    def product(part: int) -> Callable[[Machine, Value, Value], Value]:
        return lambda m, a, b: wide(a.extract(part, width)) * wide(b.extract(part, width))

    # The even elements are the left ones of pairs, the odd ones the right ones.
    elementwise(f"vmule{sign}{letter}", twice, product(width))
    elementwise(f"vmulo{sign}{letter}", twice, product(0))


for _letter in ("b", "h", "w", "d"):
    for _sign in ("u", "s"):
        _declare_for(_letter, WIDTHS[_letter], _sign)

for _letter in ("b", "h", "w"):
    elementwise(f"vabsdu{_letter}", WIDTHS[_letter], lambda m, a, b: m.select(a.ugt(b), a - b, b - a))

elementwise("vmuluwm", 32, lambda m, a, b: a * b)
elementwise("vnegw", 32, lambda m, b: -b)
elementwise("vnegd", 64, lambda m, b: -b)

# Products and sums


def _high_product(m: Machine, a: Value, b: Value, c: Value, rounding: int) -> Value:
    """The high part of a product of halfwords, plus a halfword, in 32 bits."""
    return (a.sext(32) * b.sext(32) + rounding).ashr(15) + c.sext(32)


saturating("vmhaddshs", 16, *limits(16, True), lambda m, a, b, c: _high_product(m, a, b, c, 0))
saturating("vmhraddshs", 16, *limits(16, True), lambda m, a, b, c: _high_product(m, a, b, c, 1 << 14))
elementwise("vmladduhm", 16, lambda m, a, b, c: a * b + c)


def _products(a: Value, b: Value, width: int, wide: int, signs: str) -> Value:
    """The sum of the products of all elements of two lanes, in ``wide`` bits; ``signs`` are a's and b's."""
    pairs = [(a.extract(low, width), b.extract(low, width)) for low in range(0, a.width, width)]
    terms = [widened(x, wide, signs[0] == "s") * widened(y, wide, signs[1] == "s") for x, y in pairs]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


elementwise("vmsumubm", 32, lambda m, a, b, c: _products(a, b, 8, 32, "uu") + c)
elementwise("vmsummbm", 32, lambda m, a, b, c: _products(a, b, 8, 32, "su") + c)
elementwise("vmsumuhm", 32, lambda m, a, b, c: _products(a, b, 16, 32, "uu") + c)
elementwise("vmsumshm", 32, lambda m, a, b, c: _products(a, b, 16, 32, "ss") + c)
saturating("vmsumuhs", 32, *limits(32, False), lambda m, a, b, c: _products(a, b, 16, 64, "uu") + c.zext(64))
saturating("vmsumshs", 32, *limits(32, True), lambda m, a, b, c: _products(a, b, 16, 64, "ss") + c.sext(64))
register_wise("vmsumudm", lambda m, a, b, c: _products(a, b, 64, 128, "uu") + c)


def _elements_sum(value: Value, width: int, is_signed: bool) -> Value:
    """The sum of all elements of a lane, in 64 bits."""
    total = widened(value.trunc(width), 64, is_signed)
    for low in range(width, value.width, width):
        total = total + widened(value.extract(low, width), 64, is_signed)
    return total


saturating("vsum4ubs", 32, *limits(32, False), lambda m, a, b: _elements_sum(a, 8, False) + b.zext(64))
saturating("vsum4sbs", 32, *limits(32, True), lambda m, a, b: _elements_sum(a, 8, True) + b.sext(64))
saturating("vsum4shs", 32, *limits(32, True), lambda m, a, b: _elements_sum(a, 16, True) + b.sext(64))


def _sum_across(m: Machine, a: Value, b: Value, width: int) -> Value:
    """In the last word of each lane, the sum of all words of ``a`` there and of the last word of ``b``."""

    def exact(m: Machine, x: Value, y: Value) -> Value:
        return _elements_sum(x, 32, True) + y.trunc(32).sext(64)

    words = saturated(m, width, *limits(32, True), exact, a, b)
    return m.each(32, lambda word: word.zext(width), words)


register_wise("vsum2sws", lambda m, a, b: _sum_across(m, a, b, 64))
register_wise("vsumsws", lambda m, a, b: _sum_across(m, a, b, 128))

# Extensions of the sign


def _declare_extension(from_letter: str, to_letter: str) -> None:
    narrow, wide = WIDTHS[from_letter], WIDTHS[to_letter]
    elementwise(f"vexts{from_letter}2{to_letter}", wide, lambda m, b: b.trunc(narrow).sext(wide))


for _names in ("bw", "hw", "bd", "hd", "wd"):
    _declare_extension(*_names)
