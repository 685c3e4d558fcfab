"""The picture of a fleet's clocks: how their errors grow over the time, under each rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.timebase.types import FREQUENCY

_COLOURS: Final = ("#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
"""Okabe and Ito's palette, as in the other pictures: ours is black, rounding up vermilion."""
_MS: Final = 1000 / FREQUENCY
_LEAST: Final = 1e-3
"""Milliseconds: what is less is drawn here."""


@dataclass(frozen=True, slots=True)
class Line:
    """What happens under one rule."""

    words: str
    errors: Sequence[Sequence[float]]
    """At the end of each part of the time: the median error and the one that 99 % do not exceed, in ticks."""


def draw(lines: Sequence[Line], days: int, path: Path) -> None:
    """Write the picture to `path`, a PNG that is the same for the same lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), dpi=85, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, colour in zip(lines, _COLOURS, strict=False):
        parts = range(1, len(line.errors) + 1)
        times = [days * part / len(line.errors) for part in parts]
        for which, style in ((0, "-"), (1, "--")):
            values = [max(_LEAST, errors[which] * _MS) for errors in line.errors]
            label = line.words if which == 0 else None
            axes.plot(times, values, style, color=colour, linewidth=1.3, label=label)
    axes.set_yscale("log")
    axes.set_xlim(0, days)
    axes.set_xlabel("days")
    axes.set_ylabel("what moves made of a guest's clock, ms")
    axes.set_title(
        "Errors of the guests' clocks: the median (solid), and 99 % (dashed)", fontsize=10, loc="left"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
