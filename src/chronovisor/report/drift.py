"""The drift experiment: what thousands of moves do to a guest's clock under our rule and under simpler ones.

All in virtual time and in whole ticks, so the truth is known: a guest's error is its time less what it would
be had it never moved, by the one clock that all hosts here count with. Hosts have random origins; a move
takes a random downtime, and the messages READY and COMMIT fly for random times over a path that may take
longer one way than the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT, Absence, Exchange, IdealInterval, Sample, plan
from chronovisor.timebase.simple_rules import always_round_up
from chronovisor.timebase.types import GRANULE, LOW_MASK, MASK64, GuestTime, HostTime, Offset, Ticks

_US: Final = 512
_MS: Final = 512_000
HOPS: Final = 10_000
DOWNTIMES_MS: Final = (2, 200)
"""Mean downtimes. The short one is the hard case, and real destinations reach it."""
BIAS_US: Final = 50
"""How much longer READY takes than COMMIT on the uneven path."""
FLIGHT_US: Final = (50, 500)
"""The flight of either on a local network."""
DISAGREEMENT_MS: Final = 5
"""The largest error of a host's time of day, either way, as it is common without special care."""


@dataclass(frozen=True, slots=True)
class Move:
    """One move as it really happened; all in ticks."""

    stopped: GuestTime
    """The guest's time when it was stopped."""
    downtime: int
    """From the stop to the sending of COMMIT."""
    ready: int
    """The flight of READY."""
    commit: int
    """The flight of COMMIT."""
    now: HostTime
    """The destination's time when COMMIT arrives."""
    clock_error: int
    """How far the destination's time of day is ahead of the source's."""

    @property
    def elapsed(self) -> int:
        """From the stop to the arrival of COMMIT."""
        return self.downtime + self.commit


class Rule(Protocol):
    """A rule to choose the offset, with its memory from move to move."""

    def choose(self, move: Move) -> tuple[Offset, int]:
        """Return the offset, and how long after COMMIT the guest waits for it (ticks)."""

    @property
    def interval(self) -> IdealInterval | None:
        """The interval that the rule states for the guest's error, or None if it states none."""


class RoundUp:
    """(a) The exact offset, rounded up, and read again at the next move. It is told the true time elapsed."""

    interval = None

    def choose(self, move: Move) -> tuple[Offset, int]:
        """Round up."""
        return always_round_up(move.stopped, Ticks(move.elapsed), move.now), 0


class KeepRequest:
    """(b) The exact offset, rounded up by the kernel. The owner continues with the offset that it asked for.

    It is told the true time elapsed.
    """

    interval = None

    def __init__(self) -> None:
        self._ahead = Ticks(0)
        """What the kernel's rounding added to the offset asked for."""

    def choose(self, move: Move) -> tuple[Offset, int]:
        """Continue from the offset asked for at the last move, not from what the guest saw."""
        asked = move.stopped - self._ahead + Ticks(move.elapsed)
        self._ahead = Ticks((move.now.value - asked.value) & LOW_MASK)
        return Offset.rounded_up(asked.value - move.now.value), 0


class WallClock:
    """(c) The time elapsed from the hosts' times of day, at least 0; otherwise as ours."""

    interval = None

    def __init__(self) -> None:
        self._ideal = IdealInterval()

    def choose(self, move: Move) -> tuple[Offset, int]:
        """Trust the times of day."""
        elapsed = max(0, move.elapsed + move.clock_error)
        decided = plan(Sample(move.stopped, self._ideal), Absence(elapsed, elapsed, move.now))
        self._ideal = decided.ideal
        return decided.offset, decided.wait.value


class Ours:
    """(d), (e) The time elapsed from the exchange that commits the move, and the ideal carried along."""

    def __init__(self) -> None:
        self.interval = IdealInterval()

    def choose(self, move: Move) -> tuple[Offset, int]:
        """Plan the move as a destination does."""
        exchange = Exchange(
            since_sample=Ticks(move.downtime),
            dwell=Ticks(0),
            ready_to_commit=Ticks(move.ready + move.commit),
            committed=move.now,
        )
        decided = plan(Sample(move.stopped, self.interval), exchange)
        self.interval = decided.ideal
        return decided.offset, decided.wait.value


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule, and the hosts on which it is tried."""

    letter: str
    words: str
    rule: Callable[[], Rule]
    in_phase: bool = False
    """Whether the hosts' origins agree in their low 24 bits."""


CONTENDERS: Final = (
    Contender("a", "rounded up and read again", RoundUp),
    Contender("b", "rounded up, the request kept", KeepRequest),
    Contender("c", f"times of day that are off by ±{DISAGREEMENT_MS} ms", WallClock),
    Contender("d", "ours", Ours),
    Contender("e", "ours, hosts in phase", Ours, in_phase=True),
)


@dataclass
class Course:
    """The course of a guest's clock; all in ticks, with one list entry for each hop."""

    contender: Contender
    downtime_ms: int
    bias_us: int
    errors: list[int] = field(default_factory=list)
    """The guest's true error."""
    advances: list[int] = field(default_factory=list)
    """The advance of its timebase from stop to start, negative if it stepped back."""
    steps: list[int] = field(default_factory=list)
    """The error that the hop added."""
    waits: list[int] = field(default_factory=list)
    """How long it waited for the rounding."""
    intervals: list[IdealInterval] = field(default_factory=list)
    """The intervals that the rule stated for the error; empty if it states none."""

    @property
    def largest_error(self) -> int:
        """The largest true error."""
        return max(abs(error) for error in self.errors)

    @property
    def steps_back(self) -> int:
        """How often its time went back."""
        return sum(advance < 0 for advance in self.advances)

    @property
    def largest_step_back(self) -> int:
        """How far at most."""
        return -min(0, *self.advances)

    @property
    def largest_step(self) -> int:
        """The largest error that one hop made."""
        return max(abs(step) for step in self.steps)

    @property
    def mean_wait(self) -> float:
        """The mean wait for the rounding."""
        return sum(self.waits) / len(self.waits)

    @property
    def largest_rounding(self) -> int | None:
        """The largest error from roundings alone, or None if the rule does not state it."""
        return max((abs(i.rounding.value) for i in self.intervals), default=None)

    @property
    def outside(self) -> int:
        """How often the truth was outside the interval that the rule stated."""
        return sum(not i.least <= e <= i.most for i, e in zip(self.intervals, self.errors, strict=False))


def run(contender: Contender, downtime_ms: int, bias_us: int = 0, hops: int = HOPS, seed: int = 1) -> Course:
    """Move one guest `hops` times. The same numbers give the same moves under every rule."""
    course, rule = Course(contender, downtime_ms, bias_us), contender.rule()
    now, origin, offset, error, day = 0, 0, Offset(0), 0, 0
    for hop in _hops(downtime_ms, bias_us, hops, seed):
        now += hop.run
        stopped = HostTime(now + origin) + offset
        origin = hop.origin & (~LOW_MASK if contender.in_phase else MASK64)
        now += hop.downtime + hop.commit
        arrived = HostTime(now + origin)
        move = Move(stopped, hop.downtime, hop.ready, hop.commit, arrived, hop.day - day)
        offset, wait = rule.choose(move)
        day, now = hop.day, now + wait
        advance = (arrived + Ticks(wait) + offset) - stopped
        step = advance.value - move.elapsed - wait
        error += step
        course.errors.append(error)
        course.advances.append(advance.value)
        course.steps.append(step)
        course.waits.append(wait)
        if rule.interval is not None:
            course.intervals.append(rule.interval)
    return course


@dataclass(frozen=True, slots=True)
class _Hop:
    run: int
    downtime: int
    ready: int
    commit: int
    origin: int
    day: int
    """How far the destination's time of day is ahead of the true one."""


def _hops(downtime_ms: int, bias_us: int, hops: int, seed: int) -> Iterator[_Hop]:
    chance = random.Random(seed)
    least, most = (us * _US for us in FLIGHT_US)
    mean, bias, disagreement = downtime_ms * _MS, bias_us * _US, DISAGREEMENT_MS * _MS
    for _ in range(hops):
        yield _Hop(
            run=chance.randrange(1000 * _MS),
            downtime=chance.randint(mean // 2, mean * 3 // 2),
            ready=chance.randint(least, most) + bias,
            commit=chance.randint(least, most),
            origin=chance.getrandbits(64),
            day=chance.randint(-disagreement, disagreement),
        )


def first_step(course: Course) -> int | None:
    """Return the number of the first hop (from 1) at which the guest's clock was moved at all."""
    return next((number for number, step in enumerate(course.steps, 1) if step), None)


def first_wide(course: Course) -> int | None:
    """Return the number of the first hop after which the interval was wider than 2^24 ticks."""
    wide = (n for n, i in enumerate(course.intervals, 1) if i.width.value > GRANULE)
    return next(wide, None)


LIMIT: Final = CLOCK_ERROR_LIMIT.value
"""The limit of the rounding part."""
