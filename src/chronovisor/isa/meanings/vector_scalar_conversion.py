"""Vector-scalar conversion (Power ISA 3.0B Book I 7.6.1.5, 7.6.3).

A result that is narrower than its source's element stands in both halves of the element: the book leaves one
of them undefined.
"""

from __future__ import annotations

from typing import Final

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY16, BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_arithmetic import compute
from chronovisor.isa.meanings.floating_point_exceptions import finish, result_class
from chronovisor.isa.meanings.floating_point_storage import double_from_single, single_from_double
from chronovisor.isa.meanings.vector_scalar_arithmetic import (
    Element,
    elements,
    first,
    scalar,
    set_first,
    vector,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value

# The first element


def _set_word(m: Machine, XT: Value, word: Value) -> None:
    set_first(m, XT, m.concat(word, word))


def _declare_to_integer(name: str, integer: str) -> None:
    @meaning(name)
    def to_integer(m: Machine, XT: Value, XB: Value) -> None:
        result, raised = m.ieee(f"binary64 to {integer}", first(m, XB), int(Rounding.TOWARD_ZERO))
        put = _set_word if result.width == 32 else set_first
        # FPRF is undefined: it stays.
        finish(m, raised, lambda: put(m, XT, result))


def _declare_from_integer(name: str, integer: str, precision: Format) -> None:
    @meaning(name)
    def from_integer(m: Machine, XT: Value, XB: Value) -> None:
        scalar(m, XT, BINARY64, precision, compute(m, f"{integer} to", precision, first(m, XB)))


for _letter, _integer in (("s", "signed"), ("u", "unsigned")):
    _declare_to_integer(f"xscvdp{_letter}xws", f"{_integer}32")
    _declare_to_integer(f"xscvdp{_letter}xds", f"{_integer}64")
    _declare_from_integer(f"xscv{_letter}xddp", f"{_integer}64", BINARY64)
    _declare_from_integer(f"xscv{_letter}xdsp", f"{_integer}64", BINARY32)


@meaning("xsrsp")
def xsrsp(m: Machine, XT: Value, XB: Value) -> None:
    scalar(m, XT, BINARY64, BINARY32, compute(m, "round", BINARY32, first(m, XB)))


@meaning("xscvdpsp")
def xscvdpsp(m: Machine, XT: Value, XB: Value) -> None:
    result, raised = m.ieee("convert binary64 to binary32", first(m, XB), m.rounding())
    flags = result_class(m, BINARY32, BINARY32, result)
    finish(m, raised, lambda: _set_word(m, XT, result), flags)


@meaning("xscvspdp")
def xscvspdp(m: Machine, XT: Value, XB: Value) -> None:
    outcome = m.ieee("convert binary32 to binary64", first(m, XB, 32), m["FPSCR"])
    scalar(m, XT, BINARY64, BINARY64, outcome)


@meaning("xscvdpspn")
def xscvdpspn(m: Machine, XT: Value, XB: Value) -> None:
    _set_word(m, XT, single_from_double(m, first(m, XB)))


@meaning("xscvspdpn")
def xscvspdpn(m: Machine, XT: Value, XB: Value) -> None:
    set_first(m, XT, double_from_single(m, first(m, XB, 32)))


@meaning("xscvhpdp")
def xscvhpdp(m: Machine, XT: Value, XB: Value) -> None:
    # A half lies at the right end of the first doubleword.
    outcome = m.ieee("convert binary16 to binary64", first(m, XB).trunc(16), m["FPSCR"])
    scalar(m, XT, BINARY64, BINARY64, outcome)


@meaning("xscvdphp")
def xscvdphp(m: Machine, XT: Value, XB: Value) -> None:
    result, raised = m.ieee("convert binary64 to binary16", first(m, XB), m["FPSCR"])
    flags = result_class(m, BINARY16, BINARY16, result)
    finish(m, raised, lambda: set_first(m, XT, result.zext(64)), flags)


# All elements


def _converted(source: str, target: str, rounding: Rounding | None, upper: int, widened: int) -> Element:
    """A conversion of the ``upper`` leftmost bits of an element, put into an element of ``widened`` bits.

    Without a mode of its own it rounds as FPSCR says.
    """

    def element(m: Machine, operand: Value) -> tuple[Value, Value]:
        mode: Operand = m["FPSCR"] if rounding is None else int(rounding)
        chosen = operand.extract(operand.width - upper, upper)
        result, raised = m.ieee(f"{source} to {target}", chosen, mode)
        return m.concat(*[result] * (widened // result.width)), raised

    return element


def _declare_of_elements(name: str, width: int, element: Element) -> None:
    @meaning(name)
    def convert(m: Machine, XT: Value, XB: Value) -> None:
        vector(m, XT, elements(m, width, element, m.vsr[XB]))


_FORMATS: Final = {"sp": BINARY32, "dp": BINARY64}
_SIZES: Final = {"w": 32, "d": 64}

for _suffix, _form in _FORMATS.items():
    for _size, _bits in _SIZES.items():
        _whole = max(_form.width, _bits)
        for _letter, _integer in (("s", f"signed{_bits}"), ("u", f"unsigned{_bits}")):
            _element = _converted(_form.name, _integer, Rounding.TOWARD_ZERO, _form.width, _whole)
            _declare_of_elements(f"xvcv{_suffix}{_letter}x{_size}s", _whole, _element)
            _element = _converted(_integer, _form.name, None, _bits, _whole)
            _declare_of_elements(f"xvcv{_letter}x{_size}{_suffix}", _whole, _element)

_declare_of_elements("xvcvdpsp", 64, _converted("convert binary64", "binary32", None, 64, 64))
_declare_of_elements("xvcvspdp", 64, _converted("convert binary32", "binary64", None, 32, 64))


def _half_to_single(m: Machine, word: Value) -> tuple[Value, Value]:
    return m.ieee("convert binary16 to binary32", word.trunc(16), m["FPSCR"])


def _single_to_half(m: Machine, word: Value) -> tuple[Value, Value]:
    result, raised = m.ieee("convert binary32 to binary16", word, m["FPSCR"])
    return result.zext(32), raised


_declare_of_elements("xvcvhpsp", 32, _half_to_single)
_declare_of_elements("xvcvsphp", 32, _single_to_half)
