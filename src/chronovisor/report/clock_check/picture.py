"""The picture of a check: the guest's clocks against the host's, with the steps that were found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from chronovisor.report.clock_check.report import NAMES, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind eyes can tell apart.
_COLOURS: Final = {
    "mono": "#000000",
    "raw": "#0072B2",
    "boot": "#009E73",
    "real": "#E69F00",
    "tb": "#CC79A7",
}
_FAULT: Final = "#D55E00"
_LABELLED: Final = 12
"""Steps that have their size written beside them."""


def draw(report: Report, path: Path) -> None:
    """Write the picture to `path` (PNG, or what its suffix says).

    Raises OSError if the file cannot be written, ValueError if its suffix names no kind of picture.
    """
    # Imported here: it takes half a second, and a Power host has none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
    _draw_clocks(above, report)
    _draw_apart(below, report)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _draw_clocks(axes: Axes, report: Report) -> None:
    """Draw each clock's advance less the host's."""
    points = report.points
    # The counter under the others: most of the time all lie on one line.
    for width, clock in enumerate(reversed(_COLOURS)):
        if clock in points:
            axes.plot(
                points[clock].seconds,
                points[clock].ahead_ms,
                color=_COLOURS[clock],
                linewidth=7 - 1.5 * width,
                label=NAMES[clock],
            )
    for n, step in enumerate(report.steps):
        label = "a step that was found" if n == 0 else None
        axes.axvline(step.seconds, color=_FAULT, linewidth=0.9, linestyle="--", label=label)
        if n < _LABELLED:
            text = f"{step.ns.middle / 1e6:+.1f} ms\n±{step.ns.radius / 1e6:.1f}"
            axes.annotate(
                text,
                (step.seconds, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(4, 0),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=_FAULT,
            )
    for silence in report.silences:
        begin = silence.seconds - silence.host_ns / 1e9
        axes.axvspan(begin, silence.seconds, color="0.9", zorder=0)
    axes.set_ylabel("ahead of the host's clock, ms")
    axes.set_title(
        "The guest's clocks less the host's, as lines arrived (a line's delay points down; grey: no lines)",
        fontsize=10,
        loc="left",
    )
    if points:
        axes.legend(loc="best", frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_apart(axes: Axes, report: Report) -> None:
    """Draw each clock less MONOTONIC, which no delay disturbs, and mark the kernel's complaints."""
    mono = report.points.get("mono")
    for clock, course in report.points.items():
        if mono is not None and clock != "mono" and course.seconds == mono.seconds:
            apart = [(a - b) * 1000 for a, b in zip(course.ahead_ms, mono.ahead_ms, strict=True)]
            axes.plot(course.seconds, apart, color=_COLOURS[clock], linewidth=1.2, label=NAMES[clock])
    marked = [line.seconds for line in report.kernel_lines if line.seconds is not None]
    for n, at in enumerate(marked):
        axes.axvline(at, color=_FAULT, linewidth=0.9, label="the kernel complains" if n == 0 else None)
    axes.set_xlabel("seconds of the host's clock since the first sample")
    axes.set_ylabel("less MONOTONIC, µs")
    axes.set_title("The guest's other clocks less its MONOTONIC", fontsize=10, loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
