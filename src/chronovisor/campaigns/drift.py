"""The campaign `drift`: how far can thousands of hops take a guest's clock, and does our rule ever break what
it promises? It runs the drift experiment of docs/handover.md with many seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

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
from chronovisor.report import drift
from chronovisor.report.bars_picture import draw
from chronovisor.report.drift import BIAS_US, CONTENDERS, DOWNTIMES_MS, LIMIT, Contender
from chronovisor.timebase.types import FREQUENCY

COURSES: Final = tuple(
    (contender.letter, downtime, bias)
    for contender in CONTENDERS
    for downtime in DOWNTIMES_MS
    for bias in (0, BIAS_US)
)
"""The courses of a task, each with the task's seed: a rule's letter, the downtime (ms), the bias (µs)."""


HEAD: Final = (
    "rule",
    "downtime",
    "path",
    "seeds",
    "largest error",
    "steps back",
    "largest rounding",
    "mean wait",
)


def _contender(letter: str) -> Contender:
    return next(one for one in CONTENDERS if one.letter == letter)


def _broken(course: drift.Course) -> Iterator[str]:
    """What a course of our rule breaks of its promises."""
    if not course.intervals:
        return
    if course.steps_back:
        yield "P4: the guest's time goes back"
    if any(abs(interval.rounding.value) > LIMIT for interval in course.intervals):
        yield "P6: the rounding is over the limit"
    if course.outside:
        yield "the true error is outside the interval that the records state"


@dataclass(frozen=True)
class Drift:
    """See the module's text."""

    name: str = "drift"
    unit: str = "hops"
    parameters: Parameters = field(default_factory=lambda: {"hops": drift.HOPS, "seeds": 100})
    shared: Sequence[str] = ("seeds",)
    time_limit: float = 600.0

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course: a task for each seed."""
        check_counts(given)
        return self._course(seed, given, endless)

    def _course(self, seed: int, given: Parameters, endless: bool) -> Course:
        results = yield seeds(seed, given["seeds"], endless)
        rows: list[tuple[str, ...]] = [HEAD]
        data, bars = [], []
        for number, (letter, downtime, bias) in enumerate(COURSES):
            courses = [result.data[number] for result in results]
            if not courses:
                continue
            largest = {name: max(one[name] for one in courses) for name in ("error", "rounding")}
            back = sum(one["back"] for one in courses)
            wait = sum(one["wait"] for one in courses) / len(courses)
            course = (
                f"({letter}) {_contender(letter).words}",
                f"{downtime} ms",
                f"uneven by {bias} µs" if bias else "even",
            )
            bars.append((", ".join(course), largest["error"] * 1000 / FREQUENCY))
            rows.append(
                (
                    *course,
                    str(len(courses)),
                    _ms(largest["error"]),
                    str(back),
                    _ms(largest["rounding"]) if largest["rounding"] else "–",
                    _ms(wait),
                )
            )
            data.append(
                {"rule": letter, "downtime_ms": downtime, "bias_us": bias, "seeds": len(courses)}
                | {f"largest_{name}_ticks": value for name, value in largest.items()}
                | {"steps_back": back, "mean_wait_ticks": wait}
            )
        title = f"The largest error of a guest's clock in {given['hops']} hops: rule, mean downtime, path"
        picture = partial(draw, bars, title, "ms", logarithmic=True)
        return Answer(rows, data, draw=picture if bars else None)

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Run every rule's courses with one seed."""
        data, found = [], []
        for letter, downtime, bias in COURSES:
            course = drift.run(_contender(letter), downtime, bias, given["hops"], part)
            data.append(
                {
                    "error": course.largest_error,
                    "back": course.steps_back,
                    "rounding": course.largest_rounding or 0,
                    "wait": course.mean_wait,
                }
            )
            case = {"rule": letter, "downtime_ms": downtime, "bias_us": bias, "seed": part}
            found += [
                Failure(words, case | {"hops": self._first(case, given["hops"])}) for words in _broken(course)
            ]
        return Result(given["hops"] * len(COURSES), data, tuple(found))

    def _first(self, case: dict[str, Any], hops: int) -> int:
        """Return how many hops it takes until a promise is broken; a longer course begins alike."""
        least, most = 1, hops
        while least < most:
            middle = (least + most) // 2
            if list(_broken(_run(case | {"hops": middle}))):
                most = middle
            else:
                least = middle + 1
        return least

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Run the course of a failure up to the hop at which it fails."""
        try:
            course = _run(case)
        except (KeyError, TypeError, StopIteration) as error:
            raise CampaignError(f"this is no case of {self.name}: {error}") from None
        story = (
            f"hop {len(course.errors)} advanced the guest by {course.advances[-1]} ticks, of which "
            f"{course.steps[-1]} were wrong, and had it wait for {course.waits[-1]}",
        )
        broken = tuple(_broken(course))
        return Replay(bool(broken), story + broken)


def _run(case: dict[str, Any]) -> drift.Course:
    rule = _contender(case["rule"])
    return drift.run(rule, case["downtime_ms"], case["bias_us"], case["hops"], case["seed"])


def _ms(ticks: float) -> str:
    return f"{ticks * 1000 / FREQUENCY:.3f} ms"


CAMPAIGN: Final = Drift()
