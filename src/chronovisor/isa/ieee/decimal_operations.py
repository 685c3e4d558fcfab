"""The decimal operations of the `ieee` family by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from chronovisor.isa.ieee import decimal_adjustment as adjustment
from chronovisor.isa.ieee import decimal_arithmetic as arithmetic
from chronovisor.isa.ieee.decimal_formats import DECIMAL32, DECIMAL64, DECIMAL128
from chronovisor.isa.ieee.operation import ROUNDING_WIDTH, Operation
from chronovisor.isa.ieee.rounding import Result

_COUNT: Final = 6
"""The bits of a number of digits."""
_CONVERSIONS: Final = (
    (DECIMAL32, DECIMAL64, False),
    (DECIMAL64, DECIMAL32, False),
    (DECIMAL64, DECIMAL128, True),
    (DECIMAL128, DECIMAL64, True),
)
"""From, to, and whether a signalling NaN is an invalid operation."""


def operations() -> Iterator[tuple[str, Operation]]:
    """Yield every operation with its name."""
    for form in (DECIMAL64, DECIMAL128):
        name, one, two = form.name, (form.width,), (form.width, form.width)
        for operation in ("add", "subtract", "multiply", "divide"):
            compute = partial(arithmetic.arithmetic, form, operation)
            yield f"{operation} {name}", Operation((*two, ROUNDING_WIDTH), form.width, compute)
        yield f"compare {name}", Operation(two, 4, partial(arithmetic.compare, form))
        to_integer = partial(arithmetic.to_integer, form)
        yield f"{name} to signed64", Operation((*one, ROUNDING_WIDTH), 64, to_integer)
        from_integer = partial(arithmetic.from_integer, form)
        yield f"signed64 to {name}", Operation((64, ROUNDING_WIDTH), form.width, from_integer)
        rounding: tuple[tuple[str, tuple[int, ...], Callable[..., Result]], ...] = (
            ("quantize", two, adjustment.quantize),
            ("quantize_to", (64, *one), adjustment.quantize_to),
            ("reround", (_COUNT, *one), adjustment.reround),
            ("integral", one, adjustment.integral),
        )
        for operation, operands, function in rounding:
            yield (
                f"{operation} {name}",
                Operation((*operands, ROUNDING_WIDTH), form.width, partial(function, form)),
            )
        others: tuple[tuple[str, tuple[int, ...], int, Callable[..., Result]], ...] = (
            ("exponent", one, 64, adjustment.exponent),
            ("with_exponent", (64, *one), form.width, adjustment.with_exponent),
            ("shift_left", (*one, _COUNT), form.width, adjustment.shift_left),
            ("shift_right", (*one, _COUNT), form.width, adjustment.shift_right),
            ("to_packed", (2, *one), form.width, adjustment.to_packed),
            ("from_packed", (1, *one), form.width, adjustment.from_packed),
            ("compare_exponents", two, 4, adjustment.compare_exponents),
            ("compare_significance", (_COUNT, *one), 4, adjustment.compare_significance),
            ("data_class", one, 6, adjustment.data_class),
            ("data_group", one, 6, adjustment.data_group),
        )
        for operation, operands, width, function in others:
            yield f"{operation} {name}", Operation(operands, width, partial(function, form))
    for form in (DECIMAL32, DECIMAL64, DECIMAL128):
        yield f"class {form.name}", Operation((form.width,), 5, partial(arithmetic.classify, form))
    for form, to, signals in _CONVERSIONS:
        convert = partial(arithmetic.convert, form, to, signals)
        yield f"convert {form.name} to {to.name}", Operation((form.width, ROUNDING_WIDTH), to.width, convert)
