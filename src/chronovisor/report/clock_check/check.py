"""The check: takes the console line by line, and follows every clock."""

from __future__ import annotations

from typing import Final

from chronovisor.report.clock_check.course import Course
from chronovisor.report.clock_check.kernel import complaint, shown
from chronovisor.report.clock_check.lines import CLOCKS, COARSE, Back, Bye, Hello, Line, Sample, Torn, parse
from chronovisor.report.clock_check.report import (
    ClockRate,
    ClockStep,
    Disagreement,
    KernelLine,
    Limits,
    Points,
    Report,
    Silence,
)

_LISTED: Final = 50
"""Events of a kind that are listed; later ones are only counted."""
_SLEW: Final = 500e-6
"""NTP may have MONOTONIC run faster or slower than the hardware by this."""
_RESOLUTION_NS: Final = 1_000
_POINTS: Final = 4_000
"""Points of a clock that are kept for the picture; beyond that every other one is dropped."""
_U64: Final = 1 << 64


class ClockCheck:
    """Takes a guest's console and follows the clocks in it. Feed `line`, then ask for `report` once."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._report = Report(self._limits)
        self._courses: dict[str, Course] = {}
        self._first: Sample | None = None
        self._last: Sample | None = None
        self._last_at: int | None = None
        self._begun: int | None = None
        self._cpus: set[int] = set()
        self._point_step, self._until_point = 1, 0

    @property
    def finished(self) -> bool:
        """Whether the guest's half has said that it is done."""
        return self._report.finished

    @property
    def samples(self) -> int:
        """How many samples were read so far."""
        return self._report.samples

    def line(self, text: bytes, at: int | None, cut: bool = False) -> None:
        """Take a line of the console, and when it arrived, in nanoseconds of a clock that never steps.

        `at` is None if nobody knows; then only what the guest itself saw is checked. `cut` says that the line
        was longer than `text`.
        """
        self._report.overlong += cut
        said = parse(text)
        if said is None:
            kind = complaint(text)
            if kind is not None:
                self._complain(kind, text, at)
            return
        self._take(said, at)

    def report(self) -> Report:
        """Return what was found. No lines may follow."""
        report = self._report
        report.cpus = len(self._cpus)
        if self._begun is not None and self._last_at is not None:
            report.seconds = (self._last_at - self._begun) / 1e9
        single: list[ClockStep] = []
        for clock, course in self._courses.items():
            steps, held = course.finish()
            single += [ClockStep.of(clock, step) for step in steps]
            report.more_steps += course.uncounted
            if clock == "mono":
                report.held = held[:_LISTED]
            self._rate(clock, course)
        steps_of_all = _together(single)
        report.steps = steps_of_all[:_LISTED]
        report.more_steps += len(steps_of_all) - len(report.steps)
        return report

    def _take(self, said: Line, at: int | None) -> None:
        report = self._report
        match said:
            case Torn():
                report.torn += 1
            case Hello():
                report.hello = report.hello or said
                if self._last is not None:
                    self._start_anew()
            case Sample():
                self._sample(said, at)
            case Back():
                if len(report.back_lines) < _LISTED:
                    report.back_lines.append(said)
            case Bye():
                report.finished = True

    def _sample(self, sample: Sample, at: int | None) -> None:
        report, last = self._report, self._last
        if last is not None and sample.seq <= last.seq:
            self._start_anew()
            last = None
        if last is not None:
            report.missing += sample.seq - last.seq - 1
            self._compare(last, sample)
            self._listen(last, sample, at)
        self._timer(last, sample)
        report.samples += 1
        if len(self._cpus) < _POINTS:
            self._cpus.add(sample.cpu)
        if at is not None:
            self._follow(sample, at)
        self._last, self._last_at = sample, at

    def _start_anew(self) -> None:
        self._report.restarts += 1
        self._first = self._last = None
        for course in self._courses.values():
            course.start_anew()

    def _timer(self, last: Sample | None, sample: Sample) -> None:
        timers = self._report.timers
        timers.fired += 1
        timers.early += sample.late < 0
        timers.late += sample.late > self._limits.late
        timers.lost += max(0, sample.lost - (last.lost if last else 0))
        timers.skipped += max(0, sample.skipped - (last.skipped if last else 0))
        self._report.backs += max(0, sample.backs - (last.backs if last else 0))
        if sample.late > timers.worst_late_ns:
            timers.worst_late_ns, timers.worst_seq = sample.late, sample.seq

    def _listen(self, last: Sample, sample: Sample, at: int | None) -> None:
        """Notice a time without lines. A guest whose samples are rarer than the limit is given more."""
        if at is None or self._last_at is None:
            return
        silent = at - self._last_at
        if silent <= max(self._limits.silence, 2 * sample.interval * (sample.seq - last.seq)):
            return
        if len(self._report.silences) == _LISTED:
            self._report.more_silences += 1
            return
        advanced = sample.clocks["mono"] - last.clocks["mono"]
        seconds = (at - (self._begun or 0)) / 1e9
        self._report.silences.append(Silence(seconds, sample.seq, silent, advanced))

    def _compare(self, last: Sample, sample: Sample) -> None:
        """Compare what each clock advanced by with MONOTONIC."""
        advanced = sample.clocks["mono"] - last.clocks["mono"]
        bound = round(_SLEW * abs(advanced) + _span_ns(last) + _span_ns(sample) + _RESOLUTION_NS)
        others = {
            clock: sample.clocks[clock] - last.clocks[clock]
            for clock in CLOCKS
            if clock in sample.clocks and clock in last.clocks
        }
        if sample.frequency and sample.frequency == last.frequency:
            others["tb"] = _ticks(last, sample) * 1_000_000_000 // sample.frequency
        for clock, other in others.items():
            if abs(other - advanced) > bound:
                self._disagree(clock, sample, other - advanced, bound)
        for coarse, fine in COARSE.items():
            if coarse in sample.clocks and fine in sample.clocks:
                behind = sample.clocks[fine] - sample.clocks[coarse]
                bound = round(_span_ns(sample) + _RESOLUTION_NS)
                if behind < -bound:
                    self._disagree(coarse, sample, -behind, bound)
                self._report.coarse_ns = max(self._report.coarse_ns, behind)

    def _disagree(self, clock: str, sample: Sample, by: int, bound: int) -> None:
        if len(self._report.disagreements) < _LISTED:
            self._report.disagreements.append(Disagreement(clock, sample.seq, by, bound))
        else:
            self._report.more_disagreements += 1

    def _follow(self, sample: Sample, at: int) -> None:
        """Compare each clock with the host's."""
        if self._begun is None:
            self._begun = at
        first = self._first = self._first or sample
        times = {
            clock: sample.clocks[clock] - first.clocks[clock]
            for clock in CLOCKS
            if clock in sample.clocks and clock in first.clocks
        }
        if sample.frequency:
            times["tb"] = _ticks(first, sample) * 1_000_000_000 // sample.frequency
        for clock, now in times.items():
            course = self._courses.get(clock)
            if course is None:
                course = self._courses[clock] = Course(self._limits.step, self._limits.allowance)
            course.add(sample.seq, at - self._begun, at - self._begun - now)
        self._draw(times, at - self._begun)

    def _draw(self, times: dict[str, int], at: int) -> None:
        if self._until_point:
            self._until_point -= 1
            return
        self._until_point = self._point_step - 1
        for clock, now in times.items():
            points = self._report.points.setdefault(clock, Points())
            points.seconds.append(at / 1e9)
            points.ahead_ms.append((now - at) / 1e6)
        if any(len(points.seconds) > _POINTS for points in self._report.points.values()):
            self._point_step *= 2
            for points in self._report.points.values():
                del points.seconds[1::2], points.ahead_ms[1::2]

    def _complain(self, kind: str, text: bytes, at: int | None) -> None:
        report = self._report
        report.complaints[kind] = report.complaints.get(kind, 0) + 1
        if len(report.kernel_lines) < _LISTED:
            begun = self._begun
            seconds = (at - begun) / 1e9 if at is not None and begun is not None else None
            report.kernel_lines.append(KernelLine(kind, shown(text), seconds))

    def _rate(self, clock: str, course: Course) -> None:
        rates = [
            ClockRate(
                clock,
                None if (rate := stretch.rate) is None else type(rate)(rate.low * 1e6, rate.high * 1e6),
                (stretch.last_at - stretch.first_at) / 1e9,
            )
            for stretch in course.stretches
        ]
        if rates:
            self._report.rates.append(max(rates, key=lambda rate: rate.seconds))
        limit = self._limits.rate_ppm
        self._report.fast += [
            rate for rate in rates if rate.ppm and (rate.ppm.low > limit or rate.ppm.high < -limit)
        ]


def _ticks(earlier: Sample, later: Sample) -> int:
    """Return the counter's advance in ticks; negative if it went back."""
    ticks = (later.counter - earlier.counter) % _U64
    return ticks - _U64 if ticks >= _U64 // 2 else ticks


def _span_ns(sample: Sample) -> float:
    return sample.span / sample.frequency * 1e9 if sample.frequency else 1e6


def _together(steps: list[ClockStep]) -> list[ClockStep]:
    """Join the steps that clocks made at the same time by the same amount, as far as the bounds tell."""
    joined: list[ClockStep] = []
    for step in sorted(steps, key=lambda step: step.before_seq):
        for n, other in enumerate(joined):
            low, high = max(step.ns.low, other.ns.low), min(step.ns.high, other.ns.high)
            apart = step.after_seq >= other.before_seq or other.after_seq >= step.before_seq
            if not apart and low <= high and step.clocks[0] not in other.clocks:
                joined[n] = ClockStep(
                    (*other.clocks, *step.clocks),
                    other.seconds,
                    max(step.after_seq, other.after_seq),
                    min(step.before_seq, other.before_seq),
                    type(step.ns)(min(step.ns.low, other.ns.low), max(step.ns.high, other.ns.high)),
                )
                break
        else:
            joined.append(step)
    return joined
