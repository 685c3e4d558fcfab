"""What is proven of the handover of time on a move. The claims run `chronovisor.timebase.handover.plan`.

Two clocks measure the exchange that commits a move. Each is read in whole ticks, rounded down, at a phase of
its own. What is claimed of the guest's time holds for every time that may really have passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from chronovisor.proof.paths import Case, any_word
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.terms import Integers
from chronovisor.timebase.handover import (
    CLOCK_ERROR_LIMIT,
    READING,
    Exchange,
    IdealInterval,
    Plan,
    Sample,
    plan,
)
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import GRANULE, GuestTime, HostTime, Ticks

Planner: TypeAlias = Callable[[Sample, Exchange, Ticks, TimePolicy], Plan]

LONGEST = 1 << 52
"""Ticks (101 days). In these claims a stop lasts no longer, and no guest is further from its ideal."""

PARTS = 16
"""Moments are given in sixteenths of a tick. The readings of the two clocks depend only on the order of the
seven fractions of a tick in an exchange (five moments, two phases). Seven sixteenths can have every order.
"""


def any_exchange(case: Case) -> Exchange:
    """Return any measured exchange, whatever really happened."""
    exchange_parts = (
        Ticks(case.any("since sample", 0, LONGEST)),
        Ticks(case.any("dwell", 0, LONGEST)),
        Ticks(case.any("READY to COMMIT", 0, LONGEST)),
    )
    case.assume(
        "the dwell is at most READY to COMMIT plus two ticks, since clocks are read in whole ticks",
        (exchange_parts[2] - exchange_parts[1]).value >= -2 * READING,
    )
    return Exchange(*exchange_parts, HostTime(any_word(case, "H at COMMIT")))


def any_sample(case: Case) -> Sample:
    """Return any guest time, and any interval for its ideal."""
    middle = case.any("lead over the ideal", -LONGEST, LONGEST)
    width = case.any("width of the ideal", 0, LONGEST)
    return Sample(GuestTime(any_word(case, "G at the stop")), IdealInterval(middle, middle + width))


def any_limit(case: Case) -> Ticks:
    """Return any limit that moves can keep."""
    return Ticks(case.any("limit", CLOCK_ERROR_LIMIT.value, LONGEST))


def any_policy(case: Case) -> TimePolicy:
    """Return any policy. The least bound is freeze; the largest is longer than any stop."""
    return TimePolicy(Ticks(case.any("what counts at most", 0, 4 * LONGEST)))


def planned(case: Case, planner: Planner, *how: Any) -> Plan:
    """Return what a planner makes of a sample, an exchange, a limit and a policy, and tell the story."""
    made = planner(*how)
    sample, exchange = made.sample, made.exchange

    def story() -> str:
        after = made.resume_at + made.offset
        return (
            f"the guest stopped at G = {sample.guest_time.value:#x}, "
            f"{sample.ideal.least} to {sample.ideal.most} ticks ahead of its ideal; COMMIT came at "
            f"H = {exchange.committed.value:#x}, {exchange.least_elapsed} to {exchange.most_elapsed} ticks "
            f"later; the guest got the offset {made.offset.value:#x}, waited {made.wait.value} ticks, and "
            f"continued at G = {after.value:#x}, {made.ideal.least} to {made.ideal.most} ticks ahead"
        )

    case.tell(story)
    return made


def never_back(case: Case, planner: Planner = plan, wait_less: int = 0) -> None:
    """When the guest runs again, its time is at least what it was at the stop."""
    sample = any_sample(case)
    made = planned(case, planner, sample, any_exchange(case), any_limit(case), any_policy(case))
    advance = made.resume_at + made.offset - Ticks(wait_less) - sample.guest_time
    case.require("P4: the guest's time is not less than at its stop", advance.value >= 0)


def short_wait(case: Case, planner: Planner = plan, less: int = 0) -> None:
    """The wait for the rounding is at most 2^24 ticks."""
    made = planned(case, planner, any_sample(case), any_exchange(case), any_limit(case), any_policy(case))
    case.require("the wait is not negative", made.wait.value >= 0)
    case.require("the wait is at most 2^24 ticks", made.wait.value <= GRANULE - less)


def limit_kept(case: Case, planner: Planner = plan, less: int = 0) -> None:
    """If the rounding is within the limit before a move, it is after the move, and so after any number."""
    sample, limit = any_sample(case), any_limit(case)
    before = sample.ideal.least + sample.ideal.most
    case.assume("before the move the rounding is within the limit", abs(before) <= 2 * limit.value)
    made = planned(case, planner, sample, any_exchange(case), limit, any_policy(case))
    after = made.ideal.least + made.ideal.most
    case.require("after the move the rounding is within the limit", abs(after) <= 2 * limit.value - less)


def brought_nearer(case: Case, planner: Planner = plan, always: bool = False) -> None:
    """A guest that is over the limit before a move is nearer to its ideal after it, if time away counts."""
    sample, limit = any_sample(case), any_limit(case)
    before = abs(sample.ideal.least + sample.ideal.most)
    case.assume("before the move the rounding is over the limit", before > 2 * limit.value)
    made = planned(case, planner, sample, any_exchange(case), limit, any_policy(case))
    after = abs(made.ideal.least + made.ideal.most)
    case.require("after the move it is no further from the ideal", after <= before)
    idle = made.counted[1] == 0
    nearer = after < before
    case.require("it is nearer to the ideal if any time away counts", nearer if always else nearer | idle)


@dataclass(frozen=True, slots=True)
class TrueExchange:
    """An exchange as it was measured, and the true time from the stop to the arrival of COMMIT, in parts."""

    measured: Exchange
    elapsed: int


def any_true_exchange(case: Case) -> TrueExchange:
    """Return what two clocks measure of an exchange whose moments are unknown."""
    span = LONGEST * PARTS
    stop = case.any("the stop", 0, span)
    ready_sent = case.any("READY sent", 0, span)
    ready_came = case.any("READY came", 0, span)
    commit_sent = case.any("COMMIT sent", 0, span)
    commit_came = case.any("COMMIT came", 0, span)
    case.assume("READY comes after it is sent", ready_sent <= ready_came)
    case.assume(
        "COMMIT is sent after READY came, and after the stop",
        (ready_came <= commit_sent) & (stop <= commit_sent),
    )
    case.assume("COMMIT comes after it is sent", commit_sent <= commit_came)
    source = case.any("phase of the source's clock", 0, PARTS - 1)
    destination = case.any("phase of the destination's clock", 0, PARTS - 1)

    def by_source(moment: int) -> int:
        return (moment + source) // PARTS

    def by_destination(moment: int) -> int:
        return (moment + destination) // PARTS

    origin = any_word(case, "the destination's origin")
    return TrueExchange(
        Exchange(
            since_sample=Ticks(by_source(commit_sent) - by_source(stop)),
            dwell=Ticks(by_source(commit_sent) - by_source(ready_came)),
            ready_to_commit=Ticks(by_destination(commit_came) - by_destination(ready_sent)),
            committed=HostTime(by_destination(commit_came) + origin),
        ),
        commit_came - stop,
    )


def any_policy_in_parts(case: Case) -> tuple[TimePolicy, Callable[[int], int]]:
    """Return any policy, and the function that it is of a time away in parts of a tick."""
    policy = any_policy(case)
    assert policy.most is not None
    most = PARTS * policy.most.value
    return policy, lambda away: min(away, most)


def error_bounded(case: Case, planner: Planner = plan, less: int = 0) -> None:
    """The guest's advance differs from what counts of the true time away by no more than the record says."""
    sample, exchange = any_sample(case), any_true_exchange(case)
    policy, counted = any_policy_in_parts(case)
    made = planned(case, planner, sample, exchange.measured, any_limit(case), policy)
    advance = ((made.resume_at + made.offset) - sample.guest_time).value
    bound = made.record(0, 0).error_bound_ticks - less
    error = PARTS * advance - counted(exchange.elapsed + PARTS * made.wait.value)
    case.require("P5: the error is within the record's bound", abs(error) <= PARTS * bound)


def bound_bounded(case: Case, planner: Planner = plan, less: int = 0) -> None:
    """The record's bound is at most 2^24 ticks plus half the round trip plus two ticks."""
    exchange = any_exchange(case)
    made = planned(case, planner, any_sample(case), exchange, any_limit(case), any_policy(case))
    bound = made.record(0, 0).error_bound_ticks
    case.require(
        "the bound is at most 2^24 ticks plus half the round trip plus two ticks",
        2 * bound <= 2 * GRANULE + exchange.round_trip.value + 4 - less,
    )


def ideal_contained(case: Case, planner: Planner = plan, low: int = 0, high: int = 0) -> None:
    """If the guest's true lead over its ideal lies in its interval before a move, it does after the move."""
    sample, exchange = any_sample(case), any_true_exchange(case)
    lead = case.any("true lead", -2 * LONGEST * PARTS, 2 * LONGEST * PARTS)
    case.assume(
        "before the move the true lead over the ideal lies in its interval",
        (PARTS * sample.ideal.least <= lead) & (lead <= PARTS * sample.ideal.most),
    )
    policy, counted = any_policy_in_parts(case)
    made = planned(case, planner, sample, exchange.measured, any_limit(case), policy)
    advance = ((made.resume_at + made.offset) - sample.guest_time).value
    after = lead + PARTS * advance - counted(exchange.elapsed + PARTS * made.wait.value)
    least, most = made.ideal.least + low, made.ideal.most - high
    case.require("after the move the true lead is not below its interval", PARTS * least <= after)
    case.require("after the move the true lead is not above its interval", after <= PARTS * most)


CLAIMS = (
    Claim(
        "move-never-back",
        "P4",
        "a guest never sees its time go back over a move, under any time policy",
        never_back,
        (Tight("the guest runs one tick earlier", partial(never_back, wait_less=1)),),
        Integers(),
    ),
    Claim(
        "move-error",
        "P5",
        "the guest's advance is off by no more than the move's record says, for any flights and any policy",
        error_bounded,
        (Tight("the bound is one tick less", partial(error_bounded, less=1)),),
        Integers(),
    ),
    Claim(
        "move-error-bound",
        "P5",
        "the bound in the record is at most 2^24 ticks plus half the round trip plus two ticks",
        bound_bounded,
        (Tight("the bound is one tick less", partial(bound_bounded, less=2)),),
        Integers(),
    ),
    Claim(
        "move-limit",
        "P6",
        "the rounding, which is 0 at first, stays within its limit after any number of moves",
        limit_kept,
        (Tight("it stays half a tick below the limit", partial(limit_kept, less=1)),),
        Integers(),
    ),
    Claim(
        "move-over-limit",
        "P6",
        "a guest that is over the limit is nearer to its ideal after the move, if time away counts",
        brought_nearer,
        (Tight("no time away counts", partial(brought_nearer, always=True)),),
        Integers(),
    ),
    Claim(
        "move-wait",
        "P6",
        "the wait for the rounding is at most 2^24 ticks (32.8 ms)",
        short_wait,
        (Tight("the wait is at most 2^24 - 1 ticks", partial(short_wait, less=1)),),
        Integers(),
    ),
    Claim(
        "move-ideal",
        "P6",
        "the ideal lies in the interval that travels with the guest, after any number of moves",
        ideal_contained,
        (
            Tight("the interval begins one tick later", partial(ideal_contained, low=1)),
            Tight("the interval ends one tick earlier", partial(ideal_contained, high=1)),
        ),
        Integers(),
    ),
)
