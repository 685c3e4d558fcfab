"""The history of a guest's clock: each time that it was handed over or set, and what that did to it.

The history travels with the guest, in moves and in snapshots. It is bounded: the oldest hops are folded into
their number and sums. Their effect on the clock is part of the ideal, which the later hops record.
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
"""The most hops that are kept one by one; older ones are folded."""


class HopKind(StrEnum):
    """What happened to a guest's time. Files hold the position in this list: append new kinds."""

    MOVE = "move"
    RESTORE = "restore"
    """The guest was read from a snapshot."""
    RESUME = "resume"
    """The guest continued after a pause."""
    SET = "set"
    """The owner gave the guest another offset: its ideal begins anew."""


class AwayClock(StrEnum):
    """The clock that measured the time away. Files hold the position in this list: append new clocks."""

    EXCHANGE = "exchange"
    """The messages that committed the move, timed on both sides."""
    HOST = "host clock"
    """The host's own clock, which ran all the time."""
    BOOT = "boot clock"
    """CLOCK_BOOTTIME, within one boot of one machine."""
    WALL = "wall clock"
    """The time of day at two moments or on two machines. Do not trust it: it may have been set in between."""
    NONE = "none"
    """No clock, because none of the time away counts."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One event at which a guest's clock was handed over or set."""

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
        """Return the hop of a guest whose owner changed its offset when its host's time was `now`.

        All of the change counts, because the owner asked for it.
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
        """How far the guest's time was ahead of its ideal after the hop."""
        return IdealInterval(self.record.ideal_least_ticks, self.record.ideal_most_ticks)

    @property
    def counted(self) -> int:
        """How much of the time away counted (ticks)."""
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
    """All hops of a guest since its boot, the oldest folded.

    Raises ValueError for a history that no guest can have.
    """

    born: int
    """The guest's timebase (64-bit ticks) at its boot."""
    hops: tuple[Hop, ...] = ()
    """The latest hops in order; at most `MAXIMUM_HOPS`."""
    folded: int = 0
    """How many hops came before them, …"""
    folded_elapsed_ticks: int = 0
    """… how long it was away in those, …"""
    folded_counted_ticks: int = 0
    """… and how much of that counted."""

    def __post_init__(self) -> None:
        if len(self.hops) > MAXIMUM_HOPS or self.folded < 0:
            raise ValueError(f"a history of {self.folded} folded and {len(self.hops)} told hops")

    def then(self, hop: Hop) -> History:
        """Return the history with one more hop; fold the oldest if there are too many."""
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
        """How far the guest's time is ahead of its ideal: its clock error since its boot, or since its owner
        last set its time.
        """
        return self.hops[-1].ideal if self.hops else IdealInterval()

    @property
    def away(self) -> Ticks:
        """How long the guest was away in all its hops."""
        return Ticks(self.folded_elapsed_ticks + sum(hop.record.elapsed_ticks for hop in self.hops))

    @property
    def counted(self) -> Ticks:
        """How much of that counted; a change by the owner is no time away."""
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
