"""A picture of some numbers beside each other: a bar for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw(
    bars: Sequence[tuple[str, float]], title: str, unit: str, path: Path, logarithmic: bool = False
) -> None:
    """Write the picture to `path`, a PNG that is the same for the same numbers. The first bar is on top.

    On a `logarithmic` axis a number that is 0 has no bar; its label says it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.24 * len(bars)), dpi=85, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names, values = zip(*bars, strict=True)
    places = range(len(bars))
    axes.barh(places, values, color="#0072B2", height=0.7)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    if logarithmic:
        axes.set_xscale("log")
        above = [value for value in values if value > 0]
        # Room for the labels, and something to see of the shortest bar.
        axes.set_xlim(min(above, default=1) / 2, max(above, default=1) * 4)
    left, _ = axes.get_xlim()
    for place, value in zip(places, values, strict=True):
        label = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
        axes.annotate(
            label, (max(value, left), place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_xlabel(unit)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
