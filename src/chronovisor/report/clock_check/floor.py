"""What lines that arrive late say about a clock: its lag behind the host's clock, between two bounds.

A line's *lag* is the host's time at its arrival less the guest's time in it. The lag is what the guest's
clock is behind the host's, plus the line's delay, and a delay is never negative. So the true lag is never
above a measured lag, and the smallest measured lags, the *floor*, are the best. Nobody can measure from one
side how far the floor is above the truth. This module assumes:

    Of any `WINDOW` lines in a row, the fastest takes at most F longer than the fastest line ever does,
    unless all of them are visibly late.

F is the allowance that the user states (1 ms unless told otherwise) plus what the floor is seen to vary.
Under this assumption each window gives an upper and a lower bound of the true lag at one moment. The true
lag is a straight line in time until the clock steps. So the bounds of all windows together bound the line's
slope, which is the clock's rate, and its value at any moment.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Final, NamedTuple

WINDOW: Final = 8
"""Lines of which the fastest is taken."""
RATE_LIMIT: Final = 1e-3
"""A clock's rate is taken to differ from the host's by no more than this (1000 ppm) until it is measured."""
_KEPT: Final = 24
"""Windows that are kept of a floor; beyond that neighbours are merged."""
_OUTLIER: Final = 4
"""A window that is higher above the floor than so many times the median is visibly late."""


class Bounds(NamedTuple):
    """A value that is known to lie between two."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The best single guess."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> float:
        """The most by which `middle` can be wrong."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Window:
    """The fastest line of a window."""

    at: int
    """Host's nanoseconds."""
    lag: int
    """Nanoseconds; the true lag is not above it."""
    slack: float
    """Nanoseconds by which the fastest line may have been missed while the clock's rate was unknown."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The straight lines that a floor allows."""

    windows: tuple[Window, ...]
    lows: tuple[float, ...]
    """Each window's lower bound of the true lag; minus infinity if the window is visibly late."""
    slope: Bounds
    """Nanoseconds of lag per nanosecond of the host's."""
    spread: float
    """How far the fastest lines of windows vary, in nanoseconds."""
    from_low: float
    from_high: float
    """What the lines that bound the true lag after the last window are at the host's time 0."""

    def expected(self, at: float) -> Bounds:
        """Return the bounds of the true lag at a moment after the last window."""
        return Bounds(self.from_low + self.slope.low * at, self.from_high + self.slope.high * at)

    def lag(self, at: float) -> Bounds:
        """Return the bounds of the true lag at a moment of the host's."""
        low, high = -float("inf"), float("inf")
        for window, lower in zip(self.windows, self.lows, strict=True):
            ahead = at - window.at
            down, up = sorted((self.slope.low * ahead, self.slope.high * ahead))
            low, high = max(low, lower + down), min(high, window.lag + up)
        # They cross only if the assumption is broken.
        return Bounds(min(low, high), max(low, high))


class Floor:
    """The fastest lines of a stretch of time in which the clock does not step."""

    def __init__(self, allowance: int) -> None:
        self._allowance = allowance
        self._slope = Bounds(-RATE_LIMIT, RATE_LIMIT)
        self._windows: list[Window] = []
        self._open: list[tuple[int, int]] = []
        self._fit: Fit | None = None
        self.first: int | None = None
        self.last: int | None = None

    def add(self, at: int, lag: int) -> None:
        """Take a line, by its arrival and its lag."""
        self.first = at if self.first is None else self.first
        self.last = at
        self._open.append((at, lag))
        if len(self._open) == WINDOW:
            self._close()

    def fit(self) -> Fit | None:
        """Return what is known so far, or None if there is no whole window yet."""
        if self._fit is None and self._windows:
            self._fit = _fitted(self._windows, self._allowance)
            self._slope = self._fit.slope
        return self._fit

    @property
    def windows(self) -> tuple[Window, ...]:
        """The fastest lines, in order."""
        return tuple(self._windows)

    def _close(self) -> None:
        slope = self._slope.middle
        at, lag = min(self._open, key=lambda line: line[1] - slope * line[0])
        slack = self._slope.radius * (self._open[-1][0] - self._open[0][0])
        self._windows.append(Window(at, lag, slack))
        self._open.clear()
        if len(self._windows) > _KEPT:
            self._windows = [
                min(self._windows[n : n + 2], key=lambda each: each.lag - slope * each.at)
                for n in range(0, len(self._windows), 2)
            ]
        self._fit = None


def _fitted(windows: list[Window], allowance: int) -> Fit:
    """Find all straight lines below every window and at most F below each that is not visibly late."""
    slope = _floor_slope(windows)
    base = min(window.lag - slope * window.at for window in windows)
    above = [window.lag - slope * window.at - base for window in windows]
    visibly_late = max(allowance, _OUTLIER * statistics.median(above))
    spread = max(each for each in above if each <= visibly_late)
    reach = allowance + spread
    while True:
        lows = tuple(
            window.lag - reach - window.slack if each <= visibly_late else -float("inf")
            for window, each in zip(windows, above, strict=True)
        )
        bounds = _slopes(windows, lows)
        if bounds.low <= bounds.high:
            from_low = max(low - bounds.low * each.at for low, each in zip(lows, windows, strict=True))
            from_high = min(each.lag - bounds.high * each.at for each in windows)
            return Fit(tuple(windows), lows, bounds, spread, from_low, from_high)
        # The assumption is broken: the bounds have to be wider than it promises.
        reach *= 2


def _floor_slope(windows: list[Window]) -> float:
    """Return the slope of the line below all windows that is nearest to them on average.

    The line is an edge of their lower hull: the one above which their mean time lies (Moon, Skelly and
    Towsley 1999).
    """
    if len(windows) < 2:
        return 0.0
    hull: list[Window] = []
    for window in windows:
        while len(hull) > 1 and _rise(hull[-2], hull[-1]) >= _rise(hull[-2], window):
            hull.pop()
        hull.append(window)
    mean = statistics.fmean(window.at for window in windows)
    for left, right in itertools.pairwise(hull):
        if right.at >= mean:
            return _rise(left, right)
    return 0.0


def _rise(left: Window, right: Window) -> float:
    return (right.lag - left.lag) / max(1, right.at - left.at)


def _slopes(windows: list[Window], lows: tuple[float, ...]) -> Bounds:
    """Return the slopes of all lines between the windows' lower and upper bounds."""
    least, most = -RATE_LIMIT, RATE_LIMIT
    points = [(window.at, low, window.lag) for window, low in zip(windows, lows, strict=True)]
    for (at, low, high), (later, later_low, later_high) in itertools.combinations(points, 2):
        time = max(1, later - at)
        rise = (later_low - high) / time
        if rise > least:
            least = rise
        rise = (later_high - low) / time
        if rise < most:
            most = rise
    return Bounds(least, most)
