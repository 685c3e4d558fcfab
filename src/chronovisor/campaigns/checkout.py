"""Campaigns whose code is in the tests of a checkout.

Each task is a run of `tests/long.py`, in a process of its own, with a seed of its own. It prints how many
cases of each kind it did, as JSON. Every worker needs a checkout in which Chronovisor is installed in place.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import chronovisor
from chronovisor.campaigns import task_process
from chronovisor.campaigns.campaign import (
    Answer,
    CampaignError,
    Course,
    Failure,
    Json,
    Parameters,
    Replay,
    Result,
    check_counts,
    seeds,
)
from chronovisor.report.bars_picture import draw

TESTS: Final = Path(chronovisor.__file__).parents[2] / "tests"
MODULE: Final = "long"
SHOWN: Final = 40
"""Lines of a failure's output that are kept."""


@dataclass(frozen=True)
class Run:
    """How a run of `tests/long.py` ended."""

    status: int
    output: str

    @property
    def words(self) -> str:
        """What is wrong, in one line."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
        return (errors or lines or [f"it ends with status {self.status}"])[-1][:200]


def run(name: str, seed: int, cases: int, limit: float) -> Run:
    """Run a campaign of `tests/long.py` for at most `limit` seconds.

    Raises `CampaignError` if there is no checkout.
    """
    if not (TESTS / f"{MODULE}.py").exists():
        raise CampaignError(
            f"the campaign {name} needs a checkout of the project: there is no {TESTS / MODULE}.py"
        )
    try:
        done = task_process.run(MODULE, name, str(seed), str(cases), limit=limit, cwd=TESTS)
    except subprocess.TimeoutExpired:
        return Run(-1, f"it did not end within {limit:.0f} s")
    return Run(done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr)


@dataclass(frozen=True)
class Checkout:
    """A campaign of `tests/long.py`."""

    name: str
    unit: str
    cases: int
    """Cases of a task (for `boots`: boots, each with several moves)."""
    tasks: int
    title: str
    """The picture's."""
    parameters: Parameters = field(init=False)
    shared: Sequence[str] = ("tasks",)
    time_limit: float = 3600.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", {"tasks": self.tasks, "cases": self.cases})

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course: a task for each seed."""
        check_counts(given)
        return self._course(seed, given, endless)

    def _course(self, seed: int, given: Parameters, endless: bool) -> Course:
        results = yield seeds(seed, given["tasks"], endless)
        done = Counter[str]()
        for result in results:
            done.update(result.data["done"])
        failed = [result.data["seed"] for result in results if result.found]
        rows = [(self.unit, "done"), *((kind, str(count)) for kind, count in done.items())]
        seeds_that_fail = ", ".join(map(str, failed)) or "none"
        return Answer(
            rows,
            {"done": done, "seeds": len(results), "failed": failed},
            [f"{len(results)} seeds, of which fail: {seeds_that_fail}"],
            partial(draw, list(done.items()), self.title, self.unit, logarithmic=True) if done else None,
        )

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Run the cases of one seed."""
        ended = run(self.name, part, given["cases"], 0.9 * self.time_limit)
        if ended.status == 0:
            done = json.loads(ended.output.splitlines()[-1])
            return Result(sum(done.values()), {"seed": part, "done": done})
        case = {"seed": part, "cases": given["cases"], "output": ended.output.splitlines()[-SHOWN:]}
        return Result(0, {"seed": part, "done": {}}, (Failure(ended.words, case),))

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Run the cases of a seed once more."""
        try:
            numbers = int(case["seed"]), int(case["cases"])
        except (KeyError, TypeError, ValueError) as error:
            raise CampaignError(f"this is no case of {self.name}: {error}") from None
        ended = run(self.name, *numbers, self.time_limit)
        return Replay(ended.status != 0, tuple(ended.output.splitlines()[-SHOWN:]))


CAMPAIGNS: Final = {
    one.name: one
    for one in (
        Checkout("oracle", "cases", 20_000, 50, "Answers that are QEMU's"),
        Checkout("engines", "cases", 20_000, 50, "Cases in which the evaluators agree"),
        Checkout("fuzz", "cases", 50_000, 40, "Inputs that do no harm"),
        Checkout("faults", "moves", 1_000, 100, "How moves that are disturbed end"),
        Checkout("model", "steps", 10_000, 20, "Steps after which the fleet is as its model"),
        Checkout("boots", "moves", 10, 20, "Moves while Linux boots"),
    )
}
"""The campaigns by name."""
