"""Vector-scalar comparison, maximum, minimum, tests and signs (Power ISA 3.0B Book I 7.6.1.8, 7.6.3)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_compare import (
    compare,
    divide_flags,
    related,
    square_root_flags,
    test_result,
)
from chronovisor.isa.meanings.vector_scalar_arithmetic import (
    Element,
    elements,
    first,
    scalar_without_flags,
    set_first,
    vector,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_FORMATS = {"dp": BINARY64, "sp": BINARY32}

# Comparison


@meaning("xscmpudp")
def xscmpudp(m: Machine, BF: Value, XA: Value, XB: Value) -> None:
    compare(m, BINARY64, BF, first(m, XA), first(m, XB), ordered=False)


@meaning("xscmpodp")
def xscmpodp(m: Machine, BF: Value, XA: Value, XB: Value) -> None:
    compare(m, BINARY64, BF, first(m, XA), first(m, XB), ordered=True)


def _compared(form: Format, relations: int, ordered: bool) -> Element:
    """Ones if one of the relations (LT GT EQ unordered) holds, else zeros."""

    def element(m: Machine, a: Value, b: Value) -> tuple[Value, Value]:
        relation, raised = related(m, form, a, b, ordered)
        return (relation & relations).ne(0).sext(form.width), raised

    return element


def _declare_scalar_compare(name: str, element: Element) -> None:
    @meaning(name)
    def scalar_compare(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        scalar_without_flags(m, XT, element(m, first(m, XA), first(m, XB)))


def _declare_vector_compare(name: str, form: Format, element: Element) -> None:
    @meaning(name)
    def vector_compare(m: Machine, XT: Value, XA: Value, XB: Value, Rc21: int) -> None:
        result, raised = elements(m, form.width, element, m.vsr[XA], m.vsr[XB])
        if Rc21:
            m.cr[6] = m.concat((~result).eq(0), m.value(0, 1), result.eq(0), m.value(0, 1))
        vector(m, XT, (result, raised))


for _name, _relations, _ordered in (("eq", 2, False), ("gt", 4, True), ("ge", 6, True)):
    _declare_scalar_compare(f"xscmp{_name}dp", _compared(BINARY64, _relations, _ordered))
    for _suffix, _form in _FORMATS.items():
        _element = _compared(_form, _relations, _ordered)
        _declare_vector_compare(f"xvcmp{_name}{_suffix}", _form, _element)

# Maximum and minimum


def larger_or_smaller(m: Machine, form: Format, a: Value, b: Value, maximum: bool) -> tuple[Value, Value]:
    """The larger or the smaller of two numbers, +0 above -0; and what comparing them raises."""
    relation, raised = m.ieee(f"compare {form.name}", a, b)
    is_a = relation.extract(2 if maximum else 3, 1)
    same = a & b if maximum else a | b
    return m.select(relation.extract(1, 1), same, m.select(is_a, a, b)), raised


def is_nan(form: Format, a: Value) -> Value:
    return a.trunc(form.width - 1).ugt(form.infinity)


def _extreme(form: Format, maximum: bool) -> Element:
    """As IEEE 754-2008 has it: a quiet NaN gives way to a number, a signalling NaN does not."""

    def element(m: Machine, a: Value, b: Value) -> tuple[Value, Value]:
        number, raised = larger_or_smaller(m, form, a, b, maximum)
        a_nan, b_nan = is_nan(form, a), is_nan(form, b)
        a_signals, b_signals = (nan & (x & form.quiet).eq(0) for nan, x in ((a_nan, a), (b_nan, b)))
        without_b = m.select(b_signals, b | form.quiet, a)
        result = m.select(b_nan, without_b, number)
        result = m.select(a_nan, m.select(b_nan, a | form.quiet, b), result)
        return m.select(a_signals, a | form.quiet, result), raised

    return element


def _extreme_of_c(form: Format, maximum: bool) -> Element:
    """As C's `a > b ? a : b` has it: the second if they are equal or one of them is a NaN."""

    def element(m: Machine, a: Value, b: Value) -> tuple[Value, Value]:
        relation, raised = m.ieee(f"compare {form.name}", a, b)
        return m.select(relation.extract(2 if maximum else 3, 1), a, b), raised

    return element


def _extreme_of_java(form: Format, maximum: bool) -> Element:
    """As Java's Math.max has it: a NaN if one of them is a NaN."""

    def element(m: Machine, a: Value, b: Value) -> tuple[Value, Value]:
        number, raised = larger_or_smaller(m, form, a, b, maximum)
        return m.select(is_nan(form, a), a, m.select(is_nan(form, b), b, number)), raised

    return element


def _declare_vector_extreme(name: str, form: Format, element: Element) -> None:
    @meaning(name)
    def extreme(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        vector(m, XT, elements(m, form.width, element, m.vsr[XA], m.vsr[XB]))


for _name, _maximum in (("max", True), ("min", False)):
    _declare_scalar_compare(f"xs{_name}dp", _extreme(BINARY64, _maximum))
    _declare_scalar_compare(f"xs{_name}cdp", _extreme_of_c(BINARY64, _maximum))
    _declare_scalar_compare(f"xs{_name}jdp", _extreme_of_java(BINARY64, _maximum))
    for _suffix, _form in _FORMATS.items():
        _declare_vector_extreme(f"xv{_name}{_suffix}", _form, _extreme(_form, _maximum))

# Tests for division and square root by software


@meaning("xstdivdp")
def xstdivdp(m: Machine, BF: Value, XA: Value, XB: Value) -> None:
    m.cr[BF] = test_result(m, divide_flags(BINARY64, first(m, XA), first(m, XB)))


@meaning("xstsqrtdp")
def xstsqrtdp(m: Machine, BF: Value, XB: Value) -> None:
    m.cr[BF] = test_result(m, square_root_flags(BINARY64, first(m, XB)))


# Signs


def _declare_sign(name: str, width: int, change: Callable[[Value, int], Value]) -> None:
    scalar = name.startswith("xs")
    sign = 1 << (width - 1)

    @meaning(name)
    def signed(m: Machine, XT: Value, XB: Value) -> None:
        if scalar:
            set_first(m, XT, change(first(m, XB), sign))
        else:
            m.vsr[XT] = m.each(width, lambda element: change(element, sign), m.vsr[XB])


def _declare_copy_sign(name: str, width: int) -> None:
    scalar = name.startswith("xs")
    sign = 1 << (width - 1)

    def copied(a: Value, b: Value) -> Value:
        return (a & sign) | (b & ~sign)

    @meaning(name)
    def copy_sign(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        if scalar:
            set_first(m, XT, copied(first(m, XA), first(m, XB)))
        else:
            m.vsr[XT] = m.each(width, copied, m.vsr[XA], m.vsr[XB])


for _prefix, _suffix, _width in (("xs", "dp", 64), ("xv", "dp", 64), ("xv", "sp", 32)):
    _declare_sign(f"{_prefix}abs{_suffix}", _width, lambda b, sign: b & ~sign)
    _declare_sign(f"{_prefix}nabs{_suffix}", _width, lambda b, sign: b | sign)
    _declare_sign(f"{_prefix}neg{_suffix}", _width, lambda b, sign: b ^ sign)
    _declare_copy_sign(f"{_prefix}cpsgn{_suffix}", _width)
