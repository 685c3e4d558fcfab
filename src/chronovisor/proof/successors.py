"""The states that follow a state, for a body whose unknowns are choices alone.

A state is known by the decisions that lead to it, which any process can repeat. So the states of one body can
be explored by many processes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from chronovisor.proof.paths import Body, Broken, Escaped, Merged, run_body


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a step leads."""

    decisions: tuple[int, ...]
    """The decisions that lead there from the beginning."""
    state: Hashable
    """What the body names the state; None at the end of a course."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """A step that breaks a requirement."""

    words: str
    """The requirement."""
    values: dict[str, int]
    """The case, for `paths.follow`."""


class _Step:
    """A run that repeats decisions and takes one step more."""

    def __init__(self, decided: tuple[int, ...], before: int) -> None:
        self._decided = decided
        self._before = before
        """The number of decisions that lead to the state from which the step is taken."""
        self._taken: list[int] = []
        self.values: dict[str, int] = {}
        self.untaken: list[tuple[int, ...]] = []
        self.reached: Hashable = None

    @property
    def decisions(self) -> tuple[int, ...]:
        """The decisions so far."""
        return tuple(self._taken)

    def any(self, name: str, low: int, high: int, after: int | None = None) -> int:
        raise NotImplementedError(f"{name} is a number: states are explored for choices alone")

    def choose(self, name: str, among: Callable[[], Sequence[int]]) -> int:
        turn = len(self._taken)
        if turn < len(self._decided):
            taken = self._decided[turn]
        else:
            taken, *others = among()
            self.untaken += [(*self._taken, other) for other in others]
        self._taken.append(taken)
        self.values[name] = taken
        return taken

    def merge(self, state: Callable[[], Hashable]) -> None:
        if len(self._taken) > self._before:
            self.reached = state()
            raise Merged

    def tell(self, words: Callable[[], str]) -> None:
        pass

    def assume(self, words: str, condition: bool) -> None:
        assert condition, words

    def require(self, words: str, condition: bool) -> None:
        if not condition:
            raise Broken(words, self.values)


def successors(body: Body, decisions: tuple[int, ...]) -> list[Reached | Refuted]:
    """Take every step that is possible in the state to which `decisions` lead."""
    found: list[Reached | Refuted] = []
    pending = [decisions]
    while pending:
        step = _Step(pending.pop(0), len(decisions))
        try:
            run_body(body, step)
        except (Broken, Escaped) as broken:
            found.append(Refuted(broken.words, step.values))
        except Merged:
            found.append(Reached(step.decisions, step.reached))
        else:
            found.append(Reached(step.decisions, None))
        pending += step.untaken
    return found
