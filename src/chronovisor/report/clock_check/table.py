"""The report of a check for people: tables and lines for a terminal or a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chronovisor.report.clock_check.floor import Bounds
from chronovisor.report.clock_check.report import NAMES, Report

_SHOWN: Final = 10
"""Rows of a table of events; JSON has more."""


def tables(report: Report) -> Iterator[RenderableType]:
    """Return what to print, top down. All text from the guest is plain: no markup, no control characters."""
    yield Text("\n".join(_head(report)))
    if report.rates:
        yield _rates(report)
    if report.steps:
        yield _steps(report)
    events = [*_backs(report), *_disagreements(report), *_silences(report), *_kernel(report)]
    if events:
        yield Text("\n".join(events) + "\n")
    yield Text("\n".join(_tail(report)))


def _head(report: Report) -> Iterator[str]:
    hello = report.hello
    if hello is not None:
        vdso = "" if hello.vdso else ", no vDSO"
        frequency = f"counter {hello.frequency / 1e6:.6g} MHz" if hello.frequency else "counter unknown"
        yield f"guest: {hello.arch}, Linux {hello.kernel}, {hello.cpus} CPUs, {frequency}{vdso}"
    seconds = "" if report.seconds is None else f" in {report.seconds:.1f} s"
    damage = "".join(
        f", {count} {what}"
        for count, what in (
            (report.missing, "missing"),
            (report.torn, "damaged lines"),
            (report.overlong, "overlong lines"),
        )
        if count
    )
    yield f"{report.samples} samples from {report.cpus} CPUs{seconds}{damage}"
    if report.seconds is None and report.samples:
        yield "the lines have no times of arrival: only what the guest itself saw is checked"
    timers = report.timers
    yield (
        f"timers: {timers.fired} fired, {timers.early} early, {timers.lost} lost, {timers.late} late, "
        f"the latest by {timers.worst_late_ns / 1e6:.3f} ms (sample {timers.worst_seq}); "
        f"{timers.skipped} had no chance"
    )
    yield f"coarse clocks: at most {report.coarse_ns / 1e6:.3f} ms behind"


def _rates(report: Report) -> Table:
    table = _table("clock", "rate, ppm", "bounds, ppm", "over, s")
    for rate in report.rates:
        cells = ("not measured", "") if rate.ppm is None else _measured(rate.ppm, 1, 3)
        table.add_row(NAMES[rate.clock], *cells, f"{rate.seconds:.1f}")
    return table


def _steps(report: Report) -> Table:
    table = _table("step at, s", "samples", "by, ms", "bounds, ms", "clocks")
    for step in report.steps[:_SHOWN]:
        names = "all" if len(step.clocks) == len(report.rates) else ", ".join(NAMES[c] for c in step.clocks)
        samples = f"{step.after_seq} to {step.before_seq}"
        table.add_row(f"{step.seconds:.3f}", samples, *_measured(step.ns, 1e-6, 3), names)
    more = len(report.steps) + report.more_steps - _SHOWN
    if more > 0:
        table.add_row("", "", f"and {more} more", "", "")
    return table


def _measured(value: Bounds, scale: float, digits: int) -> tuple[str, str]:
    low, high = value.low * scale, value.high * scale
    return f"{value.middle * scale:+.{digits}f}", f"{low:+.{digits}f} to {high:+.{digits}f}"


def _backs(report: Report) -> Iterator[str]:
    for back in report.back_lines[:_SHOWN]:
        unit = "ticks" if back.clock == "tb" else "ns"
        yield (
            f"{NAMES.get(back.clock, back.clock)} went back by {back.before - back.after} {unit}, from "
            f"{back.before} to {back.after} (sample {back.seq}, CPU {back.cpu}, read by {back.via})"
        )
    yield from _more(report.backs, min(len(report.back_lines), _SHOWN), "readings that went back")


def _disagreements(report: Report) -> Iterator[str]:
    for each in report.disagreements[:_SHOWN]:
        if each.clock in ("monoc", "realc"):
            what = "was ahead of its fine clock by"
        else:
            what = "and MONOTONIC advanced by different times, the former more by"
        yield (
            f"{NAMES[each.clock]} {what} {each.ns / 1e6:+.3f} ms at sample {each.seq} "
            f"(±{each.bound_ns / 1e6:.3f} ms can be explained)"
        )
    total = len(report.disagreements) + report.more_disagreements
    yield from _more(total, min(len(report.disagreements), _SHOWN), "disagreements")


def _silences(report: Report) -> Iterator[str]:
    for each in report.silences[:_SHOWN]:
        yield (
            f"no line for {each.host_ns / 1e9:.3f} s until {each.seconds:.3f} s (sample {each.seq}); "
            f"the guest's MONOTONIC advanced by {each.guest_ns / 1e9:.3f} s"
        )
    total = len(report.silences) + report.more_silences
    yield from _more(total, min(len(report.silences), _SHOWN), "times without a line")
    for held in report.held[:_SHOWN]:
        yield (
            f"from {held.since / 1e9:.3f} to {held.until / 1e9:.3f} s lines came at least "
            f"{held.by / 1e6:.1f} ms late, or the clocks fell back by that and caught up; this is no fault"
        )


def _kernel(report: Report) -> Iterator[str]:
    for line in report.kernel_lines[:_SHOWN]:
        at = "" if line.seconds is None else f" at {line.seconds:.3f} s"
        yield f"kernel{at}, {line.kind}: {line.text}"
    total = sum(report.complaints.values())
    yield from _more(total, min(len(report.kernel_lines), _SHOWN), "complaints of the kernel")


def _more(total: int, shown: int, what: str) -> Iterator[str]:
    if shown < total:
        yield f"and {total - shown} more {what}"


def _tail(report: Report) -> Iterator[str]:
    faults = report.faults
    yield "faults: " + "; ".join(faults) if faults else "no faults"
    if report.samples and not report.finished:
        yield "the guest's half did not say that it was done"


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("clock", "clocks") else "right")
    return table
