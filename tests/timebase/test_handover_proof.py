import pytest
import z3

from chronovisor.timebase.handover import rounded_advance
from chronovisor.timebase.types import GRANULE

STEP = 2 * GRANULE  # in half ticks
elapsed, ahead, phase, limit = z3.Ints("elapsed ahead phase limit")
advance = rounded_advance(elapsed, ahead, phase, limit, choose=z3.If)
wait = z3.If(advance < 0, -advance, 0)
after = ahead + advance - elapsed
anything = z3.And(elapsed >= 0, limit >= GRANULE)

CLAIMS = {
    "the destination can give it": (anything, (advance - phase) % STEP == 0),
    "P4": (anything, advance + wait >= 0),
    "the wait": (anything, wait <= STEP),
    "P5": (anything, z3.And(advance - elapsed <= STEP, elapsed - advance <= STEP)),
    "P6": (z3.And(anything, ahead <= limit, ahead >= -limit), z3.And(after <= limit, after >= -limit)),
    "nearer from above": (z3.And(anything, ahead > limit), z3.And(after < ahead, after >= -limit)),
    "nearer from below": (z3.And(anything, ahead < -limit), z3.And(after > ahead, after <= limit)),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_rounding_that_runs_is_proven_for_all_integers(claim: str) -> None:
    assumed, promised = CLAIMS[claim]
    solver = z3.Solver()
    solver.add(assumed)
    assert solver.check() == z3.sat
    solver.add(z3.Not(promised))
    assert solver.check() == z3.unsat
