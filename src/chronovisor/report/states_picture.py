"""The picture of an exploration: how many states so many steps lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw(levels: Sequence[int], title: str, path: Path) -> None:
    """Write the picture to `path`, a PNG that is the same for the same numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=85, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar(range(len(levels)), levels, color="#0072B2", width=0.9)
    axes.set_xlabel("steps from the beginning")
    axes.set_ylabel("states that are met first then")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
