"""The drift experiment's picture: guests' clocks against the truth, hop by hop, under each rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chronovisor.report.drift import BIAS_US, CONTENDERS, DOWNTIMES_MS, LIMIT, Course
from chronovisor.timebase.types import FREQUENCY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Courses = Mapping[tuple[str, int, int], Course]
"""By the rule's letter, the downtime (ms) and how uneven the path is (µs)."""

# Okabe and Ito's palette, as in the picture of a journey: ours is black, rounding up vermilion.
_COLOURS: Final = {"a": "#D55E00", "b": "#CC79A7", "c": "#E69F00", "d": "#000000", "e": "#009E73"}
_BLUE: Final = "#56B4E9"
_SHOWN: Final = (-100, 400)
"""Milliseconds of error that the last part shows."""
_MS: Final = 1000 / FREQUENCY
_POINTS: Final = 800
"""The most hops that are drawn of a course: a picture has no more columns."""


def draw(courses: Courses, path: Path) -> None:
    """Write the picture to `path`, a PNG that is the same for the same courses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=85, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 2)
    for axes, downtime in zip(above, DOWNTIMES_MS, strict=True):
        _draw_rules(axes, courses, downtime)
    _draw_roundings(below[0], courses)
    _draw_uneven(below[1], courses)
    figure.savefig(path, metadata={"Software": None})


def _draw_rules(axes: Axes, courses: Courses, downtime: int) -> None:
    for contender in CONTENDERS:
        course = courses[contender.letter, downtime, 0]
        label = f"({contender.letter}) {contender.words}"
        if course.steps_back:
            label += f": {course.steps_back} steps back"
        _line(axes, course.errors, _COLOURS[contender.letter], label)
    _band(axes)
    axes.set_ylim(-50, 1e9)
    axes.set_yscale("symlog", linthresh=50, linscale=1.5)
    axes.set_yticks([-50, 0, 50, *(10**n for n in range(2, 6))])
    axes.set_title(f"Downtimes of about {downtime} ms, an even path", fontsize=10, loc="left")
    axes.set_ylabel("error of the guest's clock, ms")
    _finish(axes)


def _draw_roundings(axes: Axes, courses: Courses) -> None:
    downtime = DOWNTIMES_MS[0]
    roundings = [interval.rounding.value for interval in courses["d", downtime, 0].intervals]
    _band(axes)
    _line(axes, roundings, _COLOURS["d"], "(d) what is due to rounding")
    axes.set_ylim(-30, 40)
    axes.set_title(f"Ours, {downtime} ms: the rounding part of the error alone", fontsize=10, loc="left")
    axes.set_ylabel("ms")
    axes.set_xlabel("hops")
    _finish(axes)


def _draw_uneven(axes: Axes, courses: Courses) -> None:
    downtime, (least, most) = DOWNTIMES_MS[0], _SHOWN
    for letter in ("d", "e"):
        course = courses[letter, downtime, BIAS_US]
        _line(axes, course.errors, _COLOURS[letter], f"({letter}) {course.contender.words}")
    told = courses["d", downtime, BIAS_US].intervals
    places = _places(len(told))
    axes.fill_between(
        places,
        [max(least, told[at - 1].least * _MS) for at in places],
        [min(most, told[at - 1].most * _MS) for at in places],
        color=_BLUE,
        alpha=0.25,
        linewidth=0,
        label="(d) says that it is in here (wider than the picture soon)",
    )
    axes.set_ylim(least, most)
    title = f"Ours, {downtime} ms, where READY takes {BIAS_US} µs longer than COMMIT"
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("hops")
    axes.set_ylabel("error of the guest's clock, ms")
    _finish(axes)


def _band(axes: Axes) -> None:
    bound = LIMIT * _MS
    label = f"the limit of the rounding part, ±{bound:.1f} ms"
    axes.axhspan(-bound, bound, color=_BLUE, alpha=0.25, linewidth=0, label=label)


def _line(axes: Axes, errors: Sequence[int], colour: str, label: str) -> None:
    places = _places(len(errors))
    values = [errors[at - 1] * _MS for at in places]
    axes.plot(places, values, color=colour, linewidth=1, label=label)


def _places(hops: int) -> list[int]:
    step = max(1, hops // _POINTS)
    return list(range(1, hops + 1, step))


def _finish(axes: Axes) -> None:
    axes.axhline(0, color="0.4", linewidth=0.6)
    axes.margins(x=0)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
