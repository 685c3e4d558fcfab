"""What moves do to the clocks of a cell's guests, under each rule.

The handover is `timebase/handover.py`'s: the same functions that `plan` runs on ints run here on arrays. A
guest's moves follow each other, so the first moves of all guests are made at once, then their second moves,
and so on (`moves.in_turns`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from chronovisor.campaigns.campaign import Failure
from chronovisor.campaigns.fleet.moves import Integers, Moves, Reals
from chronovisor.campaigns.fleet.tally import Histogram, Tally
from chronovisor.campaigns.fleet.timebases import ANY_PHASE, IN_PHASE, LOCKED, Kind, Timebases
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT, continued, least_elapsed, most_elapsed
from chronovisor.timebase.policy import CATCH_UP
from chronovisor.timebase.simple_rules import advance_rounded_up, advance_to_nearest, advance_up_when_short
from chronovisor.timebase.types import GRANULE, LOW_MASK

LIMIT: Final = CLOCK_ERROR_LIMIT.value
OURS: Final = "ours"
SIMPLE: Final[dict[str, Any]] = {
    "always up": advance_rounded_up,
    "nearest": advance_to_nearest,
    "up if short": lambda elapsed, phase: advance_up_when_short(elapsed, phase, np.where),
}
"""The rules that keep no ideal: the advance from the time elapsed (the middle of what was measured), and the
phase.
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule, and the kind of fleet in which it is tried."""

    rule: str
    kind: Kind

    @property
    def words(self) -> str:
        """Its name for people."""
        return f"{self.rule}: {self.kind.words}"


CONTENDERS: Final = (
    Contender(OURS, ANY_PHASE),
    Contender(OURS, IN_PHASE),
    Contender(OURS, LOCKED),
    *(Contender(rule, ANY_PHASE) for rule in SIMPLE),
)


def _counted(away: Integers) -> Integers:
    """All of the time away counts: `CATCH_UP`, on arrays."""
    return away


assert CATCH_UP.most is None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the hosts of one kind of fleet measure of moves, and what is true; an entry for each move."""

    guest: Integers
    elapsed: Integers
    """True ticks from the stop to the arrival of COMMIT."""
    least: Integers
    """The ticks that have passed at least, …"""
    most: Integers
    """… and at most, by the clocks of both sides."""
    phase: Integers
    rate: Reals
    """The error of the destination's rate."""

    def part(self, which: Any) -> Measured:
        """Return some of the moves."""
        return Measured(*(getattr(self, field.name)[which] for field in fields(self)))


def measured(moves: Moves, timebases: Timebases) -> Measured:
    """Return what hosts with these timebases measure of moves."""
    committed = moves.committed
    # Each side measures by its own clock.
    since = moves.downtime + _share(moves.downtime, timebases.rate(moves.source, moves.stopped))
    before = timebases.low_bits(moves.source, moves.stopped)
    return Measured(
        guest=moves.guest,
        elapsed=committed - moves.stopped,
        least=least_elapsed(since, np.where),
        most=most_elapsed(since, moves.ready + moves.commit),
        phase=(timebases.low_bits(moves.destination, committed) - before) & LOW_MASK,
        rate=timebases.rate(moves.destination, committed),
    )


class Clocks:
    """The clocks of a cell's guests under one rule. Times and errors are ticks."""

    def __init__(self, contender: Contender, guests: int) -> None:
        self._rule = contender.rule
        self.error: Integers = np.zeros(guests, dtype=np.int64)
        """What the moves of each guest have made of its clock: its time less the true time, apart from what
        the rates of its hosts made of it.
        """
        self.ideal_least: Integers = self.error.copy()
        """How far each guest's time is ahead of its ideal: at least, …"""
        self.ideal_most: Integers = self.error.copy()
        """… and at most."""
        self._sums = Tally(guests=guests)
        self.found: list[Failure] = []

    def move(self, moves: Measured) -> None:
        """Let guests move, each of them once."""
        guest, least, most, phase = moves.guest, moves.least, moves.most, moves.phase
        if self._rule == OURS:
            advance, wait = self._continue(guest, least, most, phase)
        else:
            advance = SIMPLE[self._rule]((least + most) // 2, phase)
            wait = np.zeros_like(advance)
        # The wait is so long by the destination's clock.
        true_wait = wait - _share(wait, moves.rate)
        self.error[guest] += advance + wait - (moves.elapsed + true_wait)
        self._count(guest, advance, wait)

    def _continue(
        self, guest: Integers, least: Integers, most: Integers, phase: Integers
    ) -> tuple[Integers, Integers]:
        before = self.ideal_least[guest], self.ideal_most[guest]
        advance, wait, ideal_least, ideal_most = continued(
            least, most, *before, phase=phase, limit=LIMIT, counted=_counted, choose=np.where
        )
        self.ideal_least[guest], self.ideal_most[guest] = ideal_least, ideal_most
        rounding = np.abs((ideal_least + ideal_most) // 2)
        self._sums.largest_rounding = max(self._sums.largest_rounding, int(rounding.max()))
        for broken, words in (
            (advance + wait < 0, "P4: the guest's time goes back"),
            (rounding > LIMIT, "P6: the rounding is over the limit"),
            (wait > GRANULE, "the wait is longer than 2^24 ticks"),
        ):
            for at in np.flatnonzero(broken)[:1]:
                numbers = (least, most, *before, phase)
                names = ("least", "most", "ideal_least", "ideal_most", "phase")
                case = {name: int(values[at]) for name, values in zip(names, numbers, strict=True)}
                self.found.append(Failure(words, case))
        return advance, wait

    def _count(self, guest: Integers, advance: Integers, wait: Integers) -> None:
        sums, moved = self._sums, advance + wait
        sums.moves += len(guest)
        sums.steps_back += int(np.count_nonzero(moved < 0))
        sums.largest_step_back = max(sums.largest_step_back, -int(moved.min()))
        sums.waits += int(np.count_nonzero(wait))
        sums.waited += int(wait.sum())
        sums.longest_wait = max(sums.longest_wait, int(wait.max()))
        error = self.error[guest]
        sums.largest_error = max(sums.largest_error, int(np.abs(error).max()))
        if self._rule == OURS:
            outside = (error < self.ideal_least[guest]) | (error > self.ideal_most[guest])
            sums.outside += int(np.count_nonzero(outside))

    def tally(self, errors: list[Histogram]) -> Tally:
        """Return the sums, with the errors at the end of each month."""
        return replace(self._sums, errors=errors)


def _share(ticks: Integers, rate: Reals) -> Integers:
    share: Integers = np.rint(ticks * rate).astype(np.int64)
    return share


def rate_errors(moves: Moves, timebases: Timebases, began_on: Integers, end: int) -> Integers:
    """Return what the rates of its hosts made of each guest's clock, from 0 to `end`, apart from its moves.

    `began_on` is the boot of the host on which each guest begins.
    """
    order = np.argsort(moves.guest, kind="stable")
    these = moves.part(order)
    first = np.diff(these.guest, prepend=-1) != 0
    # Between two moves of a guest, and before its first one, its time is that of the host that it leaves.
    since = np.where(first, 0, np.roll(these.committed, 1))
    rates = timebases.ahead(these.source, these.stopped) - timebases.ahead(these.source, since)
    error, now, boot = np.zeros_like(began_on), np.zeros_like(began_on), began_on.copy()
    np.add.at(error, these.guest, rates)
    # Of several values for one guest the last one stays.
    now[these.guest], boot[these.guest] = these.committed, these.destination
    return error + timebases.ahead(boot, np.full_like(now, end)) - timebases.ahead(boot, now)
