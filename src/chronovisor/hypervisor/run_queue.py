"""Which virtual core has which core, and which of the others is next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from chronovisor.hypervisor.contender import Contender
from chronovisor.hypervisor.stay import Occupant, Stay
from chronovisor.processor.core import Core
from chronovisor.timebase.types import SourceTime, Ticks

TIME_SLICE = Ticks.from_ns(10_000_000)
"""How long a virtual core may keep a core that another one waits for."""
_TIME_SLICE = TIME_SLICE.value


class RunQueue:
    """The run queue of a host's cores. Used under the host's monitor."""

    def __init__(self, cores: Sequence[Core]) -> None:
        self._cores = cores
        self.stays: list[Stay | None] = [None] * len(cores)
        """The stay on each core, by the core's number; None if the core is free."""
        self.waiting: deque[Contender] = deque()
        """The virtual cores that wait for a core, the least served first; among equals the first to come."""

    def has_core_for(self, contender: Contender) -> bool:
        """Return whether `contender` can have the core that it waits for: one is free, and it is first."""
        return bool(self.waiting) and self.waiting[0] is contender and None in self.stays

    def begin_stay(self, contender: Contender, primary: Occupant) -> Stay | None:
        """Begin a stay of `contender` on a free core; None if no core is free.

        It either is the first that waits, and then waits no longer, or nobody waits.
        """
        stays = self.stays
        if None not in stays:
            return None
        if self.waiting:
            self.waiting.popleft()
        number = stays.index(None)
        stay = stays[number] = Stay(self._cores[number], contender, primary)
        return stay

    def enqueue(self, contender: Contender, now: SourceTime) -> None:
        """Make `contender` wait for a core from tick `now` on, before those that have had more of one.

        A virtual core that often leaves its core early, for user space, is thus back on one soon. One that
        comes after a long rest is ahead of the others by two time slices at most.
        """
        contender.queued_at = now
        taken = [stay for stay in self.stays if stay is not None]
        others = [*self.waiting, *(stay.contender for stay in taken)]
        if others:
            contender.count_as_served(min(other.served for other in others) - 2 * _TIME_SLICE)
        ahead = sum(other.served <= contender.served for other in self.waiting)
        self.waiting.insert(ahead, contender)
        for stay in taken:
            stay.end_naps()
            due = self.time_slice_end(stay.contender, now)
            if due < stay.core.hypervisor_decrementer.deadline:
                stay.core.hypervisor_decrementer.deadline = due

    def time_slice_end(self, contender: Contender, now: SourceTime) -> SourceTime:
        """Return the tick until which `contender` may keep its core if its time slice begins at tick `now`:
        earlier if the first that waits has had less of a core.
        """
        if not self.waiting:
            # Asserted without a call of the type, for which each entry would pay.
            return now + _TIME_SLICE  # type: ignore[return-value]
        lead = max(0, contender.served - self.waiting[0].served)
        return SourceTime(now + max(0, _TIME_SLICE - lead))

    def time_is_up(self, stay: Stay) -> bool:
        """Return whether another virtual core waits for a core and the time slice of `stay` is over."""
        return bool(self.waiting) and stay.core.hypervisor_decrementer.expired
