"""What a campaign is: a question cut into tasks, and how the tasks' results become its answer.

A task is a pure function of the campaign's seed and parameters and of the task's *part*: which of the cases
it looks at. Everything that is sent to a worker and everything that comes back is made of JSON's types, and
small.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Json: TypeAlias = Any
"""A value made of JSON's types."""

Parameters: TypeAlias = Mapping[str, int]


class CampaignError(Exception):
    """A campaign that cannot run or go on. The text is one line for people."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that a campaign has found."""

    words: str
    """What is wrong, in one line."""
    case: Json
    """The smallest case that shows it; `Campaign.replay` runs it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a task came to."""

    done: int
    """How many units (`Campaign.unit`) it did."""
    data: Json
    """What the answer is made of."""
    found: tuple[Failure, ...] = ()

    @classmethod
    def from_json(cls, told: Json) -> Result:
        """Return the result of which `told` has the fields.

        Raises `KeyError` or `TypeError` if it has others.
        """
        return cls(told["done"], told["data"], tuple(Failure(**one) for one in told["found"]))


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that do not depend on each other's results."""

    parts: Iterable[Json]
    """What each task looks at. May be endless."""
    count: int | None = None
    """How many parts there are; None if they are endless."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A campaign's answer, as far as it got."""

    table: Sequence[Sequence[str]]
    """The table's rows; the headings come first."""
    data: Json
    """The same for programs, with nothing rounded."""
    remarks: Sequence[str] = ()
    """Lines to print below the table."""
    draw: Callable[[Path], None] | None = None
    """Writes the picture, as PNG; None for a campaign without a picture."""


def seeds(first: int, number: int, endless: bool) -> Batch:
    """Return a batch with a task for each seed, from the `first` on."""
    return Batch(count(first)) if endless else Batch(range(first, first + number), number)


def check_counts(given: Parameters) -> None:
    """Raise `CampaignError` for a parameter below 1, if all are counts."""
    for name, value in given.items():
        if value < 1:
            raise CampaignError(f"{name}={value}: at least 1")


Course: TypeAlias = Generator[Batch, list[Result], Answer]
"""Yields batches of tasks, gets each batch's results in the order of the parts, and returns the answer.

If the time is over before a batch is done, the course gets the results that there are, and after that an
empty list for each further batch; it returns the answer to what it got.
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """How a failure ran once more."""

    fails: bool
    """Whether it fails as before."""
    story: tuple[str, ...] = field(default=())
    """What happened, in order."""


class Campaign(Protocol):
    """A campaign."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def unit(self) -> str:
        """What is counted as done (a plural)."""

    @property
    def parameters(self) -> Parameters:
        """What can be set, with the defaults."""

    @property
    def shared(self) -> Sequence[str]:
        """The parameters that say how much is done. A share of a campaign has a share of each; a campaign
        without such a parameter cannot be cut.
        """

    @property
    def time_limit(self) -> float:
        """Seconds after which a task counts as hanging."""

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course of the campaign. If it is `endless`, a time limit ends it, and a course whose
        number of tasks is arbitrary goes on until then.

        Raises `CampaignError` for parameters that make no sense.
        """

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Do one task: a pure function."""

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Run the case of a failure once more, in this process.

        Raises `CampaignError` for a case that makes no sense.
        """


def with_defaults(campaign: Campaign, chosen: Parameters, percent: int = 100) -> dict[str, int]:
    """Return all parameters of a campaign: those `chosen`, and the defaults of the others, of which so many
    percent are taken where they say how much is done.

    Raises `CampaignError` for a parameter that the campaign does not have.
    """
    for name in chosen:
        if name not in campaign.parameters:
            known = ", ".join(campaign.parameters) or "none"
            raise CampaignError(f"{campaign.name} has no parameter {name!r} (it has {known})")
    cut = {name: -(-campaign.parameters[name] * percent // 100) for name in campaign.shared}
    return {**campaign.parameters, **cut, **chosen}
