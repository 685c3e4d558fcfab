"""A vCPU's decrementer: in a hardware thread while the vCPU is in the guest, otherwise kept as its expiry."""

from __future__ import annotations

from chronovisor.processor.core import HardwareThread
from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.decrementer import DecWidth, rebased, remaining
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import GuestTime, HostTime, Offset, SourceTime, Ticks


class Timer:
    """The decrementer of one vCPU.

    Outside the guest it is its expiry, held in host time. The register interface shows the expiry in guest
    time; setting an offset leaves what is shown unchanged (`rebase`).
    """

    def __init__(self, clock: HostClock, offset: Offset) -> None:
        self._clock = clock
        self._source = clock.source
        self._expiry: HostTime = GuestTime(0) - offset
        self.thread: HardwareThread | None = None
        """The hardware thread whose decrementer it is in; None outside the guest."""

    # Outside the guest

    def expiry(self, offset: Offset) -> GuestTime:
        """Return when DEC goes to -1, in the time of a guest with this `offset`."""
        return self._expiry + offset

    def set_expiry(self, expiry: GuestTime, offset: Offset) -> None:
        """Set when DEC goes to -1, in the time of a guest with this `offset`."""
        self._expiry = expiry - offset

    def rebase(self, old: Offset, new: Offset) -> None:
        """Keep the expiry in guest time while the offset changes from `old` to `new`."""
        self._expiry = rebased(self._expiry, old, new)

    def expire(self) -> None:
        """Have the decrementer expire now."""
        self._expiry = self._clock.now()

    # Into the guest and out

    def load(
        self, thread: HardwareThread, width: DecWidth, offset: Offset, entered_with: Offset, now: SourceTime
    ) -> None:
        """Load DEC on `thread` at tick `now`.

        The expiry was kept under `offset`. If the entry added another offset, the guest time of the expiry
        stays.
        """
        expiry = self._expiry
        if offset is not entered_with:
            expiry = rebased(expiry, offset, entered_with)
        thread.dec_width = width
        thread.decrementer.load(expiry, now)
        self.thread = thread

    def keep(self, timebase: HostTimebase, offset: Offset, entered_with: Offset, now: SourceTime) -> HostTime:
        """Keep the expiry of DEC as it was at tick `now`, and return it; `timebase` is the thread's core's.

        The guest set DEC under the offset that its entry added. If `offset` was set since, the guest time of
        the expiry stays.
        """
        thread = self.thread
        assert thread is not None, "only a decrementer that was loaded is kept"
        self.thread = None
        expiry = thread.decrementer.expiry(timebase, thread.dec_width, now)
        if offset is not entered_with:
            expiry = rebased(expiry, entered_with, offset)
        self._expiry = expiry
        return expiry

    # In the guest and outside

    def pending(self) -> bool:
        """Return whether the decrementer's exception exists."""
        thread = self.thread
        if thread is not None:
            return thread.decrementer.asserted(thread.dec_width)
        return remaining(self._expiry, self._clock.now()) < Ticks(0)

    def due(self) -> SourceTime:
        """Return the tick of the clock at which the exception comes to exist, if it does not exist yet."""
        thread = self.thread
        if thread is None:
            return SourceTime(self._clock.ticks_at(self._expiry) + 1)
        return SourceTime(self._source.ticks() + thread.decrementer.read(thread.dec_width) + 1)

    def overdue(self) -> int:
        """Return how many ticks ago the exception came to exist; 0 if it does not exist yet."""
        return max(0, self._source.ticks() - self.due())
