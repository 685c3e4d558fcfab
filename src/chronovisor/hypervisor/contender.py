"""What the run queue knows of a virtual core: how much of a core it has had, and since when it waits."""

from __future__ import annotations

from chronovisor.processor.counters import RunTime
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.types import SourceTime


class Contender:
    """One that wants a core to run on."""

    def __init__(self, source: TickSource) -> None:
        self.run_time: RunTime = RunTime(source)
        """The ticks for which it had a core."""
        self.wanting = 0
        """How many of its vCPUs wait to enter."""
        self.queued_at = SourceTime(0)
        """The tick at which it last began to wait for a core."""
        self._forgone = 0
        """Ticks that count as served, because it did not want a core when it could have had one."""

    @property
    def served(self) -> int:
        """The ticks of a core that it has had, or counts as having had, compared with its competitors."""
        return self.run_time.ticks() + self._forgone

    def forget_service(self) -> None:
        """Count it as one that never had a core."""
        self._forgone = -self.run_time.ticks()

    def count_as_served(self, least: int) -> None:
        """Count it as served for at least `least` ticks: not wanting a core for long earns no credit."""
        self._forgone += max(0, least - self.served)
