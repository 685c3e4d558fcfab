"""The dispatch trace log: an entry for each time that a vCPU is dispatched, in the guest's memory and time.

Layout and order of writes: LoPAR 1.1, section 14.11.2.2; the entry is stored before the index that makes it
known. A dispatch is logged where the guest's mask has the preemption that came before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.papr.vpa import (
    DTL_ENTRY_SIZE,
    VPA_DISPERSION_COUNT,
    VPA_DTL_ENABLE_MASK,
    VPA_DTL_INDEX,
    VPA_ENQUEUE_DISPATCH_TB,
    VPA_READY_ENQUEUE_TB,
    VPA_WAIT_READY_TB,
    AreaField,
    DispatchLogEntry,
    DispatchReason,
    LogEvents,
    PreemptReason,
    entries_in,
)
from chronovisor.timebase.offset import guest_time
from chronovisor.timebase.types import GuestTime

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core, HardwareThread
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu
    from chronovisor.memory.guest_memory import GuestMemory

_MOST = 0xFFFF_FFFF
"""The longest wait that an entry can tell."""


class Dispatch:
    """A dispatch to come: why it comes, and what the vCPU has waited for since it last ran, in ticks."""

    __slots__ = ("dispatched_by", "enqueued", "is_plain", "preempted_by", "ready", "waited")

    def __init__(self, preempted_by: PreemptReason = PreemptReason.FIRMWARE_EVENT) -> None:
        self.is_plain = preempted_by is PreemptReason.FIRMWARE_EVENT
        """Whether it is one after an exit to user space, without a wait: all of these are alike."""
        self.preempted_by = preempted_by
        self.dispatched_by = (
            DispatchReason.TIME_SLICE
            if preempted_by is PreemptReason.TIME_SLICE
            else DispatchReason.FIRMWARE_EVENT
        )
        self.waited = 0
        """For something to run for: from an H_CEDE to what ended it."""
        self.ready = 0
        """From then until it asked for a core."""
        self.enqueued = 0
        """For a core that another virtual core had: its stolen time. Neither in user space nor ceded is
        stolen.
        """

    def woken(self, reason: DispatchReason, waited: int, ready: int) -> None:
        """Note what ended an H_CEDE that lasted `waited` ticks, `ready` ticks ago."""
        self.is_plain = False
        self.dispatched_by = reason
        self.waited += waited
        self.ready += ready

    def waited_for_core(self, ticks: int) -> None:
        """Note that it waited so long for a core."""
        self.is_plain = False
        self.enqueued += ticks


class DispatchTraceLog:
    """Writes the log of one vCPU, where the guest has registered one."""

    def __init__(self, vcpu: VirtualCpu) -> None:
        self._vcpu = vcpu
        self._written = 0
        self._ran_on: int | None = None
        """The physical processor of the last dispatch."""

    def begin_anew(self) -> None:
        """Begin with another log than before: at its first entry, or where it stood when it moved here."""
        areas = self._vcpu.areas
        goes_on = areas.dispatch_trace_log.goes_on and areas.vpa.in_use
        self._written = (
            self._vcpu.machine.memory.load(
                areas.vpa.in_use + VPA_DTL_INDEX.offset, VPA_DTL_INDEX.size, little=False
            )
            if goes_on
            else 0
        )

    def dispatched(self, thread: HardwareThread, dispatch: Dispatch) -> GuestTime | None:
        """Count the waits of a dispatch on `thread`, and log it; None where it is not logged.

        To be called when the core's timebase is the guest's, before the vCPU's first instruction.
        """
        areas, memory = self._vcpu.areas, self._vcpu.machine.memory
        vpa = areas.vpa.in_use
        if not vpa:
            return None
        for field, ticks in (
            (VPA_ENQUEUE_DISPATCH_TB, dispatch.enqueued),
            (VPA_READY_ENQUEUE_TB, dispatch.ready),
            (VPA_WAIT_READY_TB, dispatch.waited),
        ):
            if ticks:
                _add(memory, vpa, field, ticks)
        processor = thread.core.number * thread.core.host.threads_per_core + thread.number
        if processor != self._ran_on:
            if self._ran_on is not None:
                _add(memory, vpa, VPA_DISPERSION_COUNT, 1)
            self._ran_on = processor
        log = areas.dispatch_trace_log
        if not log.in_use:
            return None
        mask = memory.load(vpa + VPA_DTL_ENABLE_MASK.offset, VPA_DTL_ENABLE_MASK.size, little=False)
        if not mask & LogEvents.of(dispatch.preempted_by):
            return None
        moment = self.moment(thread.core)
        entry = DispatchLogEntry(
            dispatch_reason=dispatch.dispatched_by,
            preempt_reason=dispatch.preempted_by,
            processor_id=processor,
            enqueue_to_dispatch=min(dispatch.enqueued, _MOST),
            ready_to_enqueue=min(dispatch.ready, _MOST),
            waiting_to_ready=min(dispatch.waited, _MOST),
            timebase=moment.value,
            fault_addr=0,
            srr0=self._vcpu.state.CIA,
            srr1=self._vcpu.state.MSR,
        )
        place = self._written % entries_in(log.size_in_use)
        memory.write(log.in_use + place * DTL_ENTRY_SIZE, entry.pack())
        self._written += 1
        memory.store(vpa + VPA_DTL_INDEX.offset, VPA_DTL_INDEX.size, self._written, little=False)
        return moment

    def moment(self, core: Core) -> GuestTime:
        """Return the time that the entry carries: the guest's, since the guest reads it."""
        assert core.applied is not None
        return guest_time(core.timebase, core.applied)


def _add(memory: GuestMemory, area: int, field: AreaField, amount: int) -> None:
    """Add to a counter in the guest's memory, which goes on where it stood when the guest moves."""
    at = area + field.offset
    memory.store(at, field.size, memory.load(at, field.size, little=False) + amount, little=False)
