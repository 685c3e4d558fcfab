"""Decimal floating point (Power ISA 3.0B Book I chapter 5)."""

from __future__ import annotations

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import ROUNDING_WIDTH
from chronovisor.isa.ieee.decimal_formats import DECIMAL32, DECIMAL64, DECIMAL128, DecimalFormat
from chronovisor.isa.ieee.rounding import OVERFLOW_ENABLED, UNDERFLOW_ENABLED
from chronovisor.isa.meanings.floating_point_compare import FPCC, compare
from chronovisor.isa.meanings.floating_point_exceptions import INVALID, finish, place, record
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_NEAREST_EVEN, _TOWARD_ZERO, _UP, _DOWN, _HALF_AWAY, _HALF_TOWARD, _AWAY = range(7)
"""Rounding modes, by the numbers of FPSCR[DRN]."""
_FORMATS = (("", DECIMAL64), ("q", DECIMAL128))
"""The suffix of an instruction's name, and its format. A quadruple is in two registers."""


def _operand(m: Machine, form: DecimalFormat, register: Value) -> Value:
    if form is DECIMAL128:
        return m.concat(m.fpr[register], m.fpr[register | 1])
    return m.fpr[register]


def _put(m: Machine, form: DecimalFormat, register: Value, bits: Value) -> None:
    if form is DECIMAL128:
        m.fpr[register] = bits.extract(64, 64)
        m.fpr[register | 1] = bits.trunc(64)
    else:
        m.fpr[register] = bits.zext(64)


def _by_status(m: Machine) -> Value:
    """FPSCR[DRN]."""
    return m["FPSCR"].extract(32, 3).zext(ROUNDING_WIDTH)


def _rounding(m: Machine) -> Value:
    """How FPSCR has arithmetic round: DRN, and above it whether UX and OX are enabled."""
    enabled = (m["FPSCR"] >> 2) & (UNDERFLOW_ENABLED | OVERFLOW_ENABLED)
    return _by_status(m) | enabled.trunc(ROUNDING_WIDTH)


def _chosen_rounding(m: Machine, R: int, RMC: Value) -> Value:
    """The mode that R and RMC name (5.5.2): an instruction's own, or FPSCR's."""
    own = (_UP, _DOWN, _AWAY, _HALF_TOWARD) if R else (_NEAREST_EVEN, _TOWARD_ZERO, _HALF_AWAY)
    chosen = _by_status(m)
    for number, mode in enumerate(own):
        chosen = m.select(RMC.eq(number), mode, chosen)
    return chosen


def _finish(
    m: Machine, form: DecimalFormat, FRT: Value, outcome: tuple[Value, Value], Rc: int, of: DecimalFormat
) -> None:
    """End an instruction that computed a number of the format `of`, whose target has `form`."""
    result, raised = outcome
    flags, _ = m.ieee(f"class {of.name}", result)
    finish(m, raised, lambda: _put(m, form, FRT, result), flags.zext(64) << place(FPSCR.FU), Rc)


def _declare_arithmetic(form: DecimalFormat, mnemonic: str, operation: str) -> None:
    @meaning(mnemonic)
    def arithmetic(m: Machine, FRT: Value, FRA: Value, FRB: Value, Rc: int) -> None:
        a, b = _operand(m, form, FRA), _operand(m, form, FRB)
        _finish(m, form, FRT, m.ieee(f"{operation} {form.name}", a, b, _rounding(m)), Rc, form)


def _declare_compare(form: DecimalFormat, mnemonic: str, ordered: bool) -> None:
    @meaning(mnemonic)
    def compared(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
        compare(m, form, BF, _operand(m, form, FRA), _operand(m, form, FRB), ordered)


def _found(m: Machine, BF: Value, relation: Value) -> None:
    """CR field BF and FPCC become what a test has found."""
    m["FPSCR"] = (m["FPSCR"] & ~FPCC) | (relation.zext(64) << place(FPSCR.FU))
    m.cr[BF] = relation


def _declare_tests(suffix: str, form: DecimalFormat) -> None:
    @meaning(f"dtstex{suffix}")
    def exponents(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
        a, b = _operand(m, form, FRA), _operand(m, form, FRB)
        _found(m, BF, m.ieee(f"compare_exponents {form.name}", a, b)[0])

    def matched(m: Machine, BF: Value, FRA: Value, kind: str, mask: Value) -> None:
        a = _operand(m, form, FRA)
        found, _ = m.ieee(f"{kind} {form.name}", a)
        matches = (found & mask.trunc(6)).ne(0)
        none = m.value(0, 1)
        _found(m, BF, m.concat(a.extract(form.width - 1, 1), none, matches, none))

    @meaning(f"dtstdc{suffix}")
    def data_class(m: Machine, BF: Value, FRA: Value, DCM: Value) -> None:
        matched(m, BF, FRA, "data_class", DCM)

    @meaning(f"dtstdg{suffix}")
    def data_group(m: Machine, BF: Value, FRA: Value, DGM: Value) -> None:
        matched(m, BF, FRA, "data_group", DGM)

    def significance(m: Machine, BF: Value, count: Value, FRB: Value) -> None:
        b = _operand(m, form, FRB)
        _found(m, BF, m.ieee(f"compare_significance {form.name}", count.trunc(6), b)[0])

    @meaning(f"dtstsf{suffix}")
    def by_register(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
        significance(m, BF, m.fpr[FRA], FRB)

    @meaning(f"dtstsfi{suffix}")
    def by_immediate(m: Machine, BF: Value, UIM6: Value, FRB: Value) -> None:
        significance(m, BF, UIM6, FRB)


def _declare_adjustments(suffix: str, form: DecimalFormat) -> None:
    @meaning(f"dqua{suffix}")
    def quantize(m: Machine, FRT: Value, FRA: Value, FRB: Value, RMC: Value, Rc: int) -> None:
        a, b = _operand(m, form, FRA), _operand(m, form, FRB)
        mode = _chosen_rounding(m, 0, RMC)
        _finish(m, form, FRT, m.ieee(f"quantize {form.name}", a, b, mode), Rc, form)

    @meaning(f"dquai{suffix}")
    def quantize_to(m: Machine, TE: Value, FRT: Value, FRB: Value, RMC: Value, Rc: int) -> None:
        mode = _chosen_rounding(m, 0, RMC)
        _finish(m, form, FRT, m.ieee(f"quantize_to {form.name}", TE, _operand(m, form, FRB), mode), Rc, form)

    @meaning(f"drrnd{suffix}")
    def reround(m: Machine, FRT: Value, FRA: Value, FRB: Value, RMC: Value, Rc: int) -> None:
        count, b = m.fpr[FRA].trunc(6), _operand(m, form, FRB)
        mode = _chosen_rounding(m, 0, RMC)
        _finish(m, form, FRT, m.ieee(f"reround {form.name}", count, b, mode), Rc, form)

    def integral(m: Machine, R: int, FRT: Value, FRB: Value, RMC: Value, Rc: int, exact: bool) -> None:
        mode = _chosen_rounding(m, R, RMC)
        result, raised = m.ieee(f"integral {form.name}", _operand(m, form, FRB), mode)
        _finish(m, form, FRT, (result, raised if exact else raised & INVALID), Rc, form)

    @meaning(f"drintx{suffix}")
    def integral_inexact(m: Machine, R: int, FRT: Value, FRB: Value, RMC: Value, Rc: int) -> None:
        integral(m, R, FRT, FRB, RMC, Rc, exact=True)

    @meaning(f"drintn{suffix}")
    def integral_without(m: Machine, R: int, FRT: Value, FRB: Value, RMC: Value, Rc: int) -> None:
        integral(m, R, FRT, FRB, RMC, Rc, exact=False)


def _declare_conversion(mnemonic: str, form: DecimalFormat, to: DecimalFormat, target: DecimalFormat) -> None:
    @meaning(mnemonic)
    def convert(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        number = m.fpr[FRB].trunc(32) if form is DECIMAL32 else _operand(m, form, FRB)
        result, raised = m.ieee(f"convert {form.name} to {to.name}", number, _rounding(m))
        flags, _ = m.ieee(f"class {to.name}", result)
        placed = m.concat(result, m.value(0, 64)) if target is DECIMAL128 and to is DECIMAL64 else result

        def write() -> None:
            _put(m, target, FRT, placed)

        finish(m, raised, write, flags.zext(64) << place(FPSCR.FU), Rc)


def _declare_integers(suffix: str, form: DecimalFormat) -> None:
    @meaning(f"dctfix{suffix}")
    def to_integer(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        result, raised = m.ieee(f"{form.name} to signed64", _operand(m, form, FRB), _by_status(m))

        def write() -> None:
            m.fpr[FRT] = result

        finish(m, raised, write, None, Rc)

    @meaning(f"dcffix{suffix}")
    def from_integer(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        _finish(m, form, FRT, m.ieee(f"signed64 to {form.name}", m.fpr[FRB], _rounding(m)), Rc, form)


def _declare_formats(suffix: str, form: DecimalFormat) -> None:
    @meaning(f"dxex{suffix}")
    def exponent(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        m.fpr[FRT] = m.ieee(f"exponent {form.name}", _operand(m, form, FRB))[0]
        record(m, Rc)

    @meaning(f"diex{suffix}")
    def with_exponent(m: Machine, FRT: Value, FRA: Value, FRB: Value, Rc: int) -> None:
        b = _operand(m, form, FRB)
        _put(m, form, FRT, m.ieee(f"with_exponent {form.name}", m.fpr[FRA], b)[0])
        record(m, Rc)

    @meaning(f"ddedpd{suffix}")
    def to_packed(m: Machine, SP: Value, FRT: Value, FRB: Value, Rc: int) -> None:
        b = _operand(m, form, FRB)
        _put(m, form, FRT, m.ieee(f"to_packed {form.name}", SP.trunc(2), b)[0])
        record(m, Rc)

    @meaning(f"denbcd{suffix}")
    def from_packed(m: Machine, S: Value, FRT: Value, FRB: Value, Rc: int) -> None:
        b = _operand(m, form, FRB)
        _finish(m, form, FRT, m.ieee(f"from_packed {form.name}", S.trunc(1), b), Rc, form)

    def declare_shift(mnemonic: str, operation: str) -> None:
        @meaning(mnemonic)
        def shift(m: Machine, FRT: Value, FRA: Value, SH16: Value, Rc: int) -> None:
            a = _operand(m, form, FRA)
            _put(m, form, FRT, m.ieee(f"{operation} {form.name}", a, SH16.trunc(6))[0])
            record(m, Rc)

    declare_shift(f"dscli{suffix}", "shift_left")
    declare_shift(f"dscri{suffix}", "shift_right")


for _suffix, _form in _FORMATS:
    for _name, _operation in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("div", "divide")):
        _declare_arithmetic(_form, f"d{_name}{_suffix}", _operation)
    _declare_compare(_form, f"dcmpu{_suffix}", ordered=False)
    _declare_compare(_form, f"dcmpo{_suffix}", ordered=True)
    _declare_tests(_suffix, _form)
    _declare_adjustments(_suffix, _form)
    _declare_integers(_suffix, _form)
    _declare_formats(_suffix, _form)
_declare_conversion("dctdp", DECIMAL32, DECIMAL64, DECIMAL64)
_declare_conversion("drsp", DECIMAL64, DECIMAL32, DECIMAL64)
_declare_conversion("dctqpq", DECIMAL64, DECIMAL128, DECIMAL128)
_declare_conversion("drdpq", DECIMAL128, DECIMAL64, DECIMAL128)
