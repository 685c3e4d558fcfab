"""Vector floating-point instructions, on single-precision elements (Power ISA 3.0B Book I 6.6, 6.10).

They round to nearest, raise no exceptions and do not know FPSCR. With VSCR[NJ] on, a denormal operand or
result counts as a zero of its sign.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Final

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY32
from chronovisor.isa.meanings.floating_point_arithmetic import negated_unless_nan
from chronovisor.isa.meanings.vector_compare import set_cr6
from chronovisor.isa.meanings.vector_scalar_compare import is_nan, larger_or_smaller
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value

Element = Callable[..., Value]
"""A function of the machine and an element of each source."""

_NEAREST: Final = int(Rounding.NEAREST_EVEN)
_ONE: Final = BINARY32.bias << BINARY32.fraction_bits
_SMALLEST: Final = 1 << BINARY32.fraction_bits
_NJ: Final = 16
"""Where VSCR[NJ] is."""


def _flushed(m: Machine, number: Value) -> Value:
    """A number, or with VSCR[NJ] on the zero that stands for it if it is denormal."""
    flush = m["VSCR"].extract(_NJ, 1) & number.trunc(31).ult(_SMALLEST)
    return m.select(flush, number & BINARY32.sign, number)


def _elements(m: Machine, element: Element, *sources: Value) -> Value:
    """The function of all elements side by side."""
    return m.concat(
        *(element(m, *(source.extract(low, 32) for source in sources)) for low in range(96, -1, -32))
    )


def _computed(m: Machine, operation: str, *operands: Operand, rounding: int = _NEAREST) -> Value:
    """Arithmetic whose exceptions nobody sees."""
    result, _ = m.ieee(f"{operation} binary32", *operands, rounding)
    return result


def _arithmetic(operation: str, negate: bool = False) -> Element:
    def element(m: Machine, *operands: Value) -> Value:
        result = _computed(m, operation, *(_flushed(m, operand) for operand in operands))
        return _flushed(m, negated_unless_nan(m, BINARY32, result) if negate else result)

    return element


def _declare_unary(name: str, element: Element) -> None:
    @meaning(name)
    def unary(m: Machine, VRT: Value, VRB: Value) -> None:
        m.vr[VRT] = _elements(m, element, m.vr[VRB])


def _declare_binary(name: str, element: Element) -> None:
    @meaning(name)
    def binary(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
        m.vr[VRT] = _elements(m, element, m.vr[VRA], m.vr[VRB])


def _declare_multiply_add(name: str, element: Element) -> None:
    @meaning(name)
    def multiply_add(m: Machine, VRT: Value, VRA: Value, VRC: Value, VRB: Value) -> None:
        m.vr[VRT] = _elements(m, element, m.vr[VRA], m.vr[VRC], m.vr[VRB])


_declare_binary("vaddfp", _arithmetic("add"))
_declare_binary("vsubfp", _arithmetic("subtract"))
_declare_multiply_add("vmaddfp", _arithmetic("multiply_add"))
_declare_multiply_add("vnmsubfp", _arithmetic("multiply_subtract", negate=True))

# Estimates, which the book lets be as good as one likes: here numbers rounded to nearest


def _reciprocal(m: Machine, operand: Value) -> Value:
    return _flushed(m, _computed(m, "divide", _ONE, _flushed(m, operand)))


def _reciprocal_square_root(m: Machine, operand: Value) -> Value:
    return _computed(m, "divide", _ONE, _computed(m, "square_root", _flushed(m, operand)))


_declare_unary("vrefp", _reciprocal)
_declare_unary("vrsqrtefp", _reciprocal_square_root)
_declare_unary("vexptefp", _arithmetic("power_of_two"))
_declare_unary("vlogefp", _arithmetic("logarithm"))

# Maximum and minimum


def _extreme(maximum: bool) -> Element:
    """A NaN wins, made quiet."""

    def element(m: Machine, first: Value, second: Value) -> Value:
        a, b = _flushed(m, first), _flushed(m, second)
        number, _ = larger_or_smaller(m, BINARY32, a, b, maximum)
        without_a = m.select(is_nan(BINARY32, b), b | BINARY32.quiet, number)
        return m.select(is_nan(BINARY32, a), a | BINARY32.quiet, without_a)

    return element


_declare_binary("vmaxfp", _extreme(maximum=True))
_declare_binary("vminfp", _extreme(maximum=False))

# Comparison


def _relation(m: Machine, a: Value, b: Value) -> Value:
    """LT, GT, EQ or unordered."""
    relation, _ = m.ieee("compare binary32", _flushed(m, a), _flushed(m, b))
    return relation


def _declare_compare(name: str, relations: int) -> None:
    def element(m: Machine, a: Value, b: Value) -> Value:
        return (_relation(m, a, b) & relations).ne(0).sext(32)

    @meaning(name)
    def compare(m: Machine, VRT: Value, VRA: Value, VRB: Value, Rc21: int) -> None:
        result = _elements(m, element, m.vr[VRA], m.vr[VRB])
        m.vr[VRT] = result
        if Rc21:
            set_cr6(m, result)


_declare_compare("vcmpeqfp", 0b0010)
_declare_compare("vcmpgtfp", 0b0100)
_declare_compare("vcmpgefp", 0b0110)


def _outside(m: Machine, a: Value, bound: Value) -> Value:
    """Two bits at the left: a number is not at most a bound, and is not at least the bound's negative."""
    above = (_relation(m, a, bound) & 0b1010).eq(0)
    below = (_relation(m, a, bound ^ BINARY32.sign) & 0b0110).eq(0)
    return m.concat(above, below, m.value(0, 30))


@meaning("vcmpbfp")
def vcmpbfp(m: Machine, VRT: Value, VRA: Value, VRB: Value, Rc21: int) -> None:
    result = _elements(m, _outside, m.vr[VRA], m.vr[VRB])
    m.vr[VRT] = result
    if Rc21:
        m.cr[6] = m.concat(m.value(0, 2), result.eq(0), m.value(0, 1))


# Rounding and conversion


def _integral(rounding: Rounding) -> Element:
    return lambda m, b: _computed(m, "integral", _flushed(m, b), rounding=int(rounding))


_declare_unary("vrfin", _integral(Rounding.NEAREST_EVEN))
_declare_unary("vrfiz", _integral(Rounding.TOWARD_ZERO))
_declare_unary("vrfip", _integral(Rounding.UP))
_declare_unary("vrfim", _integral(Rounding.DOWN))


def _power_of_two(exponent: Value) -> Value:
    return ((exponent + BINARY32.bias) << BINARY32.fraction_bits).trunc(32)


def _declare_from_integer(name: str, integer: str) -> None:
    @meaning(name)
    def from_integer(m: Machine, VRT: Value, VRB: Value, UIM5: Value) -> None:
        scale = _power_of_two(-UIM5)

        def element(m: Machine, b: Value) -> Value:
            number, _ = m.ieee(f"{integer} to binary32", b, _NEAREST)
            return _computed(m, "multiply", number, scale)

        m.vr[VRT] = _elements(m, element, m.vr[VRB])


def _declare_to_integer(name: str, integer: str) -> None:
    @meaning(name)
    def to_integer(m: Machine, VRT: Value, VRB: Value, UIM5: Value) -> None:
        scale = _power_of_two(UIM5)
        saturated: list[Value] = []

        def element(m: Machine, b: Value) -> Value:
            number = _computed(m, "multiply", b, scale)
            result, raised = m.ieee(f"binary32 to {integer}", number, int(Rounding.TOWARD_ZERO))
            nan = is_nan(BINARY32, b)
            saturated.append((raised & int(FPSCR.VXCVI)).ne(0) & ~nan)
            return m.select(nan, 0, result)

        m.vr[VRT] = _elements(m, element, m.vr[VRB])
        m["VSCR"] = m["VSCR"] | reduce(or_, saturated).zext(32)  # SAT is its last bit


_declare_from_integer("vcfsx", "signed32")
_declare_from_integer("vcfux", "unsigned32")
_declare_to_integer("vctsxs", "signed32")
_declare_to_integer("vctuxs", "unsigned32")
