"""Who has a vCPU: its run, or other threads that read and change its registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chronovisor.hypervisor.scheduler import Scheduler


class Access:
    """The access to one vCPU.

    Its run sets `running`, then looks at `wanted`; who wants access does the reverse. So of two that come at
    once at least one sees the other.
    """

    __slots__ = ("_scheduler", "running", "wanted")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.running = False
        """Whether the vCPU is in its run: set at the run's beginning and at its end."""
        self.wanted = 0
        """How many have access or wait for it. If there are any, a run begins with `let_others_first` and
        tells the scheduler of its end.
        """

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait until the vCPU is outside its run, and keep it from running again inside this block.

        Its registers are read and written inside alone. A caller that must not wait for the guest kicks it
        first.
        """
        scheduler = self._scheduler
        with scheduler.monitor:
            self.wanted += 1
            try:
                scheduler.wait(lambda: not self.running)
                yield
            finally:
                self.wanted -= 1
                scheduler.changed()

    def let_others_first(self) -> None:
        """Begin the run once everyone who wants access has had it."""
        scheduler = self._scheduler
        with scheduler.monitor:
            self.running = False
            scheduler.changed()
            scheduler.wait(lambda: not self.wanted)
            self.running = True
