"""Every path through a claim: its body runs once on each, on unknowns, and asks the prover at every turn.

The body of a claim is a function of a `Case`, which gives it unknowns, takes its assumptions and what it
requires. On a `Path` the unknowns are symbolic integers, and the body runs again for each way in which the
code's decisions can go (`explore`); with a `Replay` they are the ints of one case, and it runs once, as
code does every day.

Not every unknown is a number: which thread goes on next is a *choice* among a few, which is explored by
taking each. Where choices come in many orders that lead to the same, a body names the state that it is in,
and what was explored from there once is not again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import z3

from chronovisor.proof.minimal import least_model, sizes
from chronovisor.proof.symbolic_int import BeyondProverError, SymbolicInt, term_of
from chronovisor.proof.terms import BitVectors, Terms
from chronovisor.timebase.types import MASK64


class Case(Protocol):
    """What a claim's body is given: unknowns, and somebody to tell its assumptions and requirements."""

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        """Return an unknown: any integer from `low` to `high`. Its name is for people, and unique. One that
        comes `after` another, as a clock's readings do, is shown close behind it in a counterexample.
        """

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        """Return any of some numbers; each is explored. Its name is for people, and unique."""

    def merge(self, state: Callable[[], Hashable]) -> None:
        """Go on only where nothing was in that state before: it says all that what follows depends on."""

    def tell(self, words: Callable[[], str]) -> None:
        """Say what happens, for the story of a case: `words` are made where there is one."""

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


class Merged(Exception):
    """The path came to a state from which all was explored already."""


class Undecided(Exception):
    """A limit was reached before the prover was done; its text names the limit."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What all paths through a body have in common."""

    timeout: float
    deadline: float
    terms: Terms = field(default_factory=BitVectors)
    minimising: float = 0.0
    """Seconds for making the numbers of a case that breaks a requirement small."""
    states: set[Hashable] = field(default_factory=set)
    """Those that paths were in."""

    def left(self) -> float:
        """Return the seconds left; raise `Undecided` where there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Undecided(self.time_out)
        return left

    @property
    def time_out(self) -> str:
        """The limit that it runs into, for people."""
        return f"time-out of {self.timeout:g} s"


class Path:
    """One run of a body on unknowns: the decisions in `decided` first, then whichever can be."""

    def __init__(self, decided: tuple[int, ...], exploration: Exploration) -> None:
        self.terms = exploration.terms
        self._exploration = exploration
        self._decided = decided
        self._taken: list[int] = []
        self._solver: z3.Solver | None = None
        self._unknowns: dict[str, Any] = {}
        self._followed: list[tuple[int, int | None]] = []
        self.untaken: list[tuple[int, ...]] = []
        """The beginnings of paths that this one turned away from."""
        self.assumptions: dict[str, None] = {}
        self.required = 0
        """How many requirements were found to hold."""

    @property
    def is_one_case(self) -> bool:
        """Whether all that is open on it are choices: it is run on ints already."""
        return self._solver is None

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        """Return an unknown from `low` to `high`."""
        constant, term, bounds = self.terms.unknown(name, low, high)
        self._name(name, constant)
        self._add(*bounds)
        unknown = SymbolicInt.made(self, term, low, high)
        self._followed.append((unknown, after))
        return unknown

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        """Return the number that this path is to take; the others are kept for later."""
        turn = len(self._taken)
        if turn < len(self._decided):
            taken = self._decided[turn]
        else:
            self._exploration.left()
            taken, *others = among()
            self.untaken += [(*self._taken, other) for other in reversed(others)]
        self._taken.append(taken)
        self._name(name, taken)
        return taken

    def merge(self, state: Callable[[], Hashable]) -> None:
        """Raise `Merged` where another path was in that state."""
        # Where decisions are left to be repeated, the path that took them first has been here.
        if len(self._taken) < len(self._decided):
            return
        states, here = self._exploration.states, state()
        if here in states:
            raise Merged
        states.add(here)

    def tell(self, words: Callable[[], str]) -> None:
        """Do nothing: many cases have no one story."""

    def assume(self, words: str, condition: bool) -> None:
        """Add `condition` to what holds on the path; nothing may be left then, which `witness` tells."""
        self.assumptions[words] = None
        if condition is not True:
            self._add(term_of(condition))

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` with a case of this path in which `condition` does not hold."""
        self.required += 1
        if condition is True:
            return
        term = term_of(condition)
        # Where decisions are left to be repeated, the path that took them first has been here.
        repeated = len(self._taken) < len(self._decided)
        if not repeated and self._check(z3.Not(term)) == z3.sat:
            raise Broken(words, self._case(z3.Not(term)))
        self._add(term)

    def decide(self, condition: z3.BoolRef) -> bool:
        """Take the decision that this path is to take; where both can be, keep the other for later."""
        turn = len(self._taken)
        if turn < len(self._decided):
            taken = bool(self._decided[turn])
        else:
            taken = self._check(condition) == z3.sat
            if self._check(z3.Not(condition)) == z3.sat:
                if taken:
                    self.untaken.append((*self._taken, False))
            elif not taken:
                raise NotACase("no case is left on this path")
        self._taken.append(taken)
        self._add(condition if taken else z3.Not(condition))
        return taken

    def witness(self) -> dict[str, int] | None:
        """Return the unknowns of one case of this path, None where it has none."""
        return self._values() if self._check() == z3.sat else None

    def _name(self, name: str, unknown: Any) -> None:
        if name in self._unknowns:
            raise ValueError(f"two unknowns are called {name!r}")
        self._unknowns[name] = unknown

    def _add(self, *conditions: z3.BoolRef) -> None:
        if self._solver is None:
            self._solver = self.terms.solver()
        self._solver.add(*conditions)

    def _check(self, *also: z3.BoolRef) -> z3.CheckSatResult:
        left = self._exploration.left()
        if self._solver is None:
            self._add()
        assert self._solver is not None
        self._solver.set("timeout", max(1, int(left * 1000)))
        outcome = self._solver.check(*also)
        if outcome == z3.unknown:
            reason = self._solver.reason_unknown()
            timed_out = reason in ("timeout", "canceled")
            raise Undecided(self._exploration.time_out if timed_out else f"the solver: {reason}")
        return outcome

    def _values(self) -> dict[str, int]:
        """The unknowns as the last check left them."""
        assert self._solver is not None
        return self._values_in(self._solver.model())

    def _values_in(self, model: z3.ModelRef) -> dict[str, int]:
        return {
            name: unknown
            if isinstance(unknown, int)
            else self.terms.number(model.eval(unknown, model_completion=True))
            for name, unknown in self._unknowns.items()
        }

    def _case(self, condition: z3.BoolRef) -> dict[str, int]:
        """A case in which `condition` holds, as the last check has found; with small numbers if there is
        time.
        """
        found = self._values()
        seconds = min(self._exploration.minimising, self._exploration.deadline - time.monotonic())
        if seconds <= 0:
            return found
        assert self._solver is not None
        # A solver that learns: its questions differ by one bound.
        learning = z3.Solver()
        learning.add(*self._solver.assertions(), condition)
        model = least_model(learning, sizes(self._followed), seconds, terms=self.terms)
        return found if model is None else self._values_in(model)


def explore(
    body: Body, timeout: float, terms: Terms | None = None, limit: int = 1 << 20, minimising: float = 0.0
) -> Iterator[Path]:
    """Run `body` along every path that it has and give each back when it is through; paths on which no case
    is left, or that end in a state that another has been in, are not among them.

    Raises `Broken` with the first case found that breaks a requirement, its numbers made small for at most
    `minimising` seconds, and `Undecided` after `timeout` seconds or `limit` paths.
    """
    exploration = Exploration(timeout, time.monotonic() + timeout, terms or BitVectors(), minimising)
    pending: list[tuple[int, ...]] = [()]
    for _ in range(limit):
        if not pending:
            return
        path = Path(pending.pop(), exploration)
        try:
            _run(body, path)
        except (NotACase, Merged):
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
    """One case: the unknowns are the ints in `values`, and where it names none the least possible."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)
        self.story: list[str] = []
        """What happened, in the order in which it did."""

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        """Return the case's value."""
        value = self.values.setdefault(name, low if after is None else max(low, after))
        if not low <= value <= high:
            raise NotACase(f"{name} is {value}, not from {low} to {high}")
        return value

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        """Return the case's choice, the first where it names none."""
        numbers = among()
        taken = self.values.setdefault(name, numbers[0])
        if taken not in numbers:
            raise NotACase(f"{name}: {taken} is not among {numbers}")
        return taken

    def merge(self, state: Callable[[], Hashable]) -> None:
        """Do nothing: one case is followed to its end."""

    def tell(self, words: Callable[[], str]) -> None:
        """Keep it."""
        self.story.append(words())

    def assume(self, words: str, condition: bool) -> None:
        """Raise `NotACase` where the case does not meet the assumption."""
        if not condition:
            raise NotACase(words)

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` where the requirement does not hold."""
        if not condition:
            raise Broken(words, self.values)


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of one case."""

    broken: str | None
    """The requirement that it breaks, None where all hold."""
    story: tuple[str, ...]
    """What happens in it."""


def follow(body: Body, values: Mapping[str, int]) -> Course:
    """Run `body` on the ints of one case.

    Raises `NotACase` where the case does not meet an assumption.
    """
    case, broken = Replay(values), None
    try:
        _run(body, case)
    except (Broken, Escaped) as failure:
        broken = failure.words
    return Course(broken, tuple(case.story))


def replay(body: Body, values: Mapping[str, int]) -> str | None:
    """Run `body` on the ints of one case; return the requirement that it breaks, None where all hold.

    Raises `NotACase` where the case does not meet an assumption.
    """
    return follow(body, values).broken


def _run(body: Body, case: Case) -> None:
    """Run a body; what the code that it is about raises, and it does not expect, becomes `Escaped`."""
    try:
        body(case)
    except (NotACase, Merged, Broken, Undecided, BeyondProverError):
        raise
    except Exception as error:
        raise Escaped(error) from error
