"""KVM_RUN of a vCPU that a debugger looks at: up to a breakpoint, or through one instruction."""

from __future__ import annotations

import time
from typing import Final, Protocol

from chronovisor.kvm.exits import DebugExit, Exit, HcallExit, MmioExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME
from chronovisor.kvm.linux.breakpoints import Breakpoints
from chronovisor.kvm.linux.successors import (
    INSTRUCTION_STORAGE,
    Place,
    after_branch,
    after_other,
    interrupt,
)
from chronovisor.kvm.structures import Regs

_TAR: Final = ONE_REG_BY_NAME["TAR"].id
_LPCR: Final = ONE_REG_BY_NAME["LPCR_64"].id
_WHILE_ANOTHER_STEPS: Final = 0.001
"""Seconds until a vCPU that came to where another one's step ends tries again."""


class Debugged(Protocol):
    """A vCPU, as far as a debugged run needs it. Its thread is outside KVM_RUN."""

    def enter(self) -> Exit:
        """KVM_RUN, once."""

    def finish_answer(self) -> None:
        """Have the answer to the last exit put into the registers, and execute nothing."""

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""

    def get_one_reg(self, register_id: int) -> int:
        """KVM_GET_ONE_REG."""

    def instruction_at(self, place: Place) -> tuple[int | None, int]:
        """The guest real address of a place, None if it leads nowhere, and the word there."""


class DebuggedRun:
    """The runs of one vCPU while there are breakpoints or it is stepped."""

    def __init__(self, vcpu: Debugged, breakpoints: Breakpoints) -> None:
        self._vcpu = vcpu
        self._breakpoints = breakpoints
        self._step_is_done = False
        """The instruction that was stepped over has left the guest for user space."""
        self.steps = False

    @property
    def needed(self) -> bool:
        """Whether a run is not just KVM_RUN."""
        return self.steps or bool(self._breakpoints.chosen)

    def run(self) -> Exit:
        """Run to the next exit."""
        if not self.steps:
            return self._run_to(frozenset(), frozenset())
        if self._step_is_done:
            self._step_is_done = False
            self._vcpu.finish_answer()
            return DebugExit(self._vcpu.get_regs().pc, stepped=True)
        regs = self._vcpu.get_regs()
        here, word = self._vcpu.instruction_at(Place(regs.pc, regs.msr))
        lpcr = self._vcpu.get_one_reg(_LPCR)
        if here is None:
            return self._run_to(self._reals([interrupt(INSTRUCTION_STORAGE, regs.msr, lpcr)]), frozenset())
        if (branched := after_branch(word, regs, self._vcpu.get_one_reg(_TAR))) is not None:
            self._vcpu.set_regs(branched)
            return DebugExit(branched.pc, stepped=True)
        ends = self._reals([*after_other(word, regs, lpcr), interrupt(INSTRUCTION_STORAGE, regs.msr, lpcr)])
        exit_ = self._run_to(ends, frozenset({here}))
        self._step_is_done = isinstance(exit_, HcallExit | MmioExit)
        return exit_

    def _run_to(self, ends: frozenset[int], without: frozenset[int]) -> Exit:
        """Run to a breakpoint, or to the end of a step."""
        with self._breakpoints.inserted(ends, without):
            while isinstance(exit_ := self._vcpu.enter(), DebugExit):
                at, _ = self._vcpu.instruction_at(Place(exit_.address, self._vcpu.get_regs().msr))
                if at in ends:
                    return DebugExit(exit_.address, stepped=True)
                if at in self._breakpoints.chosen:
                    return exit_
                time.sleep(_WHILE_ANOTHER_STEPS)
        return exit_

    def _reals(self, places: list[Place]) -> frozenset[int]:
        found = (self._vcpu.instruction_at(place)[0] for place in places)
        return frozenset(real for real in found if real is not None)
