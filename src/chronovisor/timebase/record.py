"""The record of a move: what it did to the guest's time, and what was promised about that."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.types import Ticks


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """What a move did to a guest's time, from its stop at the source to the moment at which the destination
    may run it.

    Timebase values are 64-bit ticks, durations signed ticks or nanoseconds. Of the time elapsed both sides
    together know no more than an interval: `elapsed_ticks` is its middle unless `with_true_elapsed` has put
    the truth there.
    """

    from_origin: int
    """The origin of the source's timebase (ticks)."""
    to_origin: int
    """The origin of the destination's timebase (ticks)."""
    guest_tb_before: int
    """The guest's timebase when it was stopped."""
    guest_tb_after: int
    """The guest's timebase at the moment from which it may run again: never less than `guest_tb_before`."""
    elapsed_ticks: int
    """The time from one to the other, the wait included."""
    counted_ticks: int
    """What of it was to count for the guest: all of it, unless another policy was chosen."""
    error_ticks: int
    """The guest's advance less `counted_ticks`: positive where the guest was put forward."""
    error_bound_ticks: int
    """What the error cannot exceed either way, whatever the true time elapsed."""
    rounding_ticks: int
    """The guest's time less the middle of its ideal's interval, after all the moves until now."""
    wait_ns: int
    """How much of the downtime was waited for the rounding alone."""
    downtime_ns: int
    """The time from stop to start in nanoseconds, the wait included."""
    elapsed_uncertainty_ticks: int
    """How far the time really elapsed can be from `elapsed_ticks`, either way; 0 where that is the truth."""
    ideal_least_ticks: int
    """The guest's time less its ideal after the move: at least this, …"""
    ideal_most_ticks: int
    """… and at most this."""
    ideal_offset: int
    """The offset (64-bit ticks) that would have given the guest the middle of its ideal, …"""
    rounded_offset: int
    """… and the one that it was given: a multiple of 2^24."""

    @property
    def advance(self) -> Ticks:
        """The guest's own view of the move: what its timebase went forward by."""
        return Ticks(self.counted_ticks + self.error_ticks)

    def with_true_elapsed(self, elapsed: Ticks, policy: TimePolicy = CATCH_UP) -> MoveRecord:
        """Return the record with the time that really passed between the same two moments, of which so much
        counts as the policy says.

        For who can know it: where both hosts are on one machine, from that machine's one monotonic clock.
        """
        return replace(
            self,
            elapsed_ticks=elapsed.value,
            counted_ticks=policy.counted(elapsed.value),
            error_ticks=self.advance.value - policy.counted(elapsed.value),
            downtime_ns=elapsed.ns,
            elapsed_uncertainty_ticks=0,
        )

    def as_json(self) -> dict[str, int]:
        """Return the record as an object of JSON: its fields by name, all integers."""
        return asdict(self)
