"""Who has a vCPU: its run, or other threads that read and change its registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chronovisor.hypervisor.scheduler import Scheduler


class Access:
    """The access to one vCPU.

    Who waits is told of each run's end if somebody waits for access, or if others may wait for the end too
    (`always_told`).
    """

    def __init__(self, scheduler: Scheduler, always_told: bool) -> None:
        self._scheduler = scheduler
        self._always_told = always_told
        self._running = False
        self._accesses = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait until the vCPU is outside its run, and keep it from running again inside this block.

        Its registers are read and written inside alone. A caller that must not wait for the guest kicks it
        first.
        """
        scheduler = self._scheduler
        with scheduler.monitor:
            self._accesses += 1
            try:
                scheduler.wait(lambda: not self._running)
                yield
            finally:
                self._accesses -= 1
                scheduler.changed()

    def begin_run(self) -> None:
        """Begin a run, once everyone who waits for access has had it."""
        # Set first, then look: of two threads that come at once at least one sees the other.
        self._running = True
        if self._accesses:
            self._let_others_first()

    def end_run(self) -> None:
        """End the run."""
        # Set first, then look, as above.
        self._running = False
        if self._accesses or self._always_told:
            self._scheduler.changed()

    def _let_others_first(self) -> None:
        scheduler = self._scheduler
        with scheduler.monitor:
            self._running = False
            scheduler.changed()
            scheduler.wait(lambda: not self._accesses)
            self._running = True
