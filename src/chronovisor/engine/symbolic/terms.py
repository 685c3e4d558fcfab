"""Pure operations as z3 terms.

The rows of :data:`EXPRESSIONS` are the symbolic reading of the pure part of
``chronovisor.isa.operations.OPERATIONS``. A value of ``width`` bits is a bit-vector of that size; conditions
are bit-vectors of one bit there, and z3's truths everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable

import z3

from chronovisor.engine.symbolic.ieee import ieee
from chronovisor.isa.values import LaneFunction, Value


def truth(bit: z3.BitVecRef) -> z3.BoolRef:
    """A 1-bit vector as a truth, simplified."""
    return z3.simplify(bit == 1)


def bit(condition: z3.BoolRef) -> z3.BitVecRef:
    """A truth as a 1-bit vector."""
    return z3.If(condition, z3.BitVecVal(1, 1), z3.BitVecVal(0, 1))


def known(term: z3.BitVecRef) -> int | None:
    """The number that a term always is, if it simplifies to one."""
    simple = z3.simplify(term)
    return simple.as_long() if z3.is_bv_value(simple) else None


def _first_one(a: z3.BitVecRef, places: range) -> z3.BitVecRef:
    """How many of ``places`` (bits, 0 the least significant) come before the first that holds a one."""
    width = a.size()
    count = z3.BitVecVal(width, width)
    for before, place in reversed(list(enumerate(places))):
        count = z3.If(z3.Extract(place, place, a) == 1, z3.BitVecVal(before, width), count)
    return count


def _popcount(v: Value, a: z3.BitVecRef) -> z3.BitVecRef:
    ones = z3.BitVecVal(0, v.width)
    for place in range(v.width):
        ones = ones + (z3.LShR(a, place) & 1)
    return ones


def _byteswap(v: Value, a: z3.BitVecRef) -> z3.BitVecRef:
    parts = [z3.Extract(low + 7, low, a) for low in range(0, v.width, 8)]
    return z3.Concat(*parts) if len(parts) > 1 else a


def _permute(v: Value, a: z3.BitVecRef, b: z3.BitVecRef) -> z3.BitVecRef:
    chosen = []
    for low in range(v.width - 8, -1, -8):
        number = z3.ZeroExt(v.width - 4, z3.Extract(low + 3, low, b))
        chosen.append(z3.Extract(7, 0, z3.LShR(a, number << 3)))
    return z3.Concat(*chosen)


def _extract(v: Value, a: z3.BitVecRef) -> z3.BitVecRef:
    assert isinstance(v.detail, int)
    return z3.Extract(v.detail + v.width - 1, v.detail, a)


def _each(v: Value, *operands: z3.BitVecRef) -> z3.BitVecRef:
    function = v.detail
    assert isinstance(function, LaneFunction)
    results = []
    for low in range(operands[0].size() - function.width, -1, -function.width):
        lanes = [z3.Extract(low + function.width - 1, low, operand) for operand in operands]
        terms: dict[int, z3.BitVecRef] = {}
        for value in function.body:
            if isinstance(value.detail, int) and value.op == "lane":
                terms[id(value)] = lanes[value.detail]
            else:
                arguments = [terms[id(argument)] for argument in value.args]
                terms[id(value)] = EXPRESSIONS[value.op](value, *arguments)
        results.append(terms[id(function.result)])
    return z3.Concat(*results) if len(results) > 1 else results[0]


def _or_zero(divide: Callable[[z3.BitVecRef, z3.BitVecRef], z3.BitVecRef]) -> Callable[..., z3.BitVecRef]:
    return lambda v, a, b: z3.If(b == 0, z3.BitVecVal(0, v.width), divide(a, b))


#: Pure operations but `operand`, which is the evaluator's, and `lane`, which is `each`'s:
#: (value, operand terms…) -> term.
EXPRESSIONS: dict[str, Callable[..., z3.BitVecRef]] = {
    "const": lambda v: z3.BitVecVal(v.detail, v.width),
    "add": lambda v, a, b: a + b,
    "sub": lambda v, a, b: a - b,
    "mul": lambda v, a, b: a * b,
    "udiv": _or_zero(z3.UDiv),
    "urem": _or_zero(z3.URem),
    "sdiv": _or_zero(lambda a, b: a / b),
    "srem": _or_zero(z3.SRem),
    "and": lambda v, a, b: a & b,
    "or": lambda v, a, b: a | b,
    "xor": lambda v, a, b: a ^ b,
    "not": lambda v, a: ~a,
    "shl": lambda v, a, b: a << b,
    "lshr": lambda v, a, b: z3.LShR(a, b),
    "ashr": lambda v, a, b: a >> b,
    "eq": lambda v, a, b: bit(a == b),
    "ult": lambda v, a, b: bit(z3.ULT(a, b)),
    "slt": lambda v, a, b: bit(a < b),
    "select": lambda v, a, b, c: z3.If(a == 1, b, c),
    "zext": lambda v, a: z3.ZeroExt(v.width - a.size(), a),
    "sext": lambda v, a: z3.SignExt(v.width - a.size(), a),
    "extract": _extract,
    "concat": lambda v, a, b: z3.Concat(a, b),
    "clz": lambda v, a: _first_one(a, range(v.width - 1, -1, -1)),
    "ctz": lambda v, a: _first_one(a, range(v.width)),
    "popcount": _popcount,
    "byteswap": _byteswap,
    "permute": _permute,
    "ieee": ieee,
    "each": _each,
}
