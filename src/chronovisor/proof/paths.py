"""Every path through a claim.

The body of a claim is a function of a `Case`. The case gives unknowns to the body and takes the body's
assumptions and requirements. On a `Path` the unknowns are symbolic integers; `explore` runs the body once for
each way in which the code's decisions can go. In a `Replay` the unknowns are the ints of one case, and the
body runs once, as ordinary code.

Some unknowns are no numbers: which thread continues next is a *choice* among a few, and each is explored. If
different orders of choices lead to the same state, the body names the state, and what follows a state is
explored once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import z3

from chronovisor.proof.minimal import least_model, sizes
from chronovisor.proof.symbolic_bool import BeyondProverError, term_of
from chronovisor.proof.symbolic_int import SymbolicInt
from chronovisor.proof.terms import BitVectors, Terms
from chronovisor.timebase.types import MASK64


class Case(Protocol):
    """Gives unknowns to a claim's body, and takes the body's assumptions and requirements."""

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        """Return an unknown: any integer from `low` to `high`. Its name is for people, and unique. If the
        unknown comes `after` another one, as a clock's readings do, counterexamples keep the two close.
        """

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        """Return one of some numbers. Each of them is explored. The name is for people, and unique."""

    def merge(self, state: Callable[[], Hashable]) -> None:
        """Continue only if no other path was in this state. What follows must depend on the state alone."""

    def tell(self, words: Callable[[], str]) -> None:
        """Say what happens, for the story of a case. `words` is called only if a story is written."""

    def assume(self, words: str, condition: bool) -> None:
        """Continue only with the cases in which `condition` holds."""

    def require(self, words: str, condition: bool) -> None:
        """Claim that `condition` holds in every remaining case."""


Body: TypeAlias = Callable[[Case], None]


def any_word(case: Case, name: str) -> int:
    """Return an unknown of 64 bits, 0 to 2^64-1."""
    return case.any(name, 0, MASK64)


class NotACase(Exception):
    """The case does not meet an assumption, so nothing is claimed about it."""


class Broken(Exception):
    """A requirement does not hold in the case `values`."""

    def __init__(self, words: str, values: dict[str, int]) -> None:
        super().__init__(words)
        self.words = words
        self.values = values


class Escaped(Exception):
    """The code that a claim runs raised an exception."""

    def __init__(self, error: Exception) -> None:
        self.words = f"it goes through without {type(error).__name__}"
        super().__init__(f"{self.words}: {error}")


class Merged(Exception):
    """The path reached a state that another path was in."""


class Undecided(Exception):
    """A limit was reached before the prover was done. The text names the limit."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What all paths through a body share."""

    timeout: float
    deadline: float
    terms: Terms = field(default_factory=BitVectors)
    minimising: float = 0.0
    """Seconds for making the numbers of a counterexample small."""
    states: set[Hashable] = field(default_factory=set)
    """The states that paths were in."""

    def left(self) -> float:
        """Return the seconds left. Raises `Undecided` if no time is left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Undecided(self.time_out)
        return left

    @property
    def time_out(self) -> str:
        """The name of the time limit, for people."""
        return f"time-out of {self.timeout:g} s"


class Path:
    """One run of a body on unknowns: first with the decisions in `decided`, then with any possible ones."""

    def __init__(self, decided: tuple[int, ...], exploration: Exploration) -> None:
        self.terms = exploration.terms
        self._exploration = exploration
        self._decided = decided
        self._taken: list[int] = []
        self._solver: z3.Solver | None = None
        self._unknowns: dict[str, Any] = {}
        self._followed: list[tuple[int, int | None]] = []
        self.untaken: list[tuple[int, ...]] = []
        """The beginnings of the paths that were not taken."""
        self.assumptions: dict[str, None] = {}
        self.required = 0
        """The number of requirements that were found to hold."""

    @property
    def is_one_case(self) -> bool:
        """Whether the path has choices only and no unknown numbers, so that it has run on ints already."""
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
        """Return the number that this path takes. The others are kept for later paths."""
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
        """Raise `Merged` if another path was in this state."""
        # While decisions are repeated, this is where an earlier path has been already.
        if len(self._taken) < len(self._decided):
            return
        states, here = self._exploration.states, state()
        if here in states:
            raise Merged
        states.add(here)

    def tell(self, words: Callable[[], str]) -> None:
        """Do nothing: a story is of one case, and a path stands for many."""

    def assume(self, words: str, condition: bool) -> None:
        """Add `condition` to what holds on the path. If no case is left then, `witness` returns None."""
        self.assumptions[words] = None
        if condition is not True:
            self._add(term_of(condition))

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` if a case of this path does not meet `condition`."""
        self.required += 1
        if condition is True:
            return
        term = term_of(condition)
        # While decisions are repeated, this is where an earlier path has been already.
        repeated = len(self._taken) < len(self._decided)
        if not repeated and self._check(z3.Not(term)) == z3.sat:
            raise Broken(words, self._case(z3.Not(term)))
        self._add(term)

    def decide(self, condition: z3.BoolRef) -> bool:
        """Return the decision that this path takes. If the other one is possible too, keep it for later."""
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
        """Return the unknowns of one case of this path, or None if the path has no case."""
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
        """The unknowns in the model of the last check."""
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
        """A case in which `condition` holds, as the last check has found it. Its numbers are made small if
        there is time.
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
    """Run `body` along every path, and yield each path when its run has ended. Paths without a case, and
    paths that end in a state in which another path was, are not yielded.

    Raises `Broken` with the first case found that breaks a requirement; making its numbers small takes
    `minimising` seconds at most. Raises `Undecided` after `timeout` seconds or `limit` paths.
    """
    exploration = Exploration(timeout, time.monotonic() + timeout, terms or BitVectors(), minimising)
    pending: list[tuple[int, ...]] = [()]
    for _ in range(limit):
        if not pending:
            return
        path = Path(pending.pop(), exploration)
        try:
            run_body(body, path)
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
    """One case. Its unknowns are the ints in `values`; the others are the least possible."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)
        self.story: list[str] = []
        """What happened, in order."""

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        """Return the case's value."""
        value = self.values.setdefault(name, low if after is None else max(low, after))
        if not low <= value <= high:
            raise NotACase(f"{name} is {value}, not from {low} to {high}")
        return value

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        """Return the case's choice, or the first one possible if the case has none of this name."""
        numbers = among()
        taken = self.values.setdefault(name, numbers[0])
        if taken not in numbers:
            raise NotACase(f"{name}: {taken} is not among {numbers}")
        return taken

    def merge(self, state: Callable[[], Hashable]) -> None:
        """Do nothing: a single case runs to its end."""

    def tell(self, words: Callable[[], str]) -> None:
        """Keep the words."""
        self.story.append(words())

    def assume(self, words: str, condition: bool) -> None:
        """Raise `NotACase` if the case does not meet the assumption."""
        if not condition:
            raise NotACase(words)

    def require(self, words: str, condition: bool) -> None:
        """Raise `Broken` if the requirement does not hold."""
        if not condition:
            raise Broken(words, self.values)


@dataclass(frozen=True, slots=True)
class Course:
    """What one case came to."""

    broken: str | None
    """The requirement that it breaks, or None if all hold."""
    story: tuple[str, ...]
    """What happens in it."""


def follow(body: Body, values: Mapping[str, int]) -> Course:
    """Run `body` on the ints of one case.

    Raises `NotACase` if the case does not meet an assumption.
    """
    case, broken = Replay(values), None
    try:
        run_body(body, case)
    except (Broken, Escaped) as failure:
        broken = failure.words
    return Course(broken, tuple(case.story))


def replay(body: Body, values: Mapping[str, int]) -> str | None:
    """Run `body` on the ints of one case. Return the requirement that it breaks, or None if all hold.

    Raises `NotACase` if the case does not meet an assumption.
    """
    return follow(body, values).broken


def run_body(body: Body, case: Case) -> None:
    """Run a body. An exception that the body does not expect becomes `Escaped`."""
    try:
        body(case)
    except (NotACase, Merged, Broken, Undecided, BeyondProverError):
        raise
    except Exception as error:
        raise Escaped(error) from error
