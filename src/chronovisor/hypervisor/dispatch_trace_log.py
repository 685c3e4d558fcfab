"""The dispatch trace log: one entry for each time that a vCPU is dispatched, in the guest's memory and time.

Layout and order of writes: LoPAR 1.1, section 14.11.2.2; the entry is stored before the index that makes it
known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.papr.vpa import (
    DTL_ENTRY_SIZE,
    VPA_DTL_INDEX,
    VPA_ENQUEUE_DISPATCH_TB,
    DispatchLogEntry,
    entries_in,
)
from chronovisor.timebase.offset import guest_time
from chronovisor.timebase.types import GuestTime, Ticks

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core, HardwareThread
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu

DISPATCH_REASON = 7
"""What KVM says of every dispatch: it does not tell why."""


class DispatchTraceLog:
    """Writes the log of one vCPU, where the guest has registered one."""

    def __init__(self, vcpu: VirtualCpu) -> None:
        self._vcpu = vcpu
        self._written = 0

    def begin_anew(self) -> None:
        """Write from the first entry on: the guest registered a log."""
        self._written = 0

    def dispatched(self, thread: HardwareThread, waited: Ticks) -> GuestTime | None:
        """Log that the vCPU is dispatched on `thread` after it `waited`, ready, for a core; None without a
        log.

        To be called when the core's timebase is the guest's, before the vCPU's first instruction.
        """
        areas, memory = self._vcpu.areas, self._vcpu.machine.memory
        if not areas.vpa.in_use:
            return None
        vpa = areas.vpa.in_use
        waited_so_far = memory.load(vpa + VPA_ENQUEUE_DISPATCH_TB.offset, 8, little=False)
        memory.store(vpa + VPA_ENQUEUE_DISPATCH_TB.offset, 8, waited_so_far + waited.value, little=False)
        log = areas.dispatch_trace_log
        if not log.in_use:
            return None
        moment = self.moment(thread.core)
        entry = DispatchLogEntry(
            dispatch_reason=DISPATCH_REASON,
            preempt_reason=0,
            processor_id=thread.core.number * thread.core.host.threads_per_core + thread.number,
            enqueue_to_dispatch=min(waited.value, 0xFFFF_FFFF),
            ready_to_enqueue=0,
            waiting_to_ready=0,
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
