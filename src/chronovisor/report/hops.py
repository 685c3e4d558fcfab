"""A guest's journey: its moves in order, and the errors that another rule for the offset would have made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GuestTime, HostTime, Offset, Ticks

Rule: TypeAlias = Callable[[GuestTime, Ticks, HostTime], Offset]
"""A rule for the offset, from the guest's time at the stop, the time since, and the destination's time."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One move of a journey, with the true moments: both hosts are on one machine."""

    from_host: str
    to_host: str
    record: MoveRecord
    stopped_at: int
    """The tick of the machine's one clock at which the guest was stopped."""

    @property
    def resumed_at(self) -> int:
        """The tick of that clock at which the guest could run again."""
        return self.stopped_at + self.record.elapsed_ticks


@dataclass(frozen=True, slots=True)
class Journey:
    """A guest's moves since its birth. Its ideal is its time at `born_at` plus the ticks passed since."""

    hops: Sequence[Hop]
    origins: dict[str, int]
    """The timebase of each host (64-bit ticks) when the clock is at 0, by the host's name."""
    born_on: str
    born_at: int
    """The tick of the clock at which the journey began."""
    born_time: GuestTime
    """The guest's time then."""
    ended_at: int
    """The tick of the clock at which the guest was last seen running."""

    def errors(self) -> list[Ticks]:
        """Return the true error after each hop: the guest's time minus its ideal, by the one clock."""
        return [GuestTime(hop.record.guest_tb_after) - self._ideal(hop.resumed_at) for hop in self.hops]

    def errors_by(self, rule: Rule) -> list[Ticks]:
        """Return what the errors would have been if each hop's offset had been chosen by `rule`."""
        errors: list[Ticks] = []
        error = Ticks(0)
        for hop in self.hops:
            now = HostTime(hop.resumed_at + self.origins[hop.to_host])
            stopped = self._ideal(hop.stopped_at) + error
            after = now + rule(stopped, Ticks(hop.record.elapsed_ticks), now)
            error = after - self._ideal(hop.resumed_at)
            errors.append(error)
        return errors

    def _ideal(self, tick: int) -> GuestTime:
        return self.born_time + Ticks(tick - self.born_at)
