"""Numbers of a case are brought as near to 0 as they can be, in either arithmetic."""

import pytest
import z3

from chronovisor.proof.minimal import Number, least_model
from chronovisor.proof.terms import BitVectors, Integers, Terms


@pytest.mark.parametrize("terms", [BitVectors(), Integers()], ids=["bit-vectors", "integers"])
@pytest.mark.parametrize("nearest", [0, 1, 5, 700, 2**40, 2**63 - 1, -1, -6, -(2**40), -(2**63)])
def test_the_value_nearest_to_0_is_found(terms: Terms, nearest: int) -> None:
    _, term, bounds = terms.unknown("x", -(2**63), 2**63 - 1)
    solver = z3.Solver()
    beyond = term >= nearest if nearest > 0 else term <= nearest if nearest < 0 else term == term
    solver.add(*bounds, beyond)
    model = least_model(solver, [Number(term, -(2**63), 2**63 - 1)], 60, terms=terms)
    assert model is not None
    assert terms.number(model.eval(term, model_completion=True)) == nearest


def test_wishes_come_first_then_numbers_in_their_order() -> None:
    x, y = z3.BitVecs("x y", 64)
    solver = z3.Solver()
    solver.add(x + y == 2**63 + 9, z3.UGE(y, 3))
    wishes = [z3.UGE(x, 5), z3.ULT(x, 5), z3.ULE(x, 2**63)]
    model = least_model(solver, [Number.unsigned(y), Number.unsigned(x)], 60, wishes=wishes)
    assert model is not None
    assert (model[y].as_long(), model[x].as_long()) == (9, 2**63)


def test_without_time_there_is_no_model() -> None:
    x = z3.BitVec("x", 64)
    assert least_model(z3.Solver(), [Number.unsigned(x)], 0.0) is None
