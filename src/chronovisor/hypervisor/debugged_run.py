"""A vCPU's run while a debugger looks: single steps, and doing again what the vCPU did before."""

from __future__ import annotations

from typing import Protocol

from chronovisor.engine.concrete import Reason, Stop
from chronovisor.engine.interface import Engine
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.repetition import Passage, Repetition

_DEBUG = (Reason.BREAKPOINT, Reason.WATCHPOINT)


class Debugged(Protocol):
    """The vCPU."""

    state: Thread

    @property
    def number(self) -> int:
        """Its number in its machine."""


class DebuggedRun:
    """What a debugger wants of one vCPU's run."""

    def __init__(self, vcpu: Debugged) -> None:
        self._vcpu = vcpu
        self.single_step = False
        """Whether its run is to end after one instruction."""
        self.stepped = False
        """Whether that instruction is done, and its run has not yet ended for it."""
        self.repetition: Repetition | None = None
        """How it does again what it did; None if it does not."""

    def step(self, engine: Engine) -> Stop | None:
        """Execute one instruction, and return why the engine stopped; None if none may be executed.

        No interrupt from outside comes before it: who steps through code does not want to end in its
        handlers.
        """
        state = self._vcpu.state
        if self.repetition is None:
            return engine.step(state)
        if not self.allowed(1):
            return None
        stop = engine.run(state, 1)
        return engine.step(state) if self.passes(stop) else stop

    def ends(self) -> bool:
        """Whether a run that is to begin ends at once."""
        if self.stepped:
            # It was a hypercall that user space has answered.
            self.stepped = False
            return True
        return self.is_at_its_end()

    def is_at_its_end(self) -> bool:
        """Whether what it does again has come to its end."""
        return self.repetition is not None and self.repetition.left() == 0

    def allowed(self, budget: int) -> int:
        """How many instructions of a budget it may execute, if it does again what it did."""
        if self.repetition is None:
            return budget
        left, end = self.repetition.left(), self.repetition.end_of.get(self._vcpu.number)
        budget = budget if left is None else min(budget, left)
        return budget if end is None else min(budget, end - self._vcpu.state.executed)

    def passes(self, stop: Stop) -> bool:
        """Whether it goes over a break- or watchpoint: whether the engine has stopped there for no other
        reason than that it does again what it did.
        """
        return (
            stop.reason in _DEBUG
            and self.repetition is not None
            and self.repetition.passes(Passage(self._vcpu.number, self._vcpu.state.executed, stop.watchpoint))
        )
