"""A guest's whole life as its clock saw it: where its time was handed over, by whom, and what that did to it.

The history goes with the guest, in moves and in snapshots. It is bounded: the oldest hops are folded into
their number and sums, and what they did to the clock is in the ideal that the later ones tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from chronovisor.timebase.handover import IdealInterval, Plan
from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import HostTime, Offset, Ticks

MAXIMUM_HOPS: Final = 256
"""Hops that are told one by one; older ones are folded."""


class HopKind(StrEnum):
    """What happened to a guest's time. Written down by their places here: new ones go last."""

    MOVE = "move"
    RESTORE = "restore"
    """It was read from a snapshot."""
    RESUME = "resume"
    """It went on after a pause."""
    SET = "set"
    """Its owner gave it another offset: its ideal begins anew."""


class AwayClock(StrEnum):
    """What the time away was measured by. Written down by their places here: new ones go last."""

    EXCHANGE = "exchange"
    """The messages that committed the move, timed on both sides."""
    HOST = "host clock"
    """The host's own, which ran all the time."""
    BOOT = "boot clock"
    """CLOCK_BOOTTIME, within one boot of one machine."""
    WALL = "wall clock"
    """The time of day of two moments or machines: not to be trusted, it may have been set in between."""
    NONE = "none"
    """Nothing: none of the time away was to count."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One time that a guest's clock was handed over or set."""

    kind: HopKind
    policy: TimePolicy
    clock: AwayClock
    record: MoveRecord

    @classmethod
    def planned(
        cls, kind: HopKind, clock: AwayClock, plan: Plan, from_origin: int = 0, to_origin: int = 0
    ) -> Hop:
        """Return the hop that a plan makes between hosts of these origins (ticks)."""
        return cls(kind, plan.policy, clock, plan.record(from_origin, to_origin))

    @classmethod
    def set_by_owner(cls, now: HostTime, before: Offset, after: Offset, origin: int) -> Hop:
        """Return the hop of a guest whose owner changed its offset when it was `now` at its host.

        What its time was put forward (or back) by is what counts: its owner says so.
        """
        record = MoveRecord(
            from_origin=origin,
            to_origin=origin,
            guest_tb_before=(now + before).value,
            guest_tb_after=(now + after).value,
            elapsed_ticks=0,
            counted_ticks=(after - before).signed,
            error_ticks=0,
            error_bound_ticks=0,
            rounding_ticks=0,
            wait_ns=0,
            downtime_ns=0,
            elapsed_uncertainty_ticks=0,
            ideal_least_ticks=0,
            ideal_most_ticks=0,
            ideal_offset=after.value,
            rounded_offset=after.value,
        )
        return cls(HopKind.SET, CATCH_UP, AwayClock.NONE, record)

    @property
    def ideal(self) -> IdealInterval:
        """How far the guest's time was ahead of its ideal from then on."""
        return IdealInterval(self.record.ideal_least_ticks, self.record.ideal_most_ticks)

    @property
    def counted(self) -> int:
        """How much of the time that the guest was away counted (ticks)."""
        return 0 if self.kind is HopKind.SET else self.record.counted_ticks

    def as_json(self) -> dict[str, Any]:
        """Return the hop as an object of JSON: kind, policy, clock, and the fields of its record."""
        return {
            "kind": str(self.kind),
            "policy": str(self.policy),
            "clock": str(self.clock),
            **self.record.as_json(),
        }


@dataclass(frozen=True, slots=True)
class History:
    """A guest's life from its birth on, the oldest hops folded.

    Raises ValueError for what no guest can have lived through.
    """

    born: int
    """The guest's timebase (64-bit ticks) where its life began: at its boot."""
    hops: tuple[Hop, ...] = ()
    """The latest ones, the last last; at most `MAXIMUM_HOPS`."""
    folded: int = 0
    """How many came before them, …"""
    folded_elapsed_ticks: int = 0
    """… how long it was away in those, …"""
    folded_counted_ticks: int = 0
    """… and how much of that counted."""

    def __post_init__(self) -> None:
        if len(self.hops) > MAXIMUM_HOPS or self.folded < 0:
            raise ValueError(f"a history of {self.folded} folded and {len(self.hops)} told hops")

    def then(self, hop: Hop) -> History:
        """Return the history with one hop more, the oldest folded where there are too many."""
        folded, told = self.hops[: 1 - MAXIMUM_HOPS], (*self.hops[1 - MAXIMUM_HOPS :], hop)
        if len(self.hops) < MAXIMUM_HOPS:
            folded, told = (), (*self.hops, hop)
        return replace(
            self,
            hops=told,
            folded=self.folded + len(folded),
            folded_elapsed_ticks=self.folded_elapsed_ticks + sum(hop.record.elapsed_ticks for hop in folded),
            folded_counted_ticks=self.folded_counted_ticks + sum(hop.counted for hop in folded),
        )

    @property
    def ideal(self) -> IdealInterval:
        """How far the guest's time is ahead of its ideal: its clock error since its birth, or since its owner
        last set its time.
        """
        return self.hops[-1].ideal if self.hops else IdealInterval()

    @property
    def away(self) -> Ticks:
        """How long the guest was away in all its hops."""
        return Ticks(self.folded_elapsed_ticks + sum(hop.record.elapsed_ticks for hop in self.hops))

    @property
    def counted(self) -> Ticks:
        """How much of that counted; what its owner put its time forward by is no time away."""
        return Ticks(self.folded_counted_ticks + sum(hop.counted for hop in self.hops))

    def as_json(self) -> dict[str, Any]:
        """Return the history as an object of JSON; all durations in ticks."""
        return {
            "born": self.born,
            "away_ticks": self.away.value,
            "counted_ticks": self.counted.value,
            "ideal_least_ticks": self.ideal.least,
            "ideal_most_ticks": self.ideal.most,
            "rounding_ticks": self.ideal.rounding.value,
            "folded": self.folded,
            "hops": [hop.as_json() for hop in self.hops],
        }
