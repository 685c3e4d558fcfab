"""The handover of a guest's time on a move: which offset its new host gives it, and how long the guest
waits for it.

The new host's offsets are multiples of 2^24 ticks (32.768 ms), so it can seldom give the guest exactly the
time that it ought to have, its *ideal*: the time at which it stopped plus what has passed since. Two things
keep the error from growing. The ideal travels with the guest, beside the time that it was given, so that
each move rounds the ideal and none rounds what was rounded before. And where the best offset would take the
guest back, because it was ahead of its ideal and hardly any time has passed, the guest waits until it no
longer does.

How much time has passed is measured without trusting two hosts' clocks to agree: the source says how long
ago it stopped the guest, and the flight of the message that says so is bounded by the exchange that it
belongs to. So the ideal is an interval, which every move widens by the round trip of that exchange.

How much of that time counts is the policy's word (`policy.TimePolicy`): the ideal goes forward by what counts
of the time away, the wait included, and by nothing else. A guest that is paused, or restored from a file,
has its time handed over by the same function, with an `Absence` in the place of the exchange.

With `e` the guest's time less the middle of its ideal's interval (ticks; before the move `e_src`, after it
`e_dst`), `counted` what counts of the middle of the time that may have passed, and the limit L >= 2^23 that
the user chose, `plan` promises under every policy:

- P4, whatever the inputs: when the guest runs again, its time is at least what it was when it stopped.
- P5, whatever the inputs: its advance differs from `counted` by at most 2^24 ticks, and what counts of the
  time that really passed differs from `counted` by at most half the round trip (and two ticks, since clocks
  are read in whole ones). The record states what the two come to.
- P6: if |e_src| <= L then |e_dst| <= L. A guest starts with e = 0, so it holds after any number of moves. A
  guest that comes with more (it lived under a larger limit) is brought nearer by every move, as far as the
  time away counts: where none of it does, it comes no further away.
- The wait is at most 2^24 ticks.

Why P6 counts from the middle: once round trips have added up to more than 2^24 ticks, several offsets lie
inside the interval. To choose among them by what suits one move alone would let the roundings add up after
all, unseen, for as wide as the interval is. Between hosts in phase the exact advance is one of those to
choose from, and is chosen until the measuring errors of all moves together come to L.

All of this takes it that the hosts' clocks run at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GRANULE, MASK64, GuestTime, HostTime, Offset, Ticks

CLOCK_ERROR_LIMIT = Ticks(GRANULE // 2)
"""How far a guest's time may be from its ideal: 2^23 ticks, 16.384 ms; rounding cannot promise less."""

READING = 1
"""Ticks that a difference of two readings of one clock may be off by, either way (less than this): both are
floors.
"""


class HandoverError(Exception):
    """What was said about a move cannot be: nothing was decided."""


@dataclass(frozen=True, slots=True)
class IdealInterval:
    """How far a guest's time is ahead of its ideal: at least `least`, at most `most` ticks (negative:
    behind).

    It does not change while the guest runs or is paused, since its time and its ideal go on alike; a move
    changes it. A guest starts with `IdealInterval()`, and again whenever its owner sets its time.
    """

    least: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise HandoverError(
                f"no lead lies between {self.least} and {self.most} ticks: the interval is empty"
            )

    @property
    def rounding(self) -> Ticks:
        """The guest's time less the middle of its ideal's interval (rounded down to a tick)."""
        return Ticks((self.least + self.most) // 2)

    @property
    def width(self) -> Ticks:
        """What is not known about the ideal: the round trips of all the guest's moves."""
        return Ticks(self.most - self.least)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the source read when it had stopped the guest: the guest's time, no earlier than any that the
    guest read.
    """

    guest_time: GuestTime
    ideal: IdealInterval = IdealInterval()


@dataclass(frozen=True, slots=True)
class Exchange:
    """What both sides measured of the exchange that committed a move; the flight of COMMIT lies in its
    round trip.

    Raises `HandoverError` where the durations cannot belong to one exchange.
    """

    since_sample: Ticks
    """From the sample to the sending of COMMIT, by the source's clock."""
    dwell: Ticks
    """From the arrival of READY to the sending of COMMIT, by the source's clock."""
    ready_to_commit: Ticks
    """From the sending of READY to the arrival of COMMIT, by the destination's clock."""
    committed: HostTime
    """The destination's time when COMMIT arrived."""

    def __post_init__(self) -> None:
        for what in ("since_sample", "dwell", "ready_to_commit"):
            if getattr(self, what) < Ticks(0):
                raise HandoverError(
                    f"{what} of {getattr(self, what).value} ticks: no exchange takes less than 0"
                )
        if self.round_trip < Ticks(-2 * READING):
            raise HandoverError(
                f"the source says that it held READY for {self.dwell.value} ticks, "
                f"longer than the whole exchange of {self.ready_to_commit.value} took: is its clock faster?"
            )

    @property
    def round_trip(self) -> Ticks:
        """The time that READY and COMMIT were under way, both together, as measured."""
        return self.ready_to_commit - self.dwell

    @property
    def least_elapsed(self) -> int:
        """The ticks since the sample if COMMIT took no time at all."""
        return max(0, self.since_sample.value - READING)

    @property
    def most_elapsed(self) -> int:
        """The ticks since the sample if READY took no time at all and COMMIT took all of the round trip."""
        return (self.since_sample + self.round_trip).value + 2 * READING


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known of a time away in which no message flew: the guest was paused, or lay in a file.

    Raises `HandoverError` for a time that is negative or an interval that is none.
    """

    least_elapsed: int
    """The ticks since the sample, at least, …"""
    most_elapsed: int
    """… and at most. The host's own clock knows them exactly: the guest's timebase counts by it."""
    committed: HostTime
    """The host's time at the end of these."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_elapsed <= self.most_elapsed:
            raise HandoverError(f"{self.least_elapsed} to {self.most_elapsed} ticks are no time away")

    @property
    def round_trip(self) -> Ticks:
        """What is not known of the time away, as of a round trip."""
        return Ticks(self.most_elapsed - self.least_elapsed)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a guest's time goes on at the destination."""

    offset: Offset
    """What to set as the guest's offset."""
    wait: Ticks
    """How long after the arrival of COMMIT the guest may run, at the earliest; at most 2^24 ticks."""
    resume_at: HostTime
    """The destination's time then."""
    ideal: IdealInterval
    """The guest's lead over its ideal from now on, to be kept for its next move."""
    sample: Sample
    exchange: Exchange | Absence
    """What was measured of the time away."""
    policy: TimePolicy
    """How much of the time away counts."""

    @property
    def counted(self) -> tuple[int, int]:
        """The ticks that count of the time from the stop to the end of the wait: at least, at most."""
        least, most = self.exchange.least_elapsed, self.exchange.most_elapsed
        return self.policy.counted(least + self.wait.value), self.policy.counted(most + self.wait.value)

    def record(self, from_origin: int, to_origin: int) -> MoveRecord:
        """Return the record of the move between hosts of these origins (ticks), as of the end of the wait."""
        least, most = self.counted
        after = self.resume_at + self.offset
        advance = (after - self.sample.guest_time).value
        counted = (least + most) // 2
        shortest, longest = self.exchange.least_elapsed, self.exchange.most_elapsed
        elapsed = (shortest + longest) // 2 + self.wait.value
        return MoveRecord(
            from_origin=from_origin,
            to_origin=to_origin,
            guest_tb_before=self.sample.guest_time.value,
            guest_tb_after=after.value,
            elapsed_ticks=elapsed,
            counted_ticks=counted,
            error_ticks=advance - counted,
            error_bound_ticks=max(advance - least, most - advance),
            rounding_ticks=self.ideal.rounding.value,
            wait_ns=self.wait.ns,
            downtime_ns=Ticks(elapsed).ns,
            elapsed_uncertainty_ticks=(longest - shortest + 1) // 2,
            ideal_least_ticks=self.ideal.least,
            ideal_most_ticks=self.ideal.most,
            ideal_offset=(self.offset.value - self.ideal.rounding.value) & MASK64,
            rounded_offset=self.offset.value,
        )


def plan(
    sample: Sample,
    exchange: Exchange | Absence,
    limit: Ticks = CLOCK_ERROR_LIMIT,
    policy: TimePolicy = CATCH_UP,
) -> Plan:
    """Decide the offset and the wait of a guest that goes on after it was stopped; see this module's text for
    what is promised.

    Raises `HandoverError` for a `limit` under 2^23 ticks: hosts of opposite phase could not keep it.
    """
    if limit < CLOCK_ERROR_LIMIT:
        raise HandoverError(
            f"a clock error limit of {limit.value} ticks cannot be kept: "
            f"offsets are multiples of 2^24, so the least is 2^23 ({CLOCK_ERROR_LIMIT.value})"
        )
    before, ideal = sample.guest_time, sample.ideal
    advance = (
        rounded_advance(
            elapsed=policy.counted(exchange.least_elapsed) + policy.counted(exchange.most_elapsed),
            ahead=ideal.least + ideal.most,
            phase=2 * (exchange.committed.value - before.value),
            limit=2 * limit.value,
        )
        // 2
    )
    wait = Ticks(max(0, -advance))
    decided = Plan(
        offset=Offset((before.value + advance - exchange.committed.value) & MASK64),
        wait=wait,
        resume_at=exchange.committed + wait,
        ideal=ideal,
        sample=sample,
        exchange=exchange,
        policy=policy,
    )
    # The wait is time away like the rest: the policy says what of it counts.
    least, most = decided.counted
    moved = advance + wait.value
    return replace(decided, ideal=IdealInterval(ideal.least + moved - most, ideal.most + moved - least))


def _choose(condition: bool, then: int, otherwise: int) -> int:
    return then if condition else otherwise


def rounded_advance(
    elapsed: Any, ahead: Any, phase: Any, limit: Any, choose: Callable[[Any, Any, Any], Any] = _choose
) -> Any:
    """Return the guest's advance from its stop to the arrival of COMMIT; a negative one is waited out
    before it runs.

    All are in half ticks, in which the middle of an interval is whole: `elapsed` (>= 0; of the time away what
    counts) and `ahead` (e_src) the middles of their intervals, `phase` any advance that the destination's
    offsets can give (they give those 2^25 half ticks apart, and no others), `limit` at least 2^24. Written
    without a branch, over ints or over a prover's integers with its own `choose(condition, then, otherwise)`.
    """
    step = 2 * GRANULE

    def first_from(advance: Any) -> Any:
        return advance + (phase - advance) % step

    def last_until(advance: Any) -> Any:
        return advance - (advance - phase) % step

    def larger(a: Any, b: Any) -> Any:
        return choose(a < b, b, a)

    def smaller(a: Any, b: Any) -> Any:
        return choose(a < b, a, b)

    ideal = elapsed - ahead
    nearest = last_until(ideal + step // 2)
    # P5 bounds it on both sides. P4 without a wait bounds it from below.
    upper = last_until(elapsed + step)
    lower = first_from(larger(elapsed - step, 0))
    advance = larger(smaller(nearest, upper), lower)
    # Over the limit, the next smaller one is right; it is negative (else `lower` were less), hence the wait.
    # Only a guest that came over its limit can be there with less than `elapsed`: P5 lets it no further back.
    return choose(advance > larger(ideal + limit, elapsed - 1), advance - step, advance)
