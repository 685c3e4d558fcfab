"""The picture of traces: guest time against host time, exits by reason, and stays on cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from chronovisor.report.trace.summary import Summary, guest_course, offsets
from chronovisor.timebase.types import Ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind eyes can tell apart.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MOVE: Final = "#D55E00"
_MOST_REASONS: Final = 12
"""Reasons that have a bar of their own."""
_SECOND: Final = 1e9


def draw(summary: Summary, path: Path) -> None:
    """Write the picture to `path` (PNG, SVG, or what its suffix says).

    Raises OSError if the file cannot be written, ValueError if its suffix names no kind of picture.
    """
    # Imported here: it takes half a second, and a Power host has none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reasons = _reasons(summary)
    heights = (3.0, 0.8 + 0.3 * len(summary.vcpus), 0.8 + 0.25 * len(reasons))
    figure = Figure(figsize=(11, 1 + sum(heights)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    course, stays, exits = figure.subplots(3, 1, height_ratios=heights)
    _draw_course(course, summary)
    _draw_stays(stays, summary)
    stays.sharex(course)
    _draw_exits(exits, reasons)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _draw_course(axes: Axes, summary: Summary) -> None:
    """Draw guest time against host time, a line a vCPU, and what moved it."""
    _draw_interruptions(axes, summary)
    readings = [reading for vcpu in summary.vcpus for reading in vcpu.readings]
    if readings:
        first = min(readings, key=lambda reading: reading.ns)
        for place, vcpu in enumerate(summary.vcpus):
            times, values = zip(*guest_course(vcpu, first), strict=True) if vcpu.readings else ((), ())
            seconds = [_seconds(summary, ns) for ns in times]
            # One under the other: the vCPUs of a guest all lie on one line.
            width = 1.5 + 2 * (len(summary.vcpus) - 1 - place)
            axes.plot(
                seconds, values, color=_colour(place), linewidth=width, label=_plain(summary.name(vcpu))
            )
            for ns, step in offsets(vcpu):
                axes.annotate(
                    f"{Ticks(step).seconds:+.6f} s\nagainst its host",
                    (_seconds(summary, ns), 0.03),
                    xycoords=("data", "axes fraction"),
                    xytext=(4, 0),
                    textcoords="offset points",
                    fontsize=7,
                    color=_MOVE,
                )
        axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.set_ylabel("guest time, s")
    axes.set_title(
        "Guest time against host time (grey: the guest may not run; red: a move, dark its downtime)",
        fontsize=10,
        loc="left",
    )
    _finish(axes)


def _draw_interruptions(axes: Axes, summary: Summary) -> None:
    for begin, end in summary.pauses:
        axes.axvspan(_seconds(summary, begin), _seconds(summary, end), color="0.9", zorder=0)
    for move in summary.moves:
        axes.axvspan(
            _seconds(summary, move.begin), _seconds(summary, move.end), color=_MOVE, alpha=0.12, zorder=0
        )
        if move.downtime is not None:
            begin, end = move.downtime
            axes.axvspan(_seconds(summary, begin), _seconds(summary, end), color=_MOVE, alpha=0.35, zorder=0)


def _draw_stays(axes: Axes, summary: Summary) -> None:
    """Draw a lane for each vCPU: where it was in the guest, in the colour of the core."""
    _draw_interruptions(axes, summary)
    cores = sorted({stay.core for vcpu in summary.vcpus for stay in vcpu.stays})
    for lane, vcpu in enumerate(summary.vcpus):
        for core in cores:
            bars = [
                (_seconds(summary, stay.begin), (stay.end - stay.begin) / _SECOND)
                for stay in vcpu.stays
                if stay.core == core
            ]
            axes.broken_barh(bars, (lane - 0.35, 0.7), facecolors=_colour(core), linewidth=0)
        counted = [(_seconds(summary, begin), (end - begin) / _SECOND) for begin, end in vcpu.counted_runs]
        axes.broken_barh(counted, (lane - 0.35, 0.7), facecolors="0.6", linewidth=0)
    axes.set_yticks(
        range(len(summary.vcpus)), [_plain(summary.name(vcpu)) for vcpu in summary.vcpus], fontsize=8
    )
    axes.set_ylim(len(summary.vcpus) - 0.4, -0.6)
    for core in cores:
        axes.plot([], [], color=_colour(core), linewidth=6, label=f"core {core}")
    if any(vcpu.counted_runs for vcpu in summary.vcpus):
        axes.plot([], [], color="0.6", linewidth=6, label="only counted")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    axes.set_title("In the guest, by the core of the host", fontsize=10, loc="left")
    axes.set_xlabel("host time since the trace began, s")
    _finish(axes)


def _draw_exits(axes: Axes, reasons: dict[str, tuple[int, int]]) -> None:
    """Draw how often each hypercall was made, and each other exit, on a logarithmic axis."""
    for lane, (count, ns) in enumerate(reasons.values()):
        axes.barh(lane, count, color=_COLOURS[0], height=0.7)
        taken = f"{count:,}" + (f", {ns / count / 1000:.1f} µs each" if ns else "")
        axes.annotate(
            taken, (count, lane), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    most = max((count for count, _ in reasons.values()), default=0)
    if most > 0:
        axes.set_xscale("log")
        axes.set_xlim(0.8, 12 * most)
    axes.set_yticks(range(len(reasons)), [_plain(reason) for reason in reasons], fontsize=8)
    axes.invert_yaxis()
    axes.set_title("Exits and hypercalls, by reason", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _reasons(summary: Summary) -> dict[str, tuple[int, int]]:
    """How many exits there were for each reason on all vCPUs, and how long all answers took if told."""
    sums: dict[str, tuple[int, int]] = {}
    for vcpu in summary.vcpus:
        for reason, exits in vcpu.exits.items():
            count, ns = sums.get(reason, (0, 0))
            mean = exits.mean_ns or 0.0
            sums[reason] = count + exits.all, ns + round(mean * exits.all)
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])
    shown = dict(ordered[:_MOST_REASONS])
    if len(ordered) > _MOST_REASONS:
        shown["others"] = sum(count for _, (count, _) in ordered[_MOST_REASONS:]), 0
    return shown


def _plain(text: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _seconds(summary: Summary, ns: int) -> float:
    return (ns - summary.begin) / _SECOND


def _finish(axes: Axes) -> None:
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
