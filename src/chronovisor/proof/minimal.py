"""Cases with small numbers: people see what matters in a case whose other numbers are 0."""

from __future__ import annotations

import time

import z3

from chronovisor.proof.symbolic_int import SymbolicInt
from chronovisor.proof.terms import Operand, Terms


def sizes(followed: list[tuple[int, int | None]]) -> list[int]:
    """Return what is to be small in a case that is shown: how long it lasts, then each unknown, as far as it
    is from the one that it comes after. `followed` has each unknown with that one, or None.
    """
    lasting: dict[int, tuple[int, int]] = {}
    first: dict[int, int] = {}
    for unknown, after in followed:
        first[id(unknown)] = first.get(id(after), unknown)
        lasting[id(first[id(unknown)])] = (first[id(unknown)], unknown)
    spans = [last - begun for begun, last in lasting.values() if last is not begun]
    return spans + [unknown if after is None else unknown - after for unknown, after in followed]


def least_model(
    terms: Terms, conditions: list[z3.BoolRef], sizes: list[int], seconds: float
) -> z3.ModelRef | None:
    """Return a case that meets `conditions`, as there is one, in which each of `sizes` (symbolic integers) in
    its turn is as near to 0 as those before it let it be; None where there was no time for any.

    After `seconds` the rest is left as it comes.
    """
    search = _Search(terms, conditions, time.monotonic() + seconds)
    for size in sizes:
        if isinstance(size, SymbolicInt) and not search.given_up:
            search.make_small(size)
    return search.found


class _Search:
    """Asks for cases between bounds, until its time is over."""

    def __init__(self, terms: Terms, conditions: list[z3.BoolRef], deadline: float) -> None:
        self._terms = terms
        # This one learns: its questions differ by one bound.
        self._solver = z3.Solver()
        self._solver.add(*conditions)
        self._deadline = deadline
        self.given_up = False
        self.found: z3.ModelRef | None = None

    def make_small(self, size: SymbolicInt) -> None:
        """Find the value nearest to 0, and hold on to it."""
        term, zero = size.term, min(max(0, size.low), size.high)
        if self._there_is(self._from(term, zero)):
            best = self._nearest(term, zero, size.high, 1)
        else:
            best = self._nearest(term, zero, size.low, -1)
        if not self.given_up and self._there_is(self._is(term, best)):
            self._solver.add(self._is(term, best))

    def _nearest(self, term: Operand, start: int, bound: int, sign: int) -> int:
        """The value nearest to `start` on one side, where there is one no further away than `bound`."""
        distance = abs(bound - start)
        reach = 0
        while reach < distance and not self.given_up and not self._within(term, start, reach, sign):
            reach = 2 * reach + 1
        below, reach = reach // 2, min(reach, distance)
        # Somewhere from `below` to `reach`, and nearer there is none.
        while below < reach and not self.given_up:
            middle = (below + reach) // 2
            if self._within(term, start, middle, sign):
                reach = middle
            else:
                below = middle + 1
        return start + sign * reach

    def _within(self, term: Operand, start: int, reach: int, sign: int) -> bool:
        low, high = sorted((start, start + sign * reach))
        return self._there_is(z3.And(self._from(term, low), z3.Not(self._from(term, high + 1))))

    def _there_is(self, condition: z3.BoolRef) -> bool:
        left = self._deadline - time.monotonic()
        if self.given_up or left <= 0:
            self.given_up = True
            return False
        self._solver.set("timeout", max(1, int(left * 1000)))
        outcome = self._solver.check(condition)
        self.given_up = outcome == z3.unknown
        if outcome == z3.sat:
            self.found = self._solver.model()
        return bool(outcome == z3.sat)

    def _from(self, term: Operand, value: int) -> z3.BoolRef:
        return self._terms.compared(lambda a, b: a >= b, term, value)

    def _is(self, term: Operand, value: int) -> z3.BoolRef:
        return self._terms.compared(lambda a, b: a == b, term, value)
