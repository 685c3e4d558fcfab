"""Floating-point arithmetic and multiply-add (Power ISA 3.0B Book I 4.6.6).

The single-precision instructions work on the same registers in the double format; their results are rounded
to single precision at once.
"""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_exceptions import finish, result_class
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value


def compute(
    m: Machine, operation: str, precision: Format, *operands: Operand, form: Format = BINARY64
) -> tuple[Value, Value]:
    """Do arithmetic in a format, rounded to a precision as FPSCR has it: the result, and what is raised."""
    formats = form.name if precision is form else f"{form.name} as {precision.name}"
    return m.ieee(f"{operation} {formats}", *operands, m.rounding())


def negated_unless_nan(m: Machine, form: Format, result: Value) -> Value:
    """The result with its sign changed; a NaN keeps its sign."""
    nan = result.trunc(form.width - 1).ugt(form.infinity)
    return m.select(nan, result, result ^ form.sign)


def finish_double(m: Machine, FRT: Value, precision: Format, result: Value, raised: Value, Rc: int) -> None:
    """Put a double into FRT, with its class in FPRF."""

    def write() -> None:
        m.fpr[FRT] = result

    finish(m, raised, write, result_class(m, BINARY64, precision, result), Rc)


def _declare_binary(mnemonic: str, operation: str, precision: Format) -> None:
    @meaning(mnemonic)
    def binary(m: Machine, FRT: Value, FRA: Value, FRB: Value, Rc: int) -> None:
        result, raised = compute(m, operation, precision, m.fpr[FRA], m.fpr[FRB])
        finish_double(m, FRT, precision, result, raised, Rc)


def _declare_multiply(mnemonic: str, precision: Format) -> None:
    @meaning(mnemonic)
    def multiply(m: Machine, FRT: Value, FRA: Value, FRC: Value, Rc: int) -> None:
        result, raised = compute(m, "multiply", precision, m.fpr[FRA], m.fpr[FRC])
        finish_double(m, FRT, precision, result, raised, Rc)


def _declare_square_root(mnemonic: str, precision: Format) -> None:
    @meaning(mnemonic)
    def square_root(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        result, raised = compute(m, "square_root", precision, m.fpr[FRB])
        finish_double(m, FRT, precision, result, raised, Rc)


def _declare_multiply_add(mnemonic: str, operation: str, precision: Format, negate: bool) -> None:
    @meaning(mnemonic)
    def multiply_add(m: Machine, FRT: Value, FRA: Value, FRC: Value, FRB: Value, Rc: int) -> None:
        result, raised = compute(m, operation, precision, m.fpr[FRA], m.fpr[FRC], m.fpr[FRB])
        if negate:
            result = negated_unless_nan(m, BINARY64, result)
        finish_double(m, FRT, precision, result, raised, Rc)


def reciprocal(m: Machine, precision: Format, operand: Value, form: Format = BINARY64) -> tuple[Value, Value]:
    """An estimate of 1 / x: here the quotient itself. The book lets estimates be as good as one likes."""
    return compute(m, "divide", precision, form.bias << form.fraction_bits, operand, form=form)


def reciprocal_square_root(
    m: Machine, precision: Format, operand: Value, form: Format = BINARY64
) -> tuple[Value, Value]:
    """An estimate of 1 / sqrt(x): here the quotient by the root, each rounded."""
    root, raised = compute(m, "square_root", form, operand, form=form)
    result, more = reciprocal(m, precision, root, form)
    return result, raised | more


def _declare_estimate(mnemonic: str, precision: Format, root: bool) -> None:
    estimate = reciprocal_square_root if root else reciprocal

    @meaning(mnemonic)
    def estimated(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        result, raised = estimate(m, precision, m.fpr[FRB])
        finish_double(m, FRT, precision, result, raised, Rc)


for _suffix, _precision in (("", BINARY64), ("s", BINARY32)):
    _declare_binary(f"fadd{_suffix}", "add", _precision)
    _declare_binary(f"fsub{_suffix}", "subtract", _precision)
    _declare_binary(f"fdiv{_suffix}", "divide", _precision)
    _declare_multiply(f"fmul{_suffix}", _precision)
    _declare_square_root(f"fsqrt{_suffix}", _precision)
    for _sign, _negate in (("f", False), ("fn", True)):
        _declare_multiply_add(f"{_sign}madd{_suffix}", "multiply_add", _precision, _negate)
        _declare_multiply_add(f"{_sign}msub{_suffix}", "multiply_subtract", _precision, _negate)
    _declare_estimate(f"fre{_suffix}", _precision, root=False)
    _declare_estimate(f"frsqrte{_suffix}", _precision, root=True)
