"""The handover of a guest's time on a move: which offset its new host gives it, and how long the guest
waits for it.

The new host's offsets are multiples of 2^24 ticks (32.768 ms), so the host can seldom give the guest exactly
its *ideal* time: the time at which the guest stopped plus the time that has passed since. Two rules keep the
error from growing. First, the ideal travels with the guest, beside the time that it was given, so that each
move rounds the ideal and no move rounds a rounded time. Second, the best offset may take the guest back, if
the guest was ahead of its ideal and hardly any time has passed. Then the guest waits until the offset no
longer takes it back.

The time that has passed is measured without comparing two hosts' clocks. The source tells how long ago it
stopped the guest, and one exchange bounds the flight of the message that tells it. So the ideal is an
interval, and every move widens the interval by the round trip of that exchange.

The policy (`policy.TimePolicy`) decides how much of that time counts: the ideal advances by the part of the
time away that counts, the wait included, and by nothing else. The same function hands over the time of a
guest that was paused, or restored from a file, with an `Absence` instead of the exchange.

Let `e` be the guest's time minus the middle of its ideal's interval, in ticks (`e_src` before the move,
`e_dst` after it). Let `counted` be the part that counts of the middle of the time that may have passed, and
L >= 2^23 the limit that the user chose. `plan` promises under every policy:

- P4, whatever the inputs: when the guest runs again, its time is at least what it was when it stopped.
- P5, whatever the inputs: its advance differs from `counted` by at most 2^24 ticks, and the part that counts
  of the time that really passed differs from `counted` by at most half the round trip (and two ticks, because
  clocks are read in whole ticks). The record states the sum of both.
- P6: if |e_src| <= L then |e_dst| <= L. A guest starts with e = 0, so this holds after any number of moves. A
  guest that arrives with a larger error (it lived under a larger limit) comes nearer to its ideal with every
  move, as far as the time away counts. If none of that time counts, it does not go further away.
- The wait is at most 2^24 ticks.

Why P6 counts from the middle: once round trips have added up to more than 2^24 ticks, several offsets lie
inside the interval. If each move chose the one that suits itself, the roundings would add up after all,
unseen, up to the width of the interval. Between hosts in phase the exact advance is one of the choices, and
it is chosen until the measuring errors of all moves together reach L.

All of this assumes that the hosts' clocks run at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GRANULE, MASK64, GuestTime, HostTime, Offset, Ticks

CLOCK_ERROR_LIMIT = Ticks(GRANULE // 2)
"""How far a guest's time may be from its ideal: 2^23 ticks, 16.384 ms; rounding cannot promise less."""

READING = 1
"""A difference of two readings of one clock is wrong by less than this many ticks, either way, because both
are floors.
"""


class HandoverError(Exception):
    """The values that describe a move contradict each other: nothing was decided."""


@dataclass(frozen=True, slots=True)
class IdealInterval:
    """How far a guest's time is ahead of its ideal: at least `least`, at most `most` ticks (negative:
    behind).

    It does not change while the guest runs or is paused, because its time and its ideal advance alike; a move
    changes it. A guest starts with `IdealInterval()`, and starts again whenever its owner sets its time.
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
        """The uncertainty about the ideal: the round trips of all the guest's moves."""
        return Ticks(self.most - self.least)


@dataclass(frozen=True, slots=True)
class Sample:
    """The guest's time as the source read it after it had stopped the guest: not earlier than any time that
    the guest read.
    """

    guest_time: GuestTime
    ideal: IdealInterval = IdealInterval()


@dataclass(frozen=True, slots=True)
class Exchange:
    """What both sides measured of the exchange that committed a move; the flight of COMMIT is part of its
    round trip.

    Raises `HandoverError` if the durations cannot belong to one exchange.
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
        """The measured time that READY and COMMIT together were under way."""
        return self.ready_to_commit - self.dwell

    @property
    def least_elapsed(self) -> int:
        """The ticks since the sample if COMMIT took no time at all."""
        least: int = least_elapsed(self.since_sample.value)
        return least

    @property
    def most_elapsed(self) -> int:
        """The ticks since the sample if READY took no time at all and COMMIT took all of the round trip."""
        most: int = most_elapsed(self.since_sample.value, self.round_trip.value)
        return most


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known of a time away without messages: the guest was paused, or lay in a file.

    Raises `HandoverError` for a negative time or an empty interval.
    """

    least_elapsed: int
    """The ticks since the sample, at least, …"""
    most_elapsed: int
    """… and at most. The two are equal if the host's own clock, which the guest's timebase counts by,
    measured them.
    """
    committed: HostTime
    """The host's time at the end of the time away."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_elapsed <= self.most_elapsed:
            raise HandoverError(f"{self.least_elapsed} to {self.most_elapsed} ticks are no time away")

    @property
    def round_trip(self) -> Ticks:
        """The uncertainty about the time away, which is that of a round trip in an exchange."""
        return Ticks(self.most_elapsed - self.least_elapsed)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a guest's time continues at the destination."""

    offset: Offset
    """The offset to set for the guest."""
    wait: Ticks
    """How long after the arrival of COMMIT the guest may run, at the earliest; at most 2^24 ticks."""
    resume_at: HostTime
    """The destination's time at that moment."""
    ideal: IdealInterval
    """The guest's lead over its ideal from now on, to be kept for its next move."""
    sample: Sample
    exchange: Exchange | Absence
    """The measurement of the time away."""
    policy: TimePolicy
    """How much of the time away counts."""

    @property
    def counted(self) -> tuple[int, int]:
        """How many of the ticks from the stop to the end of the wait count: at least, at most."""
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
    """Decide the offset and the wait of a guest that continues after it was stopped. The text of this module
    has the promises.

    Raises `HandoverError` for a `limit` under 2^23 ticks: hosts of opposite phase could not keep it.
    """
    if limit < CLOCK_ERROR_LIMIT:
        raise HandoverError(
            f"a clock error limit of {limit.value} ticks cannot be kept: "
            f"offsets are multiples of 2^24, so the least is 2^23 ({CLOCK_ERROR_LIMIT.value})"
        )
    before, ideal = sample.guest_time, sample.ideal
    advance, wait, least, most = continued(
        exchange.least_elapsed,
        exchange.most_elapsed,
        ideal.least,
        ideal.most,
        phase=exchange.committed.value - before.value,
        limit=limit.value,
        counted=policy.counted,
    )
    return Plan(
        offset=Offset((before.value + advance - exchange.committed.value) & MASK64),
        wait=Ticks(wait),
        resume_at=exchange.committed + Ticks(wait),
        ideal=IdealInterval(least, most),
        sample=sample,
        exchange=exchange,
        policy=policy,
    )


def _choose(condition: bool, then: int, otherwise: int) -> int:
    return then if condition else otherwise


# The functions below have no branch. They run on ints, on a prover's integers, and on arrays of integers,
# with a `choose` that suits them.


def least_elapsed(since_sample: Any, choose: Callable[[Any, Any, Any], Any] = _choose) -> Any:
    """Return the ticks since the sample if COMMIT took no time; `since_sample` as in `Exchange`."""
    least = since_sample - READING
    return choose(least < 0, 0, least)


def most_elapsed(since_sample: Any, round_trip: Any) -> Any:
    """Return the ticks since the sample if COMMIT took all of the `round_trip`."""
    return since_sample + round_trip + 2 * READING


def continued(
    least: Any,
    most: Any,
    ideal_least: Any,
    ideal_most: Any,
    phase: Any,
    limit: Any,
    counted: Callable[[Any], Any],
    choose: Callable[[Any, Any, Any], Any] = _choose,
) -> tuple[Any, Any, Any, Any]:
    """Return how a guest continues that was away for `least` to `most` ticks: its advance from its stop to
    the arrival of COMMIT, the wait after it, and the two ends of its lead over its ideal from now on.

    Before the move its lead was `ideal_least` to `ideal_most`. `phase` is any advance that the destination's
    offsets can give (all others are a multiple of 2^24 ticks away), and `counted` says how many of so many
    ticks count. All are in ticks.
    """
    advance = (
        rounded_advance(
            elapsed=counted(least) + counted(most),
            ahead=ideal_least + ideal_most,
            phase=2 * phase,
            limit=2 * limit,
            choose=choose,
        )
        // 2
    )
    wait = choose(advance < 0, -advance, 0)
    # The wait is part of the time away: the policy decides how much of it counts.
    moved = advance + wait
    return (
        advance,
        wait,
        ideal_least + moved - counted(most + wait),
        ideal_most + moved - counted(least + wait),
    )


def rounded_advance(
    elapsed: Any, ahead: Any, phase: Any, limit: Any, choose: Callable[[Any, Any, Any], Any] = _choose
) -> Any:
    """Return the guest's advance from its stop to the arrival of COMMIT. If it is negative, the guest waits
    so long before it runs.

    All values are in half ticks, so that the middle of an interval is a whole number. `elapsed` (>= 0; the
    part of the time away that counts) and `ahead` (e_src) are the middles of their intervals. `phase` is any
    advance that the destination's offsets can give; all others are a multiple of 2^25 half ticks away.
    `limit` is at least 2^24.
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
    # If this is over the limit, the next smaller advance is right. It is negative (otherwise `lower` would be
    # less), and so the guest waits. An advance over the limit is below `elapsed` only if the guest arrived
    # over its limit, and P5 does not allow to take such a guest further back.
    return choose(advance > larger(ideal + limit, elapsed - 1), advance - step, advance)
