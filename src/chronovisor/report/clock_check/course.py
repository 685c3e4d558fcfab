"""One clock of the guest over a whole run: stretches of steady time, and the steps between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from chronovisor.report.clock_check.floor import RATE_LIMIT, WINDOW, Bounds, Fit, Floor

SETTLE_NS: Final = 2_000_000_000
"""A stretch counts once its lines have come for so long; what is shorter may be a delay."""
_SETTLE_LINES: Final = 2 * WINDOW
MOST_STRETCHES: Final = 200
"""Stretches that are kept of a clock; later ones are only counted."""
_DELAY_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time in which the clock did not step, as far as the lines tell."""

    fit: Fit
    seen_at: int
    """Host's nanoseconds when the first line arrived that is likely to belong here."""
    first_at: int
    """The same for the first line that surely belongs here."""
    last_at: int
    first_seq: int
    last_seq: int
    begins_anew: bool
    """Whether the guest was started anew just before: no step is looked for there."""

    @property
    def rate(self) -> Bounds | None:
        """The clock's rate against the host's less 1, or None if the lines do not say."""
        slope = self.fit.slope
        if slope.low <= -RATE_LIMIT or slope.high >= RATE_LIMIT:
            return None
        return Bounds(-slope.high, -slope.low)


@dataclass(frozen=True, slots=True)
class Step:
    """A clock went forward (positive) or fell back against the host's clock, all at once."""

    size: Bounds
    """Nanoseconds."""
    after_seq: int
    before_seq: int
    """The step came after sample `after_seq` and before `before_seq` had arrived."""
    at: int
    """Host's nanoseconds when the first line that shows it arrived."""


@dataclass(frozen=True, slots=True)
class Held:
    """Lines came late for a time: they were held up, or the clock fell back and then caught up exactly."""

    since: int
    until: int
    """Host's nanoseconds."""
    by: float
    """Nanoseconds by which the lines were late at least."""


class _Growing:
    """A stretch that still grows. The newest lines wait: if a step is seen, they may belong to either side
    of it.
    """

    def __init__(self, allowance: int, begins_anew: bool, unsure: int = 0) -> None:
        self.floor = Floor(allowance)
        self.begins_anew = begins_anew
        self._seen_at: int | None = None
        self._unsure = unsure
        """Lines still to come that may belong to the stretch before."""
        self.lines = 0
        self.first_at = self.last_at = self.first_seq = self.sure_seq = 0
        self._waiting: deque[tuple[int, int, int]] = deque()

    def take(self, seq: int, at: int, lag: int) -> None:
        if self._seen_at is None:
            self._seen_at = at
        if self._unsure:
            self._unsure -= 1
            return
        if not self.lines:
            self.first_at, self.first_seq, self.sure_seq = at, seq, seq
        self.lines += 1
        self.last_at = at
        self._waiting.append((seq, at, lag))
        if len(self._waiting) > WINDOW:
            self._let_in()

    def flush(self) -> None:
        """Let the waiting lines in: there was no step."""
        while self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        self.sure_seq, at, lag = self._waiting.popleft()
        self.floor.add(at, lag)

    @property
    def settled(self) -> bool:
        return (
            self.lines >= _SETTLE_LINES
            and self.last_at - self.first_at >= SETTLE_NS
            and self.floor.fit() is not None
        )

    def stretch(self) -> Stretch:
        fit, last = self.floor.fit(), self.floor.last
        assert fit is not None
        assert last is not None
        assert self._seen_at is not None
        return Stretch(
            fit, self._seen_at, self.first_at, last, self.first_seq, self.sure_seq, self.begins_anew
        )


class Course:
    """Follows a clock line by line. `smallest` is the smallest step that is looked for, in nanoseconds.

    `allowance` is F's first part, in nanoseconds: see the module `floor`.
    """

    def __init__(self, smallest: int, allowance: int) -> None:
        self._smallest, self._allowance = smallest, allowance
        self.stretches: list[Stretch] = []
        self.uncounted = 0
        """Stretches beyond those that are kept."""
        self._delays: list[Held] = []
        self._current = _Growing(allowance, begins_anew=True)
        self._candidate: _Growing | None = None

    def add(self, seq: int, at: int, lag: int) -> None:
        """Take a line: the sample's number, when it arrived, and its lag, both in nanoseconds."""
        fit = self._current.floor.fit()
        if fit is None:
            self._current.take(seq, at, lag)
            return
        expected, reach = fit.expected(at), self._reach(fit)
        if lag < expected.low - reach:
            # No line arrives before it is sent: the clock went forward.
            self._end_current(_Growing(self._allowance, begins_anew=False))
            self._current.take(seq, at, lag)
        elif lag <= expected.high + reach:
            if self._candidate is not None:
                self._drop(self._candidate)
            self._current.take(seq, at, lag)
        else:
            self._late(seq, at, lag)

    def start_anew(self) -> None:
        """The guest was started anew: its clocks begin again, and that is no step."""
        self._finish_current()
        self._current = _Growing(self._allowance, begins_anew=True)

    def finish(self) -> tuple[list[Step], list[Held]]:
        """Return the steps, and the times in which lines were late. No lines may follow."""
        self._finish_current()
        steps: list[Step] = []
        held = list(self._delays)
        kept: list[Stretch] = []
        for stretch in self.stretches:
            if (
                not stretch.begins_anew
                and len(kept) > 1
                and steps[-1:]
                and steps[-1].size.high < 0
                and _goes_on(kept[-2], stretch)
            ):
                # The clock seemed to fall back, and to go forward by the same later.
                by = -_step(kept[-2], kept[-1]).size.high
                held.append(Held(kept[-1].seen_at, stretch.seen_at, by))
                del kept[-1]
                steps.pop()
            elif kept and not stretch.begins_anew:
                steps.append(_step(kept[-1], stretch))
            kept.append(stretch)
        return [step for step in steps if not step.size.low <= 0 <= step.size.high], held

    def _late(self, seq: int, at: int, lag: int) -> None:
        """Take a line that is late. If all lines are from now on, the clock fell back."""
        candidate = self._candidate
        fit = candidate.floor.fit() if candidate is not None else None
        if candidate is None or (fit is not None and lag < fit.expected(at).low - self._reach(fit)):
            # Lines that were held up arrive less and less late. The first late lines may have been sent
            # before the clock fell back.
            candidate = self._candidate = _Growing(self._allowance, begins_anew=False, unsure=WINDOW - 1)
        candidate.take(seq, at, lag)
        if candidate.settled:
            self._end_current(candidate)

    def _reach(self, fit: Fit) -> float:
        return max(self._smallest, 2 * (self._allowance + fit.spread))

    def _drop(self, candidate: _Growing) -> None:
        if candidate.last_at - candidate.first_at >= _DELAY_NS and len(self._delays) < MOST_STRETCHES:
            self._delays.append(Held(candidate.first_at, candidate.last_at, self._smallest))
        self._candidate = None

    def _end_current(self, following: _Growing) -> None:
        # Lines that came before the console had settled say nothing about a step.
        if self._current.settled:
            self._keep(self._current.stretch())
        else:
            following.begins_anew = self._current.begins_anew
        self._current, self._candidate = following, None

    def _finish_current(self) -> None:
        self._candidate = None
        self._current.flush()
        if self._current.floor.fit() is not None:
            self._keep(self._current.stretch())

    def _keep(self, stretch: Stretch) -> None:
        if len(self.stretches) < MOST_STRETCHES:
            self.stretches.append(stretch)
        else:
            self.uncounted += 1


def _step(before: Stretch, after: Stretch) -> Step:
    """Compare two stretches where they meet. The clock may have stepped at any moment between them."""
    moments = (before.last_at, after.first_at)
    sizes = [(before.fit.lag(at), after.fit.lag(at)) for at in moments]
    size = Bounds(
        min(old.low - new.high for old, new in sizes), max(old.high - new.low for old, new in sizes)
    )
    return Step(size, before.last_seq, after.first_seq, after.seen_at)


def _goes_on(before: Stretch, after: Stretch) -> bool:
    step = _step(before, after)
    return step.size.low <= 0 <= step.size.high
