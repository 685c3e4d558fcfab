"""Writes the dispatch trace log: an entry for each dispatch of a vCPU, in the guest's memory and time.

Layout and order of writes: LoPAR 1.1, section 14.11.2.2. The entry is stored before the index that makes it
known. A dispatch is logged if the guest's mask contains the preemption before it.
"""

from __future__ import annotations

from typing import Protocol

from chronovisor.engine.state import Thread
from chronovisor.hypervisor.dispatch import Dispatch
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.vpa import Areas
from chronovisor.memory.guest_memory import GuestMemory
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
    LogEvents,
    entries_in,
)
from chronovisor.processor.core import HardwareThread
from chronovisor.timebase.offset import guest_time
from chronovisor.timebase.types import GuestTime

_MOST = 0xFFFF_FFFF
"""The longest wait that an entry can hold."""


class Logged(Protocol):
    """The vCPU whose dispatches are logged."""

    areas: Areas
    state: Thread

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""


class DispatchLogWriter:
    """Writes the log of one vCPU, if the guest has registered one."""

    def __init__(self, vcpu: Logged) -> None:
        self._vcpu = vcpu
        self._written = 0
        self._ran_on: int | None = None
        """The physical processor of the last dispatch."""

    def begin_anew(self) -> None:
        """Begin another log: at its first entry, or at its index if the log moved here with the guest."""
        areas = self._vcpu.areas
        goes_on = areas.dispatch_trace_log.goes_on and areas.vpa.in_use
        self._written = (
            self._vcpu.memory.load(areas.vpa.in_use + VPA_DTL_INDEX.offset, VPA_DTL_INDEX.size, little=False)
            if goes_on
            else 0
        )

    def forget_processor(self) -> None:
        """Forget on which processor the last dispatch was."""
        self._ran_on = None

    def dispatched(self, stay: Stay, thread: HardwareThread, dispatch: Dispatch) -> GuestTime | None:
        """Count the waits of a dispatch on `thread` and log it; return its time, or None if it is not logged.

        To be called when the core's timebase is the guest's, before the vCPU's first instruction.
        """
        areas = self._vcpu.areas
        vpa, log = areas.vpa.in_use, areas.dispatch_trace_log
        if not vpa:
            return None
        if not dispatch.is_plain or thread.pir != self._ran_on:
            self._count(vpa, thread, dispatch)
        if not log.in_use:
            return None
        memory = self._vcpu.memory
        mask = memory.load(vpa + VPA_DTL_ENABLE_MASK.offset, VPA_DTL_ENABLE_MASK.size, little=False)
        if not mask & LogEvents.of(dispatch.preempted_by):
            return None
        moment = self.moment(stay)
        entry = DispatchLogEntry(
            dispatch_reason=dispatch.dispatched_by,
            preempt_reason=dispatch.preempted_by,
            processor_id=thread.pir,
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

    def _count(self, vpa: int, thread: HardwareThread, dispatch: Dispatch) -> None:
        """Count the waits of a dispatch, and whether it is on another processor than the last one."""
        memory = self._vcpu.memory
        _add(memory, vpa, VPA_ENQUEUE_DISPATCH_TB, dispatch.enqueued)
        _add(memory, vpa, VPA_READY_ENQUEUE_TB, dispatch.ready)
        _add(memory, vpa, VPA_WAIT_READY_TB, dispatch.waited)
        if thread.pir != self._ran_on:
            if self._ran_on is not None:
                _add(memory, vpa, VPA_DISPERSION_COUNT, 1)
            self._ran_on = thread.pir

    def moment(self, stay: Stay) -> GuestTime:
        """Return the time that the entry carries: the guest's, because the guest reads it."""
        assert stay.applied is not None
        return guest_time(stay.core.timebase, stay.applied)


def _add(memory: GuestMemory, area: int, field: AreaField, amount: int) -> None:
    """Add to a counter in the guest's memory. The counter moves with the guest."""
    if amount:
        memory.add(area + field.offset, field.size, amount)
