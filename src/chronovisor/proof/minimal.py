"""Small numbers for counterexamples. People read them, and see what matters if the other numbers are 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import z3

from chronovisor.proof.symbolic_int import SymbolicInt
from chronovisor.proof.terms import BitVectors, Operand, Terms

_WISH = 5.0
"""Seconds for the question whether a wish can be fulfilled."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a case: a term of the prover, and the bounds between which the term lies."""

    term: Operand
    low: int
    high: int

    @classmethod
    def unsigned(cls, word: z3.BitVecRef) -> Number:
        """Return the number that a word is, read without a sign; for `BitVectors`."""
        return cls(z3.ZeroExt(1, word), 0, (1 << word.size()) - 1)


def sizes(followed: list[tuple[int, int | None]]) -> list[Number]:
    """Return what is to be small in a case that is shown: how long the case lasts, then each unknown.

    `followed` has each unknown with the one that it comes after, or None. An unknown that comes after another
    is measured as its distance from the other.
    """
    lasting: dict[int, tuple[int, int]] = {}
    first: dict[int, int] = {}
    for unknown, after in followed:
        first[id(unknown)] = first.get(id(after), unknown)
        lasting[id(first[id(unknown)])] = (first[id(unknown)], unknown)
    spans = [last - begun for begun, last in lasting.values() if last is not begun]
    each = [unknown if after is None else unknown - after for unknown, after in followed]
    return [Number(one.term, one.low, one.high) for one in spans + each if isinstance(one, SymbolicInt)]


def least_model(
    solver: z3.Solver,
    numbers: Sequence[Number],
    seconds: float,
    *,
    terms: Terms | None = None,
    wishes: Sequence[z3.BoolRef] = (),
    each: float = float("inf"),
) -> z3.ModelRef | None:
    """Return a model of what `solver` holds, with small `numbers`; None if `seconds` were too few for any.

    The wishes come first: each of them is fulfilled if those before it allow that. Then each number in its
    turn is brought as near to 0 as those before it allow. One question about a number may take `each`
    seconds; if the solver has no answer by then, the number counts as not smaller. After `seconds` the other
    numbers stay as the latest model has them. `solver` has more assertions afterwards.
    """
    search = _Search(solver, terms or BitVectors(), time.monotonic() + seconds)
    for wish in wishes:
        if search.there_is(wish, _WISH):
            solver.add(wish)
    for number in numbers:
        search.make_small(number, each)
    return search.found


class _Search:
    """Asks for models between bounds, until its time is over."""

    def __init__(self, solver: z3.Solver, terms: Terms, deadline: float) -> None:
        self._solver = solver
        self._terms = terms
        self._deadline = deadline
        self.found: z3.ModelRef | None = None

    def there_is(self, condition: z3.BoolRef, seconds: float) -> bool:
        """Whether a model with this condition was found in time; it is kept."""
        left = min(seconds, self._deadline - time.monotonic())
        if left <= 0:
            return False
        self._solver.set("timeout", max(1, int(left * 1000)))
        if self._solver.check(condition) != z3.sat:
            return False
        self.found = self._solver.model()
        return True

    def make_small(self, number: Number, each: float) -> None:
        """Find the value nearest to 0, and hold on to it."""
        start = min(max(0, number.low), number.high)
        up = self.found is not None and self._value(number) >= start
        if up or self.there_is(self._compared(number, start, lambda a, b: a >= b), each):
            sign = 1
        elif self.found or self.there_is(self._compared(number, start, lambda a, b: a < b), each):
            sign = -1
        else:
            return
        nearest, reach, steps = 0, abs(self._value(number) - start), 0
        # The number is `start` itself, or as near as it can be already; else nearer by leaps, then by halves.
        probe = 0
        while nearest < reach and time.monotonic() < self._deadline:
            if self.there_is(self._within(number, start, sign, probe), each):
                reach = abs(self._value(number) - start)
            else:
                nearest = probe + 1
            steps += 1
            probe = reach - 1 if steps == 1 else min(2 * nearest, (nearest + reach) // 2)
        self._solver.add(self._compared(number, start + sign * reach, lambda a, b: a == b))

    def _value(self, number: Number) -> int:
        assert self.found is not None
        return self._terms.number(self.found.eval(number.term, model_completion=True))

    def _within(self, number: Number, start: int, sign: int, reach: int) -> z3.BoolRef:
        low, high = sorted((start, start + sign * reach))
        return z3.And(
            self._compared(number, low, lambda a, b: a >= b),
            self._compared(number, high, lambda a, b: a <= b),
        )

    def _compared(
        self, number: Number, value: int, operation: Callable[[Operand, Operand], z3.BoolRef]
    ) -> z3.BoolRef:
        return self._terms.compared(operation, number.term, value)
