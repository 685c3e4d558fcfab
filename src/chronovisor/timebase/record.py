"""The record of a move: its effect on the guest's time, and the bounds that were promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.types import Ticks


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """The effect of a move on a guest's time, from its stop at the source to the moment from which the
    destination may run it.

    Timebase values are 64-bit ticks, durations signed ticks or nanoseconds. Both sides together know only an
    interval for the elapsed time: `elapsed_ticks` is its middle, unless `with_true_elapsed` has replaced it.
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
    """How much of it counts for the guest: all of it, unless the policy says otherwise."""
    error_ticks: int
    """The guest's advance minus `counted_ticks`: positive if the guest was put forward."""
    error_bound_ticks: int
    """The bound of the error, either way, whatever time really elapsed."""
    rounding_ticks: int
    """The guest's time minus the middle of its ideal's interval, after all its moves."""
    wait_ns: int
    """The part of the downtime in which the guest waited for the rounding alone."""
    downtime_ns: int
    """The time from stop to start in nanoseconds, the wait included."""
    elapsed_uncertainty_ticks: int
    """How far the true elapsed time can be from `elapsed_ticks`, either way; 0 if that is the true time."""
    ideal_least_ticks: int
    """The guest's time minus its ideal after the move: at least this, …"""
    ideal_most_ticks: int
    """… and at most this."""
    ideal_offset: int
    """The offset (64-bit ticks) that would have given the guest the middle of its ideal, …"""
    rounded_offset: int
    """… and the one that it was given: a multiple of 2^24."""

    @property
    def advance(self) -> Ticks:
        """The guest's own view of the move: by how much its timebase advanced."""
        return Ticks(self.counted_ticks + self.error_ticks)

    def with_true_elapsed(self, elapsed: Ticks, policy: TimePolicy = CATCH_UP) -> MoveRecord:
        """Return the record with the true time between the same two moments; the policy decides how much of
        it counts.

        The true time is known if both hosts are on one machine: from that machine's monotonic clock.
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
