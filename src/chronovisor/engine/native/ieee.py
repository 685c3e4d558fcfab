"""IEEE arithmetic as LLVM code: the host's own instructions, and FPSCR's exceptions exact all the same.

The host rounds to nearest. What that loses (``residuals``) says whether the result is inexact, whether its
magnitude is too large, and what the other rounding modes give. Operands and results for which this does not
hold (NaNs, infinities, results that overflow or are near the smallest numbers) make the instruction the
concrete evaluator's. The meaning of each operation is in ``chronovisor.isa.ieee``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

from llvmlite import ir

from chronovisor.engine.native import residuals
from chronovisor.engine.native.emitter import I1, I32, Emitter, word
from chronovisor.engine.native.residuals import (
    DOUBLE,
    SINGLE,
    Nearest,
    bits_of,
    call,
    has_host_arithmetic,
    is_zero,
    real,
    require,
    to_odd,
    within,
)
from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee import IEEE, RAISED_WIDTH, ROUNDING_WIDTH
from chronovisor.isa.ieee.conversions import EQUAL, GREATER, LESS, UNORDERED
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.ieee.rounding import INEXACT, MODE, UNDERFLOW_ENABLED, Rounding
from chronovisor.isa.values import Value

#: An operation: (emitter, operands…, rounding mode) -> the bits of the result, and what is raised.
Computed: TypeAlias = "tuple[ir.Value, ir.Value]"
Operation: TypeAlias = Callable[..., Computed]

_OPERAND = ir.IntType(ROUNDING_WIDTH)
_FLOATS: Final = {BINARY64.name: DOUBLE, BINARY32.name: SINGLE}


def _mode(rounding: Rounding) -> ir.Constant:
    return ir.Constant(_OPERAND, int(rounding))


def _operand(bits: int) -> ir.Constant:
    return ir.Constant(_OPERAND, bits)


def _mode_of(e: Emitter, rounding: ir.Value) -> ir.Value:
    """The rounding mode of a rounding operand, without what is enabled."""
    return rounding if isinstance(rounding, ir.Constant) else e.b.and_(rounding, _operand(MODE))


def _is_tiny(e: Emitter, to: Format, number: ir.Value) -> ir.Value:
    """1 bit: a number that is not zero and smaller than the normal ones."""
    tiny = within(e, number, None, to.smallest_exponent)
    return e.b.and_(tiny, e.b.not_(is_zero(e, number)))


def _number(e: Emitter, form: Format, bits: ir.Value) -> ir.Value:
    """An operand as a double."""
    number = e.b.bitcast(bits, _FLOATS[form.name])
    return number if form is BINARY64 else e.b.fpext(number, DOUBLE)


def _result(e: Emitter, form: Format, number: ir.Value) -> ir.Value:
    """The bits of a number in the format of an operation's result, which holds the number."""
    kind = _FLOATS[form.name]
    if number.type == kind:
        return bits_of(e, number)
    return bits_of(e, e.b.fpext(number, kind) if kind == DOUBLE else e.b.fptrunc(number, kind))


def _raised(e: Emitter, inexact: ir.Value, larger: ir.Value) -> ir.Value:
    """XX, FI and FR: the result is inexact; if so, its magnitude is too large."""
    up, down = (ir.Constant(I32, INEXACT | more) for more in (int(FPSCR.FR), 0))
    return e.b.select(inexact, e.b.select(larger, up, down), ir.Constant(I32, 0))


def _negative(e: Emitter, bits: ir.Value) -> ir.Value:
    return e.b.icmp_signed("<", bits, ir.Constant(bits.type, 0))


def _rounded(e: Emitter, form: Format, to: Format, near: Nearest, rounding: ir.Value) -> Computed:
    """Round to a format by a mode, one of those that FPSCR[RN] has."""
    number, rest = near.number, near.rest
    if to is BINARY32:
        odd = to_odd(e, near)
        number = e.b.fptrunc(odd, SINGLE)
        normal = within(e, number, BINARY32.smallest_exponent + 1, BINARY32.bias)
        require(e, normal, lambda: is_zero(e, odd))
        rest = e.b.fsub(odd, e.b.fpext(number, DOUBLE))
    if rest is None:
        return _result(e, form, number), ir.Constant(I32, 0)
    f, bits = e.b, bits_of(e, number)
    inexact = f.fcmp_unordered("!=", rest, real(0.0))
    larger = f.xor(_negative(e, bits), _negative(e, bits_of(e, rest)))
    nearest = f.block
    unusual = e.unlikely(f.icmp_unsigned("!=", rounding, _mode(Rounding.NEAREST_EVEN)), "directed")
    on = f.block
    with e.elsewhere(unusual):
        # No result that overflows comes here. An exact one that is tiny may: that is an underflow if enabled.
        enabled = f.icmp_unsigned("!=", f.and_(rounding, _operand(UNDERFLOW_ENABLED)), _operand(0))
        require(e, f.not_(f.and_(enabled, _is_tiny(e, to, number))))
        mode = _mode_of(e, rounding)
        # A sum of 0 is negative in this mode unless both addends are positive zeros.
        down = f.icmp_unsigned("==", mode, _mode(Rounding.DOWN))
        require(e, f.not_(f.and_(down, is_zero(e, number))))
        up = f.icmp_unsigned("==", mode, _mode(Rounding.UP))
        to_nearest = f.icmp_unsigned("==", mode, _mode(Rounding.NEAREST_EVEN))
        outward = f.select(to_nearest, larger, f.select(_negative(e, bits), down, up))
        step = f.sub(f.zext(outward, bits.type), f.zext(larger, bits.type))
        other = f.select(inexact, f.add(bits, step), bits)
        last = f.block
        f.branch(on)
    chosen, above = f.phi(bits.type), f.phi(I1)
    for value, found, block in ((bits, larger, nearest), (other, outward, last)):
        chosen.add_incoming(value, block)
        above.add_incoming(found, block)
    return _result(e, form, f.bitcast(chosen, number.type)), _raised(e, inexact, above)


def _computed(
    form: Format, to: Format, exact: Callable[..., Nearest], e: Emitter, *operands: ir.Value
) -> Computed:
    numbers = [_number(e, form, bits) for bits in operands[:-1]]
    return _rounded(e, form, to, exact(e, *numbers), operands[-1])


def _narrowed(form: Format, to: Format, e: Emitter, a: ir.Value, rounding: ir.Value) -> Computed:
    """Round a double to the precision and range of singles; ``form`` is the result's format."""
    return _rounded(e, form, to, Nearest(_number(e, BINARY64, a)), rounding)


def _widened(e: Emitter, a: ir.Value, rounding: ir.Value) -> Computed:
    number = _number(e, BINARY32, a)
    require(e, e.b.fcmp_ordered("ord", number, number))
    return bits_of(e, number), ir.Constant(I32, 0)


# Integers

_WORD: Final = 32


def _from_integer(
    form: Format, to: Format, width: int, signed: bool, e: Emitter, a: ir.Value, rounding: ir.Value
) -> Computed:
    f = e.b
    convert = f.sitofp if signed else f.uitofp
    if width == _WORD:
        return _rounded(e, form, to, Nearest(convert(a, DOUBLE)), rounding)
    above = (f.ashr if signed else f.lshr)(a, word(_WORD))
    high = f.fmul(f.sitofp(above, DOUBLE), real(2.0**_WORD))
    low = f.sitofp(f.and_(a, word((1 << _WORD) - 1)), DOUBLE)
    # Each half is exact, and the upper one has the larger magnitude unless it is 0.
    total = f.fadd(high, low)
    rest = f.fsub(low, f.fsub(total, high))
    return _rounded(e, form, to, Nearest(total, rest), rounding)


def _away(e: Emitter, number: ir.Value) -> ir.Value:
    """The nearest integer; of two the one with the larger magnitude."""
    f, integer = e.b, call(e, "trunc", number)
    half = f.fcmp_ordered(">=", call(e, "fabs", f.fsub(number, integer)), real(0.5))
    return f.fadd(integer, call(e, "copysign", f.select(half, real(1.0), real(0.0)), number))


_TO_INTEGRAL: Final[dict[Rounding, Callable[[Emitter, ir.Value], ir.Value]]] = {
    Rounding.NEAREST_EVEN: lambda e, number: call(e, "rint", number),
    Rounding.TOWARD_ZERO: lambda e, number: call(e, "trunc", number),
    Rounding.UP: lambda e, number: call(e, "ceil", number),
    Rounding.DOWN: lambda e, number: call(e, "floor", number),
    Rounding.NEAREST_AWAY: _away,
}


def _to_integral(e: Emitter, number: ir.Value, rounding: ir.Value) -> tuple[ir.Value, ir.Value]:
    """A double that is no NaN rounded to an integer, and what that raises."""
    f = e.b
    rounding = _mode_of(e, rounding)
    if isinstance(rounding, ir.Constant):
        integer = _TO_INTEGRAL[Rounding(rounding.constant)](e, number)
    else:
        integer = _TO_INTEGRAL[Rounding.NEAREST_EVEN](e, number)
        for mode in (Rounding.TOWARD_ZERO, Rounding.UP, Rounding.DOWN):
            chosen = f.icmp_unsigned("==", rounding, _mode(mode))
            integer = f.select(chosen, _TO_INTEGRAL[mode](e, number), integer)
    inexact = f.fcmp_unordered("!=", integer, number)
    larger = f.fcmp_ordered(">", call(e, "fabs", integer), call(e, "fabs", number))
    return integer, _raised(e, inexact, larger)


def _integral(form: Format, e: Emitter, a: ir.Value, rounding: ir.Value) -> Computed:
    number = _number(e, form, a)
    require(e, e.b.fcmp_ordered("ord", number, number))
    integer, raised = _to_integral(e, number, rounding)
    return _result(e, form, integer), raised


def _to_integer(
    form: Format, width: int, signed: bool, e: Emitter, a: ir.Value, rounding: ir.Value
) -> Computed:
    f = e.b
    integer, raised = _to_integral(e, _number(e, form, a), rounding)
    largest = 2.0 ** (width - 1 if signed else width)
    # A NaN is in no relation.
    below = f.fcmp_ordered("<", integer, real(largest))
    above = f.fcmp_ordered(">=", integer, real(-largest if signed else 0.0))
    require(e, f.and_(below, above))
    convert = f.fptosi if signed else f.fptoui
    return convert(integer, ir.IntType(width)), raised


# Comparison


def _compare(form: Format, e: Emitter, a: ir.Value, b: ir.Value) -> Computed:
    f = e.b
    x, y = (f.bitcast(bits, _FLOATS[form.name]) for bits in (a, b))
    relation = ir.Constant(ir.IntType(4), 0)
    for sign, bit in (("<", LESS), (">", GREATER), ("==", EQUAL), ("uno", UNORDERED)):
        test = f.fcmp_unordered if sign == "uno" else f.fcmp_ordered
        here = f.select(test(sign, x, y), ir.Constant(relation.type, bit), ir.Constant(relation.type, 0))
        relation = f.or_(relation, here)
    signalling = f.or_(_signals(e, form, a), _signals(e, form, b))
    return relation, f.select(signalling, ir.Constant(I32, int(FPSCR.VXSNAN)), ir.Constant(I32, 0))


def _signals(e: Emitter, form: Format, bits: ir.Value) -> ir.Value:
    """1 bit: a NaN that raises an invalid operation."""
    f = e.b
    magnitude = f.and_(bits, ir.Constant(bits.type, form.sign - 1))
    above = f.sub(magnitude, ir.Constant(bits.type, form.infinity + 1))
    return f.icmp_unsigned("<", above, ir.Constant(bits.type, form.quiet - 1))


# All of them

_ARITHMETIC: Final = {
    name: getattr(residuals, name)
    for name in (
        *("add", "subtract", "multiply", "divide", "square_root", "multiply_add", "multiply_subtract"),
    )
}
_INTEGERS: Final = {f"{'signed' if s else 'unsigned'}{w}": (w, s) for w in (32, 64) for s in (True, False)}


def _all() -> Iterator[tuple[str, Operation]]:
    for form, to in ((BINARY64, BINARY64), (BINARY32, BINARY32), (BINARY64, BINARY32)):
        suffix = form.name if form is to else f"{form.name} as {to.name}"
        for name, exact in _ARITHMETIC.items():
            yield f"{name} {suffix}", partial(_computed, form, to, exact)
        for name, (width, signed) in _INTEGERS.items():
            yield f"{name} to {suffix}", partial(_from_integer, form, to, width, signed)
    for form in (BINARY64, BINARY32):
        yield f"compare {form.name}", partial(_compare, form)
        yield f"integral {form.name}", partial(_integral, form)
        for name, (width, signed) in _INTEGERS.items():
            yield f"{form.name} to {name}", partial(_to_integer, form, width, signed)
    yield "round binary64 as binary32", partial(_narrowed, BINARY64, BINARY32)
    yield "convert binary64 to binary32", partial(_narrowed, BINARY32, BINARY32)
    yield "convert binary32 to binary64", _widened


HOSTED: Final[dict[str, Operation]] = dict(_all())
"""The operations that the host's instructions do, by their names in ``chronovisor.isa.ieee.IEEE``."""


def is_hosted(v: Value) -> bool:
    """Whether native code does this `ieee` operation, for operands that are nothing special."""
    name = str(v.detail)
    if name not in HOSTED or not has_host_arithmetic():
        return False
    rounding = v.args[-1]
    return name.startswith("compare") or rounding.op != "const" or rounding.detail in modes(name)


def modes(name: str) -> tuple[Rounding, ...]:
    """The rounding modes in which native code does an operation of HOSTED other than a comparison."""
    dynamic = (Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO, Rounding.UP, Rounding.DOWN)
    to_integral = name.startswith(("integral", "binary"))
    return (*dynamic, Rounding.NEAREST_AWAY) if to_integral else dynamic


def ieee(e: Emitter, v: Value, *operands: ir.Value) -> ir.Value:
    """The `ieee` operation: its result, and above that what it raises."""
    name = str(v.detail)
    bits, raised = HOSTED[name](e, *operands)
    width = IEEE[name].width
    whole = ir.IntType(width + RAISED_WIDTH)
    above = e.b.shl(e.b.zext(raised, whole), ir.Constant(whole, width))
    return e.b.or_(above, e.b.zext(bits, whole))
