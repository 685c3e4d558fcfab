"""Vector-scalar arithmetic on one element and on all of them (Power ISA 3.0B Book I 7.6.1, 7.6.3).

Scalar instructions (xs…) use the first doubleword of a register, also for single precision; vector
instructions (xv…) use all elements of their format, and leave FR, FI and FPRF alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import or_

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_arithmetic import (
    compute,
    negated_unless_nan,
    reciprocal,
    reciprocal_square_root,
)
from chronovisor.isa.meanings.floating_point_conversion import integral
from chronovisor.isa.meanings.floating_point_exceptions import (
    finish,
    finish_without_flags,
    result_class,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

Element = Callable[..., tuple[Value, Value]]
"""A function of the machine and an element of each source: the result, and what of FPSCR is raised."""

Finish = Callable[[Machine, Value, Value], None]
"""Ends a scalar instruction: the machine, the result, what is raised."""


def first(m: Machine, register: Value, width: int = 64) -> Value:
    """The first element of a vector-scalar register."""
    return m.vsr[register].extract(128 - width, width)


def set_first(m: Machine, XT: Value, result: Value) -> None:
    """A register's first element; the others, which the book leaves undefined, become zeros."""
    m.vsr[XT] = m.concat(result, m.value(0, 128 - result.width))


def scalar(m: Machine, XT: Value, form: Format, precision: Format, outcome: tuple[Value, Value]) -> None:
    """End a scalar instruction whose result is a number, with its class in FPRF."""
    result, raised = outcome
    finish(m, raised, lambda: set_first(m, XT, result), result_class(m, form, precision, result))


def scalar_without_flags(m: Machine, XT: Value, outcome: tuple[Value, Value]) -> None:
    """End a scalar instruction that leaves FR, FI and FPRF alone."""
    result, raised = outcome
    finish_without_flags(m, raised, lambda: set_first(m, XT, result))


def elements(m: Machine, width: int, element: Element, *sources: Value) -> tuple[Value, Value]:
    """The results of all elements side by side, and what any of them raises."""
    outcomes = [
        element(m, *(source.extract(low, width) for source in sources))
        for low in range(128 - width, -1, -width)
    ]
    return m.concat(*(result for result, _ in outcomes)), reduce(or_, (raised for _, raised in outcomes))


def vector(m: Machine, XT: Value, outcome: tuple[Value, Value]) -> None:
    """End a vector instruction. An enabled exception of any element leaves the whole target alone."""
    result, raised = outcome
    enabled = (raised >> 25) & (m["FPSCR"] >> 3) & 0xF

    def write() -> None:
        with m.when(enabled.eq(0)):
            m.vsr[XT] = result

    finish_without_flags(m, raised, write)


def _formats() -> Iterator[tuple[str, str, Format, Format]]:
    """Every prefix and suffix of mnemonics, with the format of elements and the precision of results."""
    for suffix, precision in (("dp", BINARY64), ("sp", BINARY32)):
        yield "xs", suffix, BINARY64, precision
        yield "xv", suffix, precision, precision


def _apply(
    m: Machine, prefix: str, form: Format, precision: Format, XT: Value, element: Element, *sources: Value
) -> None:
    """An instruction by its prefix: of the first element of its sources, or of all of them."""
    if prefix == "xs":
        outcome = element(m, *(source.extract(128 - form.width, form.width) for source in sources))
        scalar(m, XT, form, precision, outcome)
    else:
        vector(m, XT, elements(m, form.width, element, *sources))


def _declare_binary(prefix: str, name: str, form: Format, precision: Format, element: Element) -> None:
    @meaning(name)
    def binary(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        _apply(m, prefix, form, precision, XT, element, m.vsr[XA], m.vsr[XB])


def _declare_unary(prefix: str, name: str, form: Format, precision: Format, element: Element) -> None:
    @meaning(name)
    def unary(m: Machine, XT: Value, XB: Value) -> None:
        _apply(m, prefix, form, precision, XT, element, m.vsr[XB])


def _declare_multiply_add(
    prefix: str, name: str, form: Format, precision: Format, element: Element, target_adds: bool
) -> None:
    @meaning(name)
    def multiply_add(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        a, b, t = m.vsr[XA], m.vsr[XB], m.vsr[XT]
        factor, addend = (b, t) if target_adds else (t, b)
        _apply(m, prefix, form, precision, XT, element, a, factor, addend)


def _computed(operation: str, form: Format, precision: Format) -> Element:
    return lambda m, *operands: compute(m, operation, precision, *operands, form=form)


def _negated(form: Format, element: Element) -> Element:
    def negated(m: Machine, *operands: Value) -> tuple[Value, Value]:
        result, raised = element(m, *operands)
        return negated_unless_nan(m, form, result), raised

    return negated


def _estimated(estimate: Element, form: Format, precision: Format) -> Element:
    return lambda m, operand: estimate(m, precision, operand, form)


_BINARY = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}

for _prefix, _suffix, _form, _precision in _formats():
    _declared = partial(_computed, form=_form, precision=_precision)
    for _name, _operation in _BINARY.items():
        _declare_binary(_prefix, f"{_prefix}{_name}{_suffix}", _form, _precision, _declared(_operation))
    _declare_unary(_prefix, f"{_prefix}sqrt{_suffix}", _form, _precision, _declared("square_root"))
    for _name, _estimate in (("re", reciprocal), ("rsqrte", reciprocal_square_root)):
        _element = _estimated(_estimate, _form, _precision)
        _declare_unary(_prefix, f"{_prefix}{_name}{_suffix}", _form, _precision, _element)
    for _name, _operation in (("add", "multiply_add"), ("sub", "multiply_subtract")):
        for _letter, _adds in (("a", True), ("m", False)):
            _tail = f"m{_name}{_letter}{_suffix}"
            _element = _declared(_operation)
            _declare_multiply_add(_prefix, f"{_prefix}{_tail}", _form, _precision, _element, _adds)
            _element = _negated(_form, _element)
            _declare_multiply_add(_prefix, f"{_prefix}n{_tail}", _form, _precision, _element, _adds)

# Rounding to integers

#: The last letter of a rounding instruction, and its mode.
_ROUNDINGS = {
    "": Rounding.NEAREST_AWAY,
    "z": Rounding.TOWARD_ZERO,
    "p": Rounding.UP,
    "m": Rounding.DOWN,
}


def _integral(form: Format, rounding: Rounding) -> Element:
    return lambda m, operand: integral(m, form, operand, rounding)


def _integral_by_status(form: Format) -> Element:
    return lambda m, operand: m.ieee(f"integral {form.name}", operand, m["FPSCR"])


for _prefix, _suffix, _form in (("xs", "dp", BINARY64), ("xv", "dp", BINARY64), ("xv", "sp", BINARY32)):
    for _letter, _rounding in _ROUNDINGS.items():
        _name = f"{_prefix}r{_suffix}i{_letter}"
        _declare_unary(_prefix, _name, _form, _form, _integral(_form, _rounding))
    _declare_unary(_prefix, f"{_prefix}r{_suffix}ic", _form, _form, _integral_by_status(_form))
