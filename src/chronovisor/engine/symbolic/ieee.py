"""IEEE arithmetic in z3's floating-point sorts.

If all operands are known numbers, the result is that of ``chronovisor.isa.ieee``, exactly. Otherwise z3's own
arithmetic gives the bits of a result that is no NaN. What is left unknown, each time anew:

- the sign and the fraction of a NaN, which is a quiet one;
- all bits of FPSCR that the operation could raise;
- the whole result of a conversion, and of an operation that rounds to another precision than its operands';
- the whole result of an operation that rounds to nearest with ties away or to odd, or with overflow or
  underflow enabled.

A claim that holds for all of these holds for the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import z3

from chronovisor.isa.ieee import IEEE, RAISED_WIDTH, Rounding
from chronovisor.isa.ieee.formats import FORMATS, Format
from chronovisor.isa.values import Value

_SORTS: Final = {form.name: z3.FPSort(form.width - form.precision, form.precision) for form in FORMATS}
_FORMATS: Final = {form.name: form for form in FORMATS}

_ARITHMETIC: Final[dict[str, Callable[..., z3.FPRef]]] = {
    "add": z3.fpAdd,
    "subtract": z3.fpSub,
    "multiply": z3.fpMul,
    "divide": z3.fpDiv,
    "square_root": z3.fpSqrt,
    "multiply_add": z3.fpFMA,
    "multiply_subtract": lambda mode, a, c, b: z3.fpFMA(mode, a, c, z3.fpNeg(b)),
    "integral": z3.fpRoundToIntegral,
}


def _unknown(width: int, what: str) -> z3.BitVecRef:
    return z3.FreshConst(z3.BitVecSort(width), what)


def _mode(rounding: z3.BitVecRef) -> z3.FPRMRef:
    """The rounding mode of an operand of 0 to 3."""
    modes = {Rounding.TOWARD_ZERO: z3.RTZ(), Rounding.UP: z3.RTP(), Rounding.DOWN: z3.RTN()}
    term = z3.RNE()
    for number, mode in modes.items():
        term = z3.If(rounding == int(number), mode, term)
    return term


def _computed(operation: str, form: Format, operands: tuple[z3.BitVecRef, ...]) -> z3.BitVecRef:
    *numbers, rounding = operands
    result = _ARITHMETIC[operation](
        _mode(rounding), *(z3.fpBVToFP(number, _SORTS[form.name]) for number in numbers)
    )
    nan = form.default_nan | _unknown(form.width, "nan")
    return z3.If(
        # Other modes, and enabled exceptions.
        z3.UGE(rounding, int(Rounding.NEAREST_AWAY)),
        _unknown(form.width, "rounded"),
        z3.If(z3.fpIsNaN(result), nan, z3.fpToIEEEBV(result)),
    )


def _compared(form: Format, a: z3.BitVecRef, b: z3.BitVecRef) -> z3.BitVecRef:
    x, y = (z3.fpBVToFP(operand, _SORTS[form.name]) for operand in (a, b))
    term = z3.BitVecVal(1, 4)
    for number, holds in ((8, z3.fpLT(x, y)), (4, z3.fpGT(x, y)), (2, z3.fpEQ(x, y))):
        term = z3.If(holds, z3.BitVecVal(number, 4), term)
    return term


def ieee(v: Value, *operands: z3.BitVecRef) -> z3.BitVecRef:
    """The `ieee` operation: its result, and above that what it raises."""
    name = str(v.detail)
    simple = [z3.simplify(operand) for operand in operands]
    if all(z3.is_bv_value(operand) for operand in simple):
        return z3.BitVecVal(IEEE[name](*(operand.as_long() for operand in simple)), v.width)
    operation, _, form = name.partition(" ")
    width = v.width - RAISED_WIDTH
    if form not in _FORMATS:
        return _unknown(v.width, "rounded")
    if operation == "compare":
        result = _compared(_FORMATS[form], *operands)
    elif operation in _ARITHMETIC:
        result = _computed(operation, _FORMATS[form], operands)
    else:
        result = _unknown(width, "rounded")
    return z3.Concat(_unknown(RAISED_WIDTH, "raised"), result)
