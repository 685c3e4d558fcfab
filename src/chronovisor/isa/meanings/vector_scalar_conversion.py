"""Vector-scalar conversion of the first element (Power ISA 3.0B Book I 7.6.1.5, 7.6.3)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_arithmetic import compute
from chronovisor.isa.meanings.floating_point_exceptions import finish, result_class
from chronovisor.isa.meanings.floating_point_storage import double_from_single, single_from_double
from chronovisor.isa.meanings.vector_scalar_arithmetic import first, scalar, set_first
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


def _set_word(m: Machine, XT: Value, word: Value) -> None:
    """A result of 32 bits, twice: the book leaves one half of the doubleword undefined."""
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
    result, raised = m.ieee("convert binary64 to binary32", first(m, XB), m["FPSCR"])
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
