"""The campaign `interleavings`: every order of the steps of a virtual core's threads, to the end.

The states of `proof/virtual_core.py`'s claim `virtual-core` are explored breadth first. A state is known by
the decisions that lead to it; a task takes a slice of the newest states and finds what follows them. The
client knows the digest of every state that was met.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from chronovisor.campaigns.campaign import (
    Answer,
    Batch,
    CampaignError,
    Course,
    Failure,
    Json,
    Parameters,
    Replay,
    Result,
)
from chronovisor.proof.paths import Body, NotACase, follow
from chronovisor.proof.successors import Refuted, successors
from chronovisor.proof.virtual_core import any_order
from chronovisor.report.states_picture import draw

THREADS: Final = 8
"""The most threads: decisions are written with a digit each."""
SLICES: Final = 8
"""Into so many tasks a level of states is cut, unless they become too small or too large."""
LEAST: Final = 16
MOST: Final = 256
"""States of a task."""
ENOUGH: Final = 10
"""A task that has found so many failures names no more."""


@dataclass(frozen=True)
class Interleavings:
    """See the module's text."""

    name: str = "interleavings"
    unit: str = "steps"
    parameters: Parameters = field(
        default_factory=lambda: {"threads": THREADS, "reduced": 1, "may_refuse": 0}
    )
    shared: Sequence[str] = ()
    time_limit: float = 1800.0

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course: a batch for the states that so many steps lead to."""
        if not 1 <= given["threads"] <= THREADS:
            raise CampaignError(f"threads={given['threads']}: a core has 1 to {THREADS}")
        for name in ("reduced", "may_refuse"):
            if given[name] > 1:
                raise CampaignError(f"{name}={given[name]}: 0 or 1")
        return self._course(given)

    def _course(self, given: Parameters) -> Course:
        known: set[str] = set()
        steps = ends = 0
        newest, levels, whole = [""], [], True
        while newest and whole:
            levels.append(len(newest))
            size = min(MOST, max(LEAST, -(-len(newest) // SLICES)))
            slices = [newest[first : first + size] for first in range(0, len(newest), size)]
            results = yield Batch(slices, len(slices))
            whole = len(results) == len(slices) and not any(result.found for result in results)
            newest = []
            for result in results:
                steps += result.done
                ends += result.data["ends"]
                for state, decisions in result.data["states"]:
                    if state not in known:
                        known.add(state)
                        newest.append(decisions)
        return _answer(given, levels, steps, ends, whole)

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Find what follows some states, each given by the decisions that lead to it."""
        body, states = _body(given), dict[str, str]()
        steps = ends = 0
        found: list[Failure] = []
        for decisions in part:
            for step in successors(body, tuple(map(int, decisions))):
                steps += 1
                if isinstance(step, Refuted):
                    if len(found) < ENOUGH:
                        found.append(Failure(step.words, step.values))
                elif isinstance(step.state, bytes):
                    states.setdefault(step.state.hex(), "".join(map(str, step.decisions)))
                else:
                    ends += 1
        return Result(steps, {"states": list(states.items()), "ends": ends}, tuple(found))

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Follow one order of steps, and tell what happens."""
        try:
            course = follow(_body(given), {str(name): int(choice) for name, choice in case.items()})
        except (NotACase, AttributeError, ValueError, TypeError) as error:
            raise CampaignError(f"this is no case of {self.name}: {error}") from None
        return Replay(course.broken is not None, course.story)


def _body(given: Parameters) -> Body:
    return partial(
        any_order,
        threads=given["threads"],
        reduced=bool(given["reduced"]),
        may_refuse=bool(given["may_refuse"]),
    )


def _answer(given: Parameters, levels: list[int], steps: int, ends: int, whole: bool) -> Answer:
    def rows() -> Iterator[tuple[str, ...]]:
        yield "threads", "states", "steps taken", "longest course", "courses' ends", "explored"
        yield (
            str(given["threads"]),
            str(sum(levels)),
            str(steps),
            f"{len(levels)} steps",
            str(ends),
            "to the end" if whole else "NOT to the end",
        )

    words = "orders that differ in steps that commute explored once" if given["reduced"] else "all orders"
    return Answer(
        list(rows()),
        {
            "threads": given["threads"],
            "states": sum(levels),
            "steps": steps,
            "levels": levels,
            "ends": ends,
            "whole": whole,
        },
        [f"Threads in equal states are interchangeable; {words}."],
        partial(draw, levels, f"{given['threads']} threads: states by the steps that lead to them"),
    )


CAMPAIGN: Final = Interleavings()
