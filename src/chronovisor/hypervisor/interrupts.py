"""Which interrupts are pending for a vCPU, and in which order they are delivered."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from chronovisor.engine.hypercalls import LINE_WORD
from chronovisor.engine.interface import Engine
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.timer import Timer
from chronovisor.isa.bits import MSR

_EE = int(MSR.EE)


class Monitored(Protocol):
    """What has the host's monitor."""

    @property
    def monitor(self) -> AbstractContextManager[bool]:
        """The lock under which pending interrupts change."""


class PendingInterrupts:
    """The interrupts from outside that wait for a vCPU. Set under the host's monitor, from any thread."""

    __slots__ = ("_monitored", "_timer", "level", "machine_check", "system_reset", "thread")

    def __init__(self, timer: Timer, monitored: Monitored) -> None:
        self._timer = timer
        self._monitored = monitored
        self.system_reset = False
        """Once: its delivery clears it."""
        self.machine_check: int | None = None
        """Once: the bits of SRR1 for its cause."""
        self.level = False
        """The external interrupt's line as user space drives it: it stays until user space lowers it."""
        self.thread: Thread
        """The vCPU's thread: `line_mask` says how the interrupt controller raises the line."""

    @property
    def external(self) -> bool:
        """Whether the external interrupt's line is raised, by user space or the interrupt controller."""
        thread = self.thread
        return self.level or bool(thread.shared.words[LINE_WORD] & thread.line_mask)

    def wake(self) -> bool:
        """Return whether something is pending that ends an H_CEDE (which has set MSR[EE])."""
        return self.external or self.system_reset or self.machine_check is not None or self._timer.pending()

    def deliver(self, state: Thread, engine: Engine) -> str | None:
        """Enter the pending interrupt of the highest rank that MSR lets through, if there is one; return its
        name.

        The order is that of Power ISA 3.0B Book III 6.7.2: system reset and machine check, which nothing
        masks, then external before decrementer. An entry clears MSR[EE], so an instruction boundary takes at
        most one.
        """
        if self.system_reset:
            self.system_reset = False
            engine.interrupt(state, "SYSTEM_RESET", 0)
            return "SYSTEM_RESET"
        if self.machine_check is not None:
            with self._monitored.monitor:
                cause, self.machine_check = self.machine_check, None
            engine.interrupt(state, "MACHINE_CHECK", cause)
            return "MACHINE_CHECK"
        if state.MSR & _EE:
            if self.level or state.shared.words[LINE_WORD] & state.line_mask:
                engine.interrupt(state, "EXTERNAL", 0)
                return "EXTERNAL"
            if self._timer.pending():
                engine.interrupt(state, "DECREMENTER", 0)
                return "DECREMENTER"
        return None
