"""H_CEDE: how a vCPU gives its processor up, and what wakes it."""

from __future__ import annotations

from typing import Final, Protocol

from chronovisor.engine.state import Thread
from chronovisor.hypervisor.dispatch import Dispatch
from chronovisor.hypervisor.interrupts import PendingInterrupts
from chronovisor.hypervisor.scheduler import Scheduler
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.timer import Timer
from chronovisor.papr.vpa import DispatchReason
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.run_trace import RunTrace

PROD_WORD: Final = 1
"""The shared word that says that the vCPU was prodded: it wakes from H_CEDE, or from the next one."""


class Sleeper(Protocol):
    """The vCPU that cedes."""

    kicked: bool
    next_dispatch: Dispatch
    state: Thread
    trace: RunTrace | None


class Cede:
    """The H_CEDE of one vCPU."""

    def __init__(
        self,
        vcpu: Sleeper,
        timer: Timer,
        pending: PendingInterrupts,
        scheduler: Scheduler,
        source: TickSource,
    ) -> None:
        self._vcpu = vcpu
        self._timer = timer
        self._pending = pending
        self._scheduler = scheduler
        self._source = source
        self.ceded = False
        """Whether the vCPU has given its processor up and waits."""

    def prod(self) -> None:
        """Wake the vCPU from H_CEDE: from the present one, otherwise from the next. From any thread."""
        state = self._vcpu.state
        state.shared.words[PROD_WORD] = 1
        state.request_exit()
        self._scheduler.changed()

    def wait(self, stay: Stay | None) -> None:
        """Wait for what ends H_CEDE, the run or the virtual core's stay, and tell whoever traces the vCPU.

        Inside a `stay` it naps on its hardware thread while siblings run; otherwise it waits without a core.
        """
        trace = self._vcpu.trace
        if trace is not None:
            trace.ceding()
        reason = self._block() if stay is None else self._nap(stay)
        if trace is not None:
            trace.woken("KICK" if reason is None else reason.name)

    def _block(self) -> DispatchReason | None:
        """Wait, without a core, for what ends H_CEDE or the run; return what ended H_CEDE, None for the run's
        end.
        """
        begun = self._source.ticks()
        with self._scheduler.monitor:
            self._scheduler.wait(lambda: self._vcpu.kicked or self._wakes(), self._timer.due)
            if not self._wakes():
                return None
            reason, now = self._woken_by(), self._source.ticks()
            # A vCPU that its decrementer wakes was ready at the expiry, however late its thread looked.
            ready = self._timer.due() if reason is DispatchReason.DECREMENTER_INTERRUPT else now
            ready = min(max(begun, ready), now)
            self._vcpu.next_dispatch.woken(reason, ready - begun, now - ready)
            self._awake()
            return reason

    def _nap(self, stay: Stay) -> DispatchReason | None:
        """Wait on the hardware thread while siblings run, for what ends H_CEDE or the virtual core's stay;
        return what ended H_CEDE, None for the stay's end.
        """
        with self._scheduler.monitor:
            if stay.all_ceded and not self._wakes():
                # No vCPU runs the guest: give the core back.
                stay.leave_soon()
                self._scheduler.changed()
            self._scheduler.wait(lambda: self._vcpu.kicked or stay.leaving or self._wakes(), self._timer.due)
            if not self._wakes():
                return None
            reason = self._woken_by()
            self._awake()
            return reason

    def _wakes(self) -> bool:
        return bool(self._vcpu.state.shared.words[PROD_WORD]) or self._pending.wake()

    def _awake(self) -> None:
        self._vcpu.state.shared.words[PROD_WORD] = 0
        self.ceded = False

    def _woken_by(self) -> DispatchReason:
        """Return what ends the H_CEDE, the most urgent reason first."""
        pending = self._pending
        if pending.system_reset:
            return DispatchReason.SYSTEM_RESET
        if pending.machine_check is not None:
            return DispatchReason.FIRMWARE_EVENT
        if pending.external:
            return DispatchReason.EXTERNAL_INTERRUPT
        return DispatchReason.DECREMENTER_INTERRUPT if self._timer.pending() else DispatchReason.PROD
