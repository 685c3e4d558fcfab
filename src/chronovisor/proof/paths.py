"""Every path through a claim: its body runs once on each, on unknowns, and asks the prover at every turn.

The body of a claim is a function of a `Case`, which gives it unknowns, takes its assumptions and what it
requires. On a `Path` the unknowns are symbolic integers, and the body runs again for each way in which the
code's decisions can go (`explore`); with a `Replay` they are the ints of one case, and it runs once, as
code does every day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import z3

from chronovisor.proof.symbolic_int import BeyondProverError, SymbolicInt, term_of
from chronovisor.proof.terms import BitVectors, Terms
from chronovisor.timebase.types import MASK64


class Case(Protocol):
    """What a claim's body is given: unknowns, and somebody to tell its assumptions and requirements."""

    def any(self, name: str, low: int, high: int) -> int:
        """Return an unknown: any integer from `low` to `high`. Its name is for people, and unique."""

    def assume(self, words: str, condition: bool) -> None:
        """Go on only in the cases where `condition` holds."""

    def require(self, words: str, condition: bool) -> None:
        """Claim that `condition` holds in every case that is left."""


Body: TypeAlias = Callable[[Case], None]


def any_word(case: Case, name: str) -> int:
    """Return an unknown of 64 bits, 0 to 2^64-1."""
    return case.any(name, 0, MASK64)


class NotACase(Exception):
    """The case does not meet an assumption: nothing is claimed of it."""


class Broken(Exception):
    """A requirement does not hold in the case `values`."""

    def __init__(self, words: str, values: dict[str, int]) -> None:
        super().__init__(words)
        self.words = words
        self.values = values


class Escaped(Exception):
    """The code that a claim is about raised something."""

    def __init__(self, error: Exception) -> None:
        self.words = f"it goes through without {type(error).__name__}"
        super().__init__(f"{self.words}: {error}")


class Undecided(Exception):
    """A limit was reached before the prover was done; its text names the limit."""


class Path:
    """One run of a body on unknowns: the decisions in `decided` first, then whichever can be."""

    def __init__(self, decided: tuple[bool, ...], timeout: float, deadline: float, terms: Terms) -> None:
        self.terms = terms
        self._decided = decided
        self._time_out = f"time-out of {timeout:g} s"
        self._deadline = deadline
        self._taken: list[bool] = []
        self._solver = terms.solver()
        self._unknowns: dict[str, Any] = {}
        self.untaken: list[tuple[bool, ...]] = []
        """The beginnings of paths that this one turned away from."""
        self.assumptions: dict[str, None] = {}
        self.required = 0
        """How many requirements were found to hold."""

    def any(self, name: str, low: int, high: int) -> int:
        """Return an unknown from `low` to `high`."""
        if name in self._unknowns:
            raise ValueError(f"two unknowns are called {name!r}")
        constant, term, bounds = self.terms.unknown(name, low, high)
        self._unknowns[name] = constant
        self._solver.add(*bounds)
        return SymbolicInt.made(self, term, low, high)

    def assume(self, words: str, condition: bool) -> None:
        """Add `condition` to what holds on the path; nothing may be left then, which `witness` tells."""
        self.assumptions[words] = None
        self._solver.add(term_of(condition))

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` with a case of this path in which `condition` does not hold."""
        term = term_of(condition)
        # Where decisions are left to be repeated, the path that took them first has been here.
        repeated = len(self._taken) < len(self._decided)
        if not repeated and self._check(z3.Not(term)) == z3.sat:
            raise Broken(words, self._values(self._solver.model()))
        self._solver.add(term)
        self.required += 1

    def decide(self, condition: z3.BoolRef) -> bool:
        """Take the decision that this path is to take; where both can be, keep the other for later."""
        turn = len(self._taken)
        if turn < len(self._decided):
            taken = self._decided[turn]
        else:
            taken = self._check(condition) == z3.sat
            if self._check(z3.Not(condition)) == z3.sat:
                if taken:
                    self.untaken.append((*self._taken, False))
            elif not taken:
                raise NotACase("no case is left on this path")
        self._taken.append(taken)
        self._solver.add(condition if taken else z3.Not(condition))
        return taken

    def witness(self) -> dict[str, int] | None:
        """Return the unknowns of one case of this path, None where it has none."""
        return self._values(self._solver.model()) if self._check() == z3.sat else None

    def _check(self, *also: z3.BoolRef) -> z3.CheckSatResult:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Undecided(self._time_out)
        self._solver.set("timeout", max(1, int(left * 1000)))
        outcome = self._solver.check(*also)
        if outcome == z3.unknown:
            reason = self._solver.reason_unknown()
            raise Undecided(self._time_out if reason in ("timeout", "canceled") else f"the solver: {reason}")
        return outcome

    def _values(self, model: z3.ModelRef) -> dict[str, int]:
        return {
            name: self.terms.number(model.eval(constant, model_completion=True))
            for name, constant in self._unknowns.items()
        }


def explore(body: Body, timeout: float, terms: Terms | None = None, limit: int = 4096) -> Iterator[Path]:
    """Run `body` along every path that it has and give each back when it is through; paths on which no case
    is left are not among them.

    Raises `Broken` with the first case found that breaks a requirement, and `Undecided` after `timeout`
    seconds or `limit` paths.
    """
    deadline = time.monotonic() + timeout
    pending: list[tuple[bool, ...]] = [()]
    for _ in range(limit):
        if not pending:
            return
        path = Path(pending.pop(), timeout, deadline, terms or BitVectors())
        try:
            _run(body, path)
        except NotACase:
            pass
        except Escaped as escaped:
            values = path.witness()
            if values is not None:
                raise Broken(escaped.words, values) from escaped
        else:
            yield path
        pending.extend(path.untaken)
    if pending:
        raise Undecided(f"more than {limit} paths")


class Replay:
    """One case: the unknowns are the ints in `values` (the least possible where it names none)."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)

    def any(self, name: str, low: int, high: int) -> int:
        """Return the case's value."""
        value = self.values.setdefault(name, low)
        if not low <= value <= high:
            raise NotACase(f"{name} is {value}, not from {low} to {high}")
        return value

    def assume(self, words: str, condition: bool) -> None:
        """Raise `NotACase` where the case does not meet the assumption."""
        if not condition:
            raise NotACase(words)

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` where the requirement does not hold."""
        if not condition:
            raise Broken(words, self.values)


def replay(body: Body, values: Mapping[str, int]) -> str | None:
    """Run `body` on the ints of one case; return the requirement that it breaks, None where all hold.

    Raises `NotACase` where the case does not meet an assumption.
    """
    try:
        _run(body, Replay(values))
    except Broken as broken:
        return broken.words
    except Escaped as escaped:
        return escaped.words
    return None


def _run(body: Body, case: Case) -> None:
    """Run a body; what the code that it is about raises, and it does not expect, becomes `Escaped`."""
    try:
        body(case)
    except (NotACase, Broken, Undecided, BeyondProverError):
        raise
    except Exception as error:
        raise Escaped(error) from error
