"""Small numbers for counterexamples: people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import z3

_SHARE, _MOST = 0.5, 8.0
"""How much of the time that is left goes into making a model small, and how many seconds at most."""
_WISH, _EACH = 5000, 500
"""Milliseconds for one question: whether a wish can be fulfilled, and whether a number can be smaller."""


def least(
    solver: z3.Solver, unknowns: Sequence[z3.BitVecRef], wishes: Sequence[z3.BoolRef], deadline: float
) -> z3.ModelRef:
    """Return a model of what `solver` holds, which can be satisfied, whose `unknowns` are small.

    Of the `wishes` those hold that can, the first first. Each unknown in turn is made as small as it can be,
    unsigned, given those before it; where the time until `deadline` (of `time.monotonic`) runs short the rest
    stay as they come.
    """
    solver.set("timeout", 0)
    if solver.check() != z3.sat:
        raise ValueError("there is no model to make small")
    model = solver.model()
    now = time.monotonic()
    stop = now + min(_MOST, _SHARE * max(0.0, deadline - now))
    solver.set("timeout", _WISH)
    for wish in wishes:
        if time.monotonic() < deadline and solver.check(wish) == z3.sat:
            model = solver.model()
            solver.add(wish)
    solver.set("timeout", _EACH)
    for unknown in unknowns:
        low = 0
        high = int(model.eval(unknown, model_completion=True).as_long())
        # Zero first, as most can be; then whether it is the least already, for that costs a proof a step.
        middle, steps = 0, 0
        while low < high and time.monotonic() < stop:
            if solver.check(z3.ULE(unknown, middle)) == z3.sat:
                model = solver.model()
                high = int(model.eval(unknown, model_completion=True).as_long())
            else:
                low = middle + 1
            steps += 1
            middle = high - 1 if steps == 1 else (low + high) // 2
        solver.add(unknown == high)
    return model
