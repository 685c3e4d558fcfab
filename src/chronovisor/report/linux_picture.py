"""The picture of Linux's clock over moves: ours and a peer's, and what a timebase that is set back does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, as in the other pictures.
_OURS: Final = "#000000"
_PEER: Final = "#D55E00"
_BAND: Final = "#56B4E9"


@dataclass(frozen=True, slots=True)
class LinuxPicture:
    """What is drawn."""

    errors_ms: Sequence[float]
    """The guest's CLOCK_MONOTONIC less the machine's, before the first move and after each."""
    peer_errors_ms: Sequence[float]
    """The same on the peer; empty if there is none."""
    peer: str
    """The peer's name."""
    peer_silent: bool
    """Whether the guest fell silent there."""
    limit_ms: float
    """How far the roundings of our moves can bring a clock from its ideal."""
    uptimes: Sequence[tuple[float, float]]
    """The counter-example: seconds since the timebase was set back, and the guest's uptime in seconds."""
    set_back_seconds: float
    """By how much it was set back."""


def draw(picture: LinuxPicture, path: Path) -> None:
    """Write the picture to `path` (PNG, or what its suffix says).

    Raises OSError if the file cannot be written, ValueError if its suffix names no kind of picture.
    """
    # Imported here: it takes half a second, and a Power host has none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(1.3, 1))
    _draw_errors(above, picture)
    _draw_set_back(below, picture)
    figure.savefig(path)


def _draw_errors(axes: Axes, picture: LinuxPicture) -> None:
    limit = picture.limit_ms
    axes.axhspan(-limit, limit, color=_BAND, alpha=0.25, label=f"our limit for roundings, ±{limit:.1f} ms")
    axes.axhline(0, color="0.4", linewidth=0.8)
    if picture.peer_errors_ms:
        end = ", then silent after the next move" if picture.peer_silent else ""
        _draw_course(axes, picture.peer_errors_ms, _PEER, "^", f"the same guest on {picture.peer}", end)
    _draw_course(axes, picture.errors_ms, _OURS, "o", "Linux on Chronovisor")
    axes.set_xlim(-0.2, len(picture.errors_ms) - 0.3)
    axes.set_xticks(range(len(picture.errors_ms)))
    axes.set_xlabel("moves")
    axes.set_ylabel("ahead of the machine's clock, ms")
    axes.set_title(
        "The guest's CLOCK_MONOTONIC less the machine's clock, after each move, as the guest printed it",
        fontsize=10,
        loc="left",
    )
    # The peer's clock falls: its course ends where the legend must not be.
    early = len(picture.peer_errors_ms) <= len(picture.errors_ms) // 2
    axes.legend(loc="lower right" if early else "lower left", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def error_label(ms: float) -> str:
    """An error of a clock in milliseconds, with its sign; what is rounded to 0 is +0.0."""
    return f"{ms:+z.1f} ms"


def _draw_course(
    axes: Axes, values: Sequence[float], colour: str, marker: str, label: str, end: str = ""
) -> None:
    moves = range(len(values))
    axes.step(moves, values, where="post", color=colour, linewidth=1)
    axes.plot(moves, values, marker, color=colour, label=label)
    axes.annotate(
        f"{error_label(values[-1])}{end}",
        (moves[-1], values[-1]),
        xytext=(8, 8),
        textcoords="offset points",
        color=colour,
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )


def _draw_set_back(axes: Axes, picture: LinuxPicture) -> None:
    axes.axvline(0, color=_PEER, linewidth=0.9, linestyle="--", label="the timebase is set back")
    before = [(at, up) for at, up in picture.uptimes if at <= 0]
    if before:
        at, up = before[-1]
        end = max(second for second, _ in picture.uptimes)
        axes.plot(
            (before[0][0], end),
            (up + before[0][0] - at, up + end - at),
            color="0.4",
            linewidth=0.8,
            linestyle=":",
            label="had it not been",
        )
    axes.plot(
        [second for second, _ in picture.uptimes],
        [up for _, up in picture.uptimes],
        "o",
        color=_OURS,
        markersize=4,
        label="the guest's uptime",
    )
    axes.set_xlabel("seconds of the machine's clock")
    axes.set_ylabel("the guest's uptime, s")
    axes.set_title(
        f"What the offset is for: the same guest, its timebase set back by {picture.set_back_seconds:.1f} s",
        fontsize=10,
        loc="left",
    )
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
