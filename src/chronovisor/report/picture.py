"""The picture of a journey: the hosts' timebases, the guest's through them, and its error hop by hop."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronovisor.report.hops import Journey
from chronovisor.report.table import years
from chronovisor.timebase.simple_rules import always_round_up
from chronovisor.timebase.types import FREQUENCY, Ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind eyes too. The guest is black, the other rule vermilion.
_HOST_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GUEST = "#000000"
_OTHER_RULE = "#D55E00"
_BAND = "#56B4E9"
_LANE_GAP = 0.35
"""The gap between two lanes, for the break in the axis, as a share of a lane's height."""


def draw(journey: Journey, path: Path, limit: Ticks) -> None:
    """Write the picture of `journey` to `path` (PNG, or what its suffix says), with a band of ± `limit`.

    Raises `OSError` if the file cannot be written, `ValueError` if its suffix is no kind of picture.
    """
    # Imported here: it takes half a second, and a Power host has none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(1.25, 1))
    _draw_timebases(above, journey)
    _draw_errors(below, journey, limit)
    figure.savefig(path)


def _draw_timebases(axes: Axes, journey: Journey) -> None:
    """Draw a lane for each timebase, in the order of their values, to one scale, the axis broken between."""
    start, end = journey.born_at, journey.ended_at
    length = (end - start) / FREQUENCY
    values: dict[str, int] = {name: origin + start for name, origin in journey.origins.items()}
    values["guest"] = journey.born_time.value
    lanes = {name: place for place, name in enumerate(sorted(values, key=values.__getitem__))}
    colours = dict(zip(journey.origins, _HOST_COLOURS, strict=False))
    height = length * (1 + _LANE_GAP)

    def seconds(tick: int) -> float:
        return (tick - start) / FREQUENCY

    for name in journey.origins:
        bottom = lanes[name] * height
        axes.plot((0, length), (bottom, bottom + length), color=colours[name], linewidth=1, alpha=0.6)

    stays = _stays(journey)
    guest_bottom = lanes["guest"] * height
    axes.plot((0, length), (guest_bottom, guest_bottom + length), color=_GUEST, linewidth=0.8, linestyle="--")
    for number, (host, begin, finish) in enumerate(stays):
        there = (seconds(begin), seconds(finish))
        bottom = lanes[host] * height
        axes.plot(there, [bottom + s for s in there], color=colours[host], linewidth=5, solid_capstyle="butt")
        readings = _guest_seconds(journey, number, begin, finish)
        axes.plot(
            there, [guest_bottom + s for s in readings], color=_GUEST, linewidth=3, solid_capstyle="butt"
        )
        middle = sum(there) / 2
        axes.plot(
            (middle, middle),
            (bottom + middle, guest_bottom + middle),
            color=colours[host],
            linewidth=0.8,
            linestyle=":",
        )
    for hop in journey.hops:
        axes.axvspan(seconds(hop.stopped_at), seconds(hop.resumed_at), color="0.9", zorder=0)

    for name, place in lanes.items():
        axes.text(
            -0.012 * length,
            place * height + length / 2,
            f"{'the guest' if name == 'guest' else 'host ' + name}\n{years(values[name])}",
            ha="right",
            va="center",
            color=colours.get(name, _GUEST),
            fontweight="bold",
            fontsize=9,
        )
    ordered = sorted(values, key=values.__getitem__)
    for lower, upper in itertools.pairwise(ordered):
        _break_axis(
            axes, length, lanes[lower] * height + length, height, years(values[upper] - values[lower])
        )
    axes.set_xlim(0, length)
    axes.set_ylim(-0.1 * length, len(lanes) * height - _LANE_GAP * length + 0.1 * length)
    axes.set_yticks([])
    axes.set_xlabel("time that really passed, s")
    axes.set_title(
        "Timebases: the hosts' lie years apart, the guest's own goes straight on through the moves\n"
        f"(each lane {length:.1f} s high, the axis broken between; thick: where the guest runs; "
        "dashed: its ideal; grey: moving)",
        fontsize=10,
        loc="left",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)


def _break_axis(axes: Axes, length: float, top_of_lane: float, height: float, gap: str) -> None:
    middle = top_of_lane + (height - length) / 2
    axes.plot((0, length), (middle, middle), color="0.6", linewidth=0.8, linestyle=(0, (2, 6)))
    axes.text(
        length * 0.995,
        middle,
        f"≈ {gap} not drawn ≈",
        ha="right",
        va="center",
        fontsize=7.5,
        color="0.35",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _stays(journey: Journey) -> list[tuple[str, int, int]]:
    """Return where the guest was: (host, from tick, to tick)."""
    hosts = [journey.born_on, *(hop.to_host for hop in journey.hops)]
    begins = [journey.born_at, *(hop.resumed_at for hop in journey.hops)]
    finishes = [*(hop.stopped_at for hop in journey.hops), journey.ended_at]
    return list(zip(hosts, begins, finishes, strict=True))


def _guest_seconds(journey: Journey, stay: int, begin: int, finish: int) -> tuple[float, float]:
    """Return the advance of the guest's timebase at both ends of a stay, by its records."""
    if stay == 0:
        return 0.0, (finish - begin) / FREQUENCY
    first = journey.hops[stay - 1].record.guest_tb_after - journey.born_time.value
    return first / FREQUENCY, (first + finish - begin) / FREQUENCY


def _draw_errors(axes: Axes, journey: Journey, limit: Ticks) -> None:
    ours = [0.0, *(_ms(error) for error in journey.errors())]
    theirs = [0.0, *(_ms(error) for error in journey.errors_by(always_round_up))]
    hops = range(len(ours))
    bound = _ms(limit)
    style: dict[str, Any] = {"where": "post", "linewidth": 1}
    axes.axhspan(-bound, bound, color=_BAND, alpha=0.25, label=f"the limit, ±{bound:.1f} ms")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.step(hops, theirs, color=_OTHER_RULE, **style)
    axes.plot(hops, theirs, "^", color=_OTHER_RULE, label="always rounded up (the same moves)")
    axes.step(hops, ours, color=_GUEST, **style)
    axes.plot(hops, ours, "o", color=_GUEST, label="this guest")
    for values, colour in ((theirs, _OTHER_RULE), (ours, _GUEST)):
        axes.annotate(
            f"{values[-1]:+z.1f} ms",
            (hops[-1], values[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_xlim(-0.2, len(ours) - 0.1)
    axes.set_xticks(list(hops))
    labels = [journey.born_on, *(f"{hop.to_host}" for hop in journey.hops)]
    axes.set_xticklabels([f"{n}\n{label}" for n, label in enumerate(labels)], fontsize=8)
    axes.set_xlabel("moves, and the host that each went to")
    axes.set_ylabel("the guest's clock less its ideal, ms")
    axes.set_title("The guest's clock against its ideal, after each move", fontsize=10, loc="left")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _ms(ticks: Ticks) -> float:
    return ticks.seconds * 1000
