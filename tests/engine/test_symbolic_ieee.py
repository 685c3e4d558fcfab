"""What the symbolic evaluator says about IEEE arithmetic is true of the exact one."""

from __future__ import annotations

from random import Random

import pytest
import z3

from chronovisor.engine.symbolic.ieee import ieee
from chronovisor.isa.ieee import IEEE, RAISED_WIDTH, ROUNDING_WIDTH
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

NAMES = (
    *(f"{name} binary64" for name in ("add", "subtract", "multiply", "divide", "square_root")),
    *("multiply_add binary32", "multiply_subtract binary32", "integral binary64", "compare binary64"),
    *("add binary64 as binary32", "binary64 to signed32", "convert binary32 to binary64"),
)


def _value(name: str) -> Value:
    m = Machine()
    operation = IEEE[name]
    operands = tuple(m.value(0, width) for width in operation.operands)
    return m.trace.emit("ieee", operation.width + RAISED_WIDTH, operands, name)


def _draw(random: Random, width: int) -> int:
    special = (0, 1 << (width - 1), 0x7FF << (width - 12), 0x7FF8 << (width - 16), 0x3FF << (width - 12))
    return random.choice((*special, random.getrandbits(width), random.getrandbits(width)))


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_result_is_among_those_that_are_possible(name: str) -> None:
    random, value = Random(name), _value(name)
    widths = IEEE[name].operands
    unknowns = [z3.BitVec(f"x{n}", width) for n, width in enumerate(widths)]
    term = ieee(value, *unknowns)
    definite = 0
    for _ in range(50):
        numbers = [random.randrange(6) if w == ROUNDING_WIDTH else _draw(random, w) for w in widths]
        known = [z3.BitVecVal(number, width) for number, width in zip(numbers, widths, strict=True)]
        exact = IEEE[name](*numbers)
        assert z3.simplify(ieee(value, *known)).as_long() == exact
        found = z3.simplify(z3.substitute(term, *zip(unknowns, known, strict=True)))
        solver = z3.Solver()
        solver.add(found == exact)
        assert solver.check() == z3.sat, numbers
        result = z3.simplify(z3.Extract(IEEE[name].width - 1, 0, found))
        definite += z3.is_bv_value(result)
    whole = name.split(" ", 1)[1] in ("binary32", "binary64")
    assert (definite > 8) is (whole and "to" not in name)
