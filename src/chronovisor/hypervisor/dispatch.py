"""A dispatch of a vCPU: why it comes, and what the vCPU has waited for since it last ran."""

from __future__ import annotations

from chronovisor.papr.vpa import DispatchReason, PreemptReason


class Dispatch:
    """A dispatch to come. Waits are in ticks."""

    __slots__ = ("dispatched_by", "enqueued", "is_plain", "preempted_by", "ready", "waited")

    def __init__(self, preempted_by: PreemptReason = PreemptReason.FIRMWARE_EVENT) -> None:
        self.is_plain = preempted_by is PreemptReason.FIRMWARE_EVENT
        """Whether it follows an exit to user space and waited for nothing: all such dispatches are alike."""
        self.preempted_by = preempted_by
        self.dispatched_by = (
            DispatchReason.TIME_SLICE
            if preempted_by is PreemptReason.TIME_SLICE
            else DispatchReason.FIRMWARE_EVENT
        )
        self.waited = 0
        """The wait for something to run for: from an H_CEDE to the event that ended it."""
        self.ready = 0
        """The wait from that event until the vCPU asked for a core."""
        self.enqueued = 0
        """The wait for a core that another virtual core had: stolen time. Time in user space or ceded is not
        stolen.
        """

    def woken(self, reason: DispatchReason, waited: int, ready: int) -> None:
        """Note what ended an H_CEDE that lasted `waited` ticks, `ready` ticks ago."""
        self.is_plain = False
        self.dispatched_by = reason
        self.waited += waited
        self.ready += ready

    def waited_for_core(self, ticks: int) -> None:
        """Note that the vCPU waited so long for a core."""
        self.is_plain = False
        self.enqueued += ticks
