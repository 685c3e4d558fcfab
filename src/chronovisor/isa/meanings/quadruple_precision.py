"""Arithmetic, comparison and conversion of binary128 in vector registers (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import ROUNDING_WIDTH, Rounding
from chronovisor.isa.ieee.formats import BINARY64, BINARY128
from chronovisor.isa.ieee.rounding import MODE
from chronovisor.isa.meanings.floating_point_arithmetic import negated_unless_nan
from chronovisor.isa.meanings.floating_point_compare import compare
from chronovisor.isa.meanings.floating_point_exceptions import INVALID, finish, result_class
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value


def _set_quadruple(m: Machine, VRT: Value, outcome: tuple[Value, Value]) -> None:
    """End an instruction whose result is a quadruple, with its class in FPRF."""
    result, raised = outcome

    def write() -> None:
        m.vr[VRT] = result

    finish(m, raised, write, result_class(m, BINARY128, BINARY128, result))


def _set_doubleword(m: Machine, VRT: Value, result: Value, raised: Value, flags: Value | None) -> None:
    """End an instruction whose result is in the first doubleword; the second becomes zeros."""

    def write() -> None:
        m.vr[VRT] = result.zext(128) << 64

    finish(m, raised, write, flags)


def _rounding(m: Machine, to_odd: bool) -> Operand:
    by_status = m.rounding()
    return (by_status & ~MODE) | int(Rounding.TO_ODD) if to_odd else by_status


def _declare_binary(name: str, operation: str, to_odd: bool) -> None:
    @meaning(name)
    def binary(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
        mode = _rounding(m, to_odd)
        _set_quadruple(m, VRT, m.ieee(f"{operation} binary128", m.vr[VRA], m.vr[VRB], mode))


def _declare_multiply_add(name: str, operation: str, negate: bool, to_odd: bool) -> None:
    @meaning(name)
    def multiply_add(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
        operands = (m.vr[VRA], m.vr[VRB], m.vr[VRT])
        result, raised = m.ieee(f"{operation} binary128", *operands, _rounding(m, to_odd))
        if negate:
            result = negated_unless_nan(m, BINARY128, result)
        _set_quadruple(m, VRT, (result, raised))


def _declare_square_root(name: str, to_odd: bool) -> None:
    @meaning(name)
    def square_root(m: Machine, VRT: Value, VRB: Value) -> None:
        _set_quadruple(m, VRT, m.ieee("square_root binary128", m.vr[VRB], _rounding(m, to_odd)))


def _declare_to_double(name: str, to_odd: bool) -> None:
    @meaning(name)
    def to_double(m: Machine, VRT: Value, VRB: Value) -> None:
        result, raised = m.ieee("convert binary128 to binary64", m.vr[VRB], _rounding(m, to_odd))
        _set_doubleword(m, VRT, result, raised, result_class(m, BINARY64, BINARY64, result))


for _letter, _to_odd in (("", False), ("o", True)):
    for _name, _operation in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("div", "divide")):
        _declare_binary(f"xs{_name}qp{_letter}", _operation, _to_odd)
    for _sign, _negate in (("xs", False), ("xsn", True)):
        _declare_multiply_add(f"{_sign}maddqp{_letter}", "multiply_add", _negate, _to_odd)
        _declare_multiply_add(f"{_sign}msubqp{_letter}", "multiply_subtract", _negate, _to_odd)
    _declare_square_root(f"xssqrtqp{_letter}", _to_odd)
    _declare_to_double(f"xscvqpdp{_letter}", _to_odd)

# Rounding


def _chosen_rounding(m: Machine, R: int, RMC: Value) -> Value:
    """The mode that R and RMC name: an instruction's own, or FPSCR[RN] if R is 0 and RMC is 3."""
    own = (0b00, 0b01, 0b10, 0b11)
    if R:
        modes = (Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO, Rounding.UP, Rounding.DOWN)
        chosen = m.value(int(modes[0]), ROUNDING_WIDTH)
        for number, mode in zip(own[1:], modes[1:], strict=True):
            chosen = m.select(RMC.eq(number), int(mode), chosen)
        return chosen
    # Of the other numbers the book reserves 1 and 2.
    by_status = (m["FPSCR"] & 3).trunc(ROUNDING_WIDTH)
    return m.select(RMC.eq(0b11), by_status, int(Rounding.NEAREST_AWAY))


def _declare_to_integral(name: str, keeps_inexact: bool) -> None:
    @meaning(name)
    def to_integral(m: Machine, R: int, VRT: Value, VRB: Value, RMC: Value) -> None:
        result, raised = m.ieee("integral binary128", m.vr[VRB], _chosen_rounding(m, R, RMC))
        _set_quadruple(m, VRT, (result, raised if keeps_inexact else raised & INVALID))


_declare_to_integral("xsrqpi", keeps_inexact=False)
_declare_to_integral("xsrqpix", keeps_inexact=True)


@meaning("xsrqpxp")
def xsrqpxp(m: Machine, R: int, VRT: Value, VRB: Value, RMC: Value) -> None:
    mode = _chosen_rounding(m, R, RMC) | (m.rounding() & ~MODE)
    _set_quadruple(m, VRT, m.ieee("round binary128 as extended", m.vr[VRB], mode))


# Comparison and conversion


def _declare_compare(name: str, ordered: bool) -> None:
    @meaning(name)
    def compare_quadruples(m: Machine, BF: Value, VRA: Value, VRB: Value) -> None:
        compare(m, BINARY128, BF, m.vr[VRA], m.vr[VRB], ordered)


_declare_compare("xscmpuqp", ordered=False)
_declare_compare("xscmpoqp", ordered=True)


@meaning("xscvdpqp")
def xscvdpqp(m: Machine, VRT: Value, VRB: Value) -> None:
    _set_quadruple(m, VRT, m.ieee("convert binary64 to binary128", m.vr[VRB].extract(64, 64), m["FPSCR"]))


def _declare_from_integer(name: str, integer: str) -> None:
    @meaning(name)
    def from_integer(m: Machine, VRT: Value, VRB: Value) -> None:
        _set_quadruple(m, VRT, m.ieee(f"{integer} to binary128", m.vr[VRB].extract(64, 64), m["FPSCR"]))


def _declare_to_integer(name: str, integer: str) -> None:
    @meaning(name)
    def to_integer(m: Machine, VRT: Value, VRB: Value) -> None:
        result, raised = m.ieee(f"binary128 to {integer}", m.vr[VRB], int(Rounding.TOWARD_ZERO))
        wide = result.sext(64) if integer.startswith("signed") else result.zext(64)
        # FPRF is undefined: it stays.
        _set_doubleword(m, VRT, wide, raised, None)


for _letter, _integer in (("s", "signed"), ("u", "unsigned")):
    _declare_from_integer(f"xscv{_letter}dqp", f"{_integer}64")
    _declare_to_integer(f"xscvqp{_letter}wz", f"{_integer}32")
    _declare_to_integer(f"xscvqp{_letter}dz", f"{_integer}64")

# Signs

_SIGN = BINARY128.sign


def _declare_sign(name: str, change: Callable[[Value], Value]) -> None:
    @meaning(name)
    def signed(m: Machine, VRT: Value, VRB: Value) -> None:
        m.vr[VRT] = change(m.vr[VRB])


_declare_sign("xsabsqp", lambda b: b & ~_SIGN)
_declare_sign("xsnabsqp", lambda b: b | _SIGN)
_declare_sign("xsnegqp", lambda b: b ^ _SIGN)


@meaning("xscpsgnqp")
def xscpsgnqp(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
    m.vr[VRT] = (m.vr[VRA] & _SIGN) | (m.vr[VRB] & ~_SIGN)
