"""The drift experiment's table, in Markdown."""

from __future__ import annotations

from chronovisor.report.drift import BIAS_US, CONTENDERS, DOWNTIMES_MS, Course, first_step, run
from chronovisor.report.drift_picture import Courses
from chronovisor.timebase.types import FREQUENCY

_HEAD = (
    "rule",
    "downtime",
    "path",
    "final error",
    "largest error",
    "steps back",
    "of them the largest",
    "largest rounding",
    "mean wait",
    "first hop with a step",
    "the truth outside its interval",
)


def all_courses(hops: int) -> Courses:
    """Run the experiment: each rule, both downtimes, both paths."""
    return {
        (contender.letter, downtime, bias): run(contender, downtime, bias, hops)
        for contender in CONTENDERS
        for downtime in DOWNTIMES_MS
        for bias in (0, BIAS_US)
    }


def table(courses: Courses) -> str:
    """Return the table. The uneven path is shown only for rules that time messages."""
    rows = [_HEAD, ("---", *("---:" for _ in _HEAD[1:]))]
    rows += [_row(course) for course in courses.values() if course.intervals or not course.bias_us]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _row(course: Course) -> tuple[str, ...]:
    told = bool(course.intervals)
    rounding, first = course.largest_rounding, first_step(course)
    return (
        f"({course.contender.letter}) {course.contender.words}",
        f"{course.downtime_ms} ms",
        f"uneven by {course.bias_us} µs" if course.bias_us else "even",
        _ms(course.errors[-1], "+"),
        _ms(course.largest_error),
        str(course.steps_back),
        _ms(course.largest_step_back) if course.steps_back else "–",
        "–" if rounding is None else _ms(rounding),
        f"{course.mean_wait * 1000 / FREQUENCY:.2f} ms",
        "none" if first is None else str(first),
        f"{course.outside} of {len(course.errors)}" if told else "says none",
    )


def _ms(ticks: int, sign: str = "") -> str:
    value = ticks * 1000 / FREQUENCY
    return f"{value / 1000:{sign},.1f} s" if abs(value) >= 10_000 else f"{value:{sign}z.3f} ms"
