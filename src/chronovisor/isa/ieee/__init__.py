"""IEEE 754 arithmetic as Power has it, on integers: every operation of the `ieee` family by name.

A name is an operation and the formats of its operands and its result. `as` names the format whose precision
and range a result has that is given in a wider one:

    add binary64                    add binary64 as binary32        compare binary64
    convert binary64 to binary32    binary64 to signed32            unsigned64 to binary64 as binary32

Decimal operations are named in the same way: `add decimal64`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from chronovisor.isa.ieee import arithmetic, conversions, decimal_operations, powers
from chronovisor.isa.ieee.formats import BINARY16, BINARY32, BINARY64, BINARY128, EXTENDED, FORMATS, Format
from chronovisor.isa.ieee.operation import RAISED_WIDTH, ROUNDING_WIDTH, Operation
from chronovisor.isa.ieee.rounding import Result, Rounding

_ARITHMETIC: Final[dict[str, tuple[int, Callable[..., Result]]]] = {
    "add": (2, arithmetic.add),
    "subtract": (2, arithmetic.subtract),
    "multiply": (2, arithmetic.multiply),
    "divide": (2, arithmetic.divide),
    "square_root": (1, arithmetic.square_root),
    "multiply_add": (3, arithmetic.multiply_add),
    "multiply_subtract": (3, arithmetic.multiply_subtract),
}

_INTEGERS: Final = {f"{'signed' if s else 'unsigned'}{w}": (w, s) for w in (32, 64) for s in (True, False)}


def _conversion(form: Format, to: Format) -> tuple[str, Operation]:
    compute = partial(conversions.convert, form, to)
    return f"convert {form.name} to {to.name}", Operation((form.width, ROUNDING_WIDTH), to.width, compute)


def _all() -> Iterator[tuple[str, Operation]]:
    narrow = (BINARY64, BINARY32)
    for form, to in (*((form, form) for form in FORMATS), narrow):
        suffix = form.name if form is to else f"{form.name} as {to.name}"
        for name, (count, compute) in _ARITHMETIC.items():
            widths = (*(form.width,) * count, ROUNDING_WIDTH)
            yield f"{name} {suffix}", Operation(widths, form.width, partial(compute, form, to))
        for name, (width, signed) in _INTEGERS.items():
            compute = partial(conversions.from_integer, form, to, width, signed)
            yield f"{name} to {suffix}", Operation((width, ROUNDING_WIDTH), form.width, compute)
    for form in FORMATS:
        comparison = partial(conversions.compare, form)
        yield f"compare {form.name}", Operation((form.width,) * 2, 4, comparison)
        one = (form.width, ROUNDING_WIDTH)
        yield f"integral {form.name}", Operation(one, form.width, partial(conversions.integral, form))
        for name, (width, signed) in _INTEGERS.items():
            compute = partial(conversions.to_integer, form, width, signed)
            yield f"{form.name} to {name}", Operation(one, width, compute)
        for to in FORMATS:
            if to is not form:
                yield _conversion(form, to)
        if form is not BINARY128:
            yield from (_conversion(BINARY16, form), _conversion(form, BINARY16))
    one = (BINARY32.width, ROUNDING_WIDTH)
    for name, function in (("power_of_two", powers.power_of_two), ("logarithm", powers.logarithm)):
        yield f"{name} {BINARY32.name}", Operation(one, BINARY32.width, partial(function, BINARY32))
    for form, to in (narrow, (BINARY128, EXTENDED)):
        compute = partial(conversions.round_to, form, to)
        yield f"round {form.name} as {to.name}", Operation((form.width, ROUNDING_WIDTH), form.width, compute)
    yield from decimal_operations.operations()


IEEE: Final[dict[str, Operation]] = dict(_all())
"""Every operation by its name."""

__all__ = ["IEEE", "RAISED_WIDTH", "ROUNDING_WIDTH", "Operation", "Result", "Rounding"]
