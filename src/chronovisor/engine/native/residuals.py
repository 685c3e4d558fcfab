"""Exact arithmetic by the host's doubles: a result rounded to nearest, and what that lost.

What a sum, a product, a quotient or a root loses when it is rounded to nearest is a double itself, or has the
sign of one, which a few more operations find (Ogita, Rump and Oishi, "Accurate Sum and Dot Product", 2005;
Boldo and Muller, "Exact and Approximated Error of the FMA", 2011). That holds unless something overflows or
is lost below the smallest denormal number. So each function here first makes sure that the numbers are in a
range in which it holds, and leaves the instruction undone if not. Infinities and NaNs are outside of every
such range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, Emitter
from chronovisor.engine.native.target_processor import target_has
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format

DOUBLE, SINGLE = ir.DoubleType(), ir.FloatType()

#: The exponents between which what a product loses is a double, and nothing overflows.
SMALLEST, LARGEST = -960, 1022


@cache
def has_host_arithmetic() -> bool:
    """Whether this machine multiplies and adds with one rounding, and rounds to integers."""
    return target_has("fma") and target_has("sse4.1")


@dataclass(frozen=True)
class Nearest:
    """A number as a double rounded to nearest, and a double with the sign of what that lost.

    ``rest`` is above 0 if the exact number is greater than ``number``, and 0 if they are equal; None: always
    equal.
    """

    number: ir.Value
    rest: ir.Value | None = None


def real(number: float) -> ir.Constant:
    """A double that is known."""
    return ir.Constant(DOUBLE, number)


def call(e: Emitter, name: str, *operands: ir.Value) -> ir.Value:
    """A function of LLVM's own, which is one of the host's instructions."""
    kind = ir.FunctionType(operands[0].type, [operand.type for operand in operands])
    function = e.function.module.declare_intrinsic(f"llvm.{name}", [operands[0].type], kind)
    return e.b.call(function, operands)


def bits_of(e: Emitter, number: ir.Value) -> ir.Value:
    """The pattern of a double or a single."""
    return e.b.bitcast(number, I64 if number.type == DOUBLE else ir.IntType(32))


def require(e: Emitter, usual: ir.Value, otherwise: Callable[[], ir.Value] | None = None) -> None:
    """Leave the instruction undone unless ``usual`` holds or, more rarely, ``otherwise``."""
    rare = e.unlikely(e.b.not_(usual), "unusual")
    on = e.b.block
    with e.elsewhere(rare):
        if otherwise is not None:
            leave = e.block_named("leave")
            e.b.cbranch(otherwise(), on, leave)
            e.b.position_at_end(leave)
        e.slow()


def within(e: Emitter, number: ir.Value, low: int | None, high: int) -> ir.Value:
    """1 bit: the magnitude is at least ``2**low``, or 0 or more if that is None, and below ``2**high``."""
    form: Format = BINARY64 if number.type == DOUBLE else BINARY32
    bits = bits_of(e, number)
    magnitude = e.b.and_(bits, ir.Constant(bits.type, form.sign - 1))
    first = 0 if low is None else (low + form.bias) << form.fraction_bits
    size = ((high + form.bias) << form.fraction_bits) - first
    above = e.b.sub(magnitude, ir.Constant(bits.type, first)) if first else magnitude
    return e.b.icmp_unsigned("<", above, ir.Constant(bits.type, size))


def is_zero(e: Emitter, number: ir.Value) -> ir.Value:
    """1 bit: a zero of either sign."""
    return e.b.fcmp_ordered("==", number, ir.Constant(number.type, 0.0))


def _two_sum(e: Emitter, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """A sum and what it lost."""
    f = e.b
    total = f.fadd(a, b)
    second = f.fsub(total, a)
    first = f.fsub(total, second)
    return total, f.fadd(f.fsub(a, first), f.fsub(b, second))


def add(e: Emitter, a: ir.Value, b: ir.Value) -> Nearest:
    """a + b. A sum that is tiny is exact."""
    total, rest = _two_sum(e, a, b)
    require(e, within(e, total, None, LARGEST))
    return Nearest(total, rest)


def subtract(e: Emitter, a: ir.Value, b: ir.Value) -> Nearest:
    """a - b."""
    return add(e, a, e.b.fneg(b))


def _product(e: Emitter, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """A product and what it lost."""
    product = e.b.fmul(a, b)
    require(
        e,
        within(e, product, SMALLEST, LARGEST),
        lambda: e.b.and_(is_zero(e, product), e.b.or_(is_zero(e, a), is_zero(e, b))),
    )
    return product, call(e, "fma", a, b, e.b.fneg(product))


def multiply(e: Emitter, a: ir.Value, b: ir.Value) -> Nearest:
    """a * b."""
    return Nearest(*_product(e, a, b))


def multiply_add(e: Emitter, a: ir.Value, c: ir.Value, b: ir.Value) -> Nearest:
    """a * c + b. A sum that is tiny is exact, as the product is none of the smallest."""
    result = call(e, "fma", a, c, b)
    require(e, within(e, result, None, LARGEST))
    high, low = _product(e, a, c)
    lower, lost = _two_sum(e, b, low)
    upper, lost_above = _two_sum(e, high, lower)
    rest = e.b.fadd(e.b.fsub(upper, result), lost_above)
    return Nearest(result, e.b.fadd(rest, lost))


def multiply_subtract(e: Emitter, a: ir.Value, c: ir.Value, b: ir.Value) -> Nearest:
    """a * c - b."""
    return multiply_add(e, a, c, e.b.fneg(b))


def divide(e: Emitter, a: ir.Value, b: ir.Value) -> Nearest:
    """a / b."""
    quotient = e.b.fdiv(a, b)
    normal = within(e, quotient, BINARY64.smallest_exponent + 1, LARGEST)
    usual = e.b.and_(within(e, a, SMALLEST, LARGEST), normal)
    # A zero has no remainder; what is lost of zero divided by infinity would be a NaN.
    require(
        e, usual, lambda: e.b.and_(e.b.and_(is_zero(e, a), is_zero(e, quotient)), within(e, b, None, LARGEST))
    )
    remainder = call(e, "fma", e.b.fneg(quotient), b, a)
    # The remainder has the sign of what the quotient lost, unless the divisor is negative.
    sign = e.b.and_(bits_of(e, b), ir.Constant(I64, BINARY64.sign))
    return Nearest(quotient, e.b.bitcast(e.b.xor(bits_of(e, remainder), sign), DOUBLE))


def square_root(e: Emitter, a: ir.Value) -> Nearest:
    """The square root of a."""
    root = call(e, "sqrt", a)
    positive = e.b.fcmp_ordered(">", a, real(0.0))
    require(e, e.b.and_(positive, within(e, a, SMALLEST, LARGEST)), lambda: is_zero(e, a))
    return Nearest(root, call(e, "fma", e.b.fneg(root), root, a))


def to_odd(e: Emitter, near: Nearest) -> ir.Value:
    """The same number rounded to odd instead, as a double (:class:`~chronovisor.isa.ieee.Rounding`)."""
    if near.rest is None:
        return near.number
    f, bits = e.b, bits_of(e, near.number)
    inexact = f.fcmp_unordered("!=", near.rest, real(0.0))
    even = f.icmp_unsigned("==", f.and_(bits, ir.Constant(I64, 1)), ir.Constant(I64, 0))
    inward = f.icmp_signed("<", f.xor(bits, bits_of(e, near.rest)), ir.Constant(I64, 0))
    neighbour = f.add(bits, f.select(inward, ir.Constant(I64, -1), ir.Constant(I64, 1)))
    return f.bitcast(f.select(f.and_(inexact, even), neighbour, bits), DOUBLE)
