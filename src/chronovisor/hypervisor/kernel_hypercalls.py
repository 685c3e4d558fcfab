"""The hypercalls that the hypervisor answers without an exit. User space answers the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from chronovisor.engine.interface import Engine
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.exits import Hypercall, PlainHypercall
from chronovisor.hypervisor.hypercall_programs import PROGRAMS, places
from chronovisor.hypervisor.vpa import FUNCTION_SHIFT, Areas
from chronovisor.hypervisor.xics import Presenter, Xics
from chronovisor.isa.bits import MSR, ProgramCause
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import Hcall, SetMode, Status
from chronovisor.timebase.types import MASK64

_PR = int(MSR.PR)
# Module-level names: looking a member up in an Enum takes as long as reading a clock.
_SUCCESS, _PARAMETER = Status.SUCCESS, Status.PARAMETER


class Target(Protocol):
    """A vCPU that a hypercall names."""

    areas: Areas
    state: Thread

    def prod(self) -> None:
        """Wake it from H_CEDE."""


class Caller(Target, Protocol):
    """The vCPU that has made a hypercall."""

    number: int
    enter_anew: bool
    """Set if it is to leave the guest and enter once more."""

    def cede(self) -> None:
        """Give its processor up."""


class CallingMachine(Protocol):
    """The machine whose vCPUs call."""

    memory: GuestMemory
    engine: Engine
    xics: Xics | None

    @property
    def vcpus(self) -> Mapping[int, Target]:
        """Its vCPUs by number."""


class CallingScheduler(Protocol):
    """The host's scheduler, as far as hypercalls need it."""

    @property
    def monitor(self) -> AbstractContextManager[bool]:
        """The lock under which shared areas change."""

    def give_way(self) -> None:
        """Let other vCPUs run."""


class KernelHypercalls:
    """Answers the hypercalls of one machine."""

    def __init__(
        self,
        machine: CallingMachine,
        scheduler: CallingScheduler,
        random_bits: Callable[[int], int],
        reflects_user_hypercall: bool,
    ) -> None:
        self.machine = machine
        self.scheduler = scheduler
        self.random_bits = random_bits
        self._reflects_user_hypercall = reflects_user_hypercall
        self.left: Callable[[int, tuple[int, ...]], Hypercall] = PlainHypercall
        """Makes what a run ends with if a call is left to user space, of its number and its arguments."""
        self._enabled = {int(number) for number in ANSWERED_BY_DEFAULT}
        self._use_enabled()

    def _use_enabled(self) -> None:
        self._answers = {number: ANSWERS[number] for number in self._enabled & ANSWERS.keys()}
        self.places = places(self._enabled)
        """Which programs the vCPUs' threads may use, as `Thread.answers`."""

    def enable(self, number: int, enabled: bool) -> None:
        """Answer a hypercall here, or leave it to user space."""
        if enabled:
            self._enabled.add(number)
        else:
            self._enabled.discard(number)
        self._use_enabled()
        for vcpu in tuple(self.machine.vcpus.values()):
            vcpu.state.answers = self.places

    def answer(self, caller: Caller) -> Hypercall | None:
        """Answer the hypercall that `caller` has just made, or return it for user space to answer."""
        state = caller.state
        if state.MSR & _PR:
            self._refuse_user(state)
            return None
        gpr = state.gpr
        number = gpr[3]
        answer = self._answers.get(number)
        if answer is not None:
            status = answer(self, caller, gpr)
            if status is not None:
                gpr[3] = status & MASK64
                return None
        return self.left(number, state.arguments())

    def _refuse_user(self, state: Thread) -> None:
        """Give `sc 1` in problem state to the guest's kernel: it is no hypercall."""
        engine = self.machine.engine
        if self._reflects_user_hypercall:
            engine.interrupt(state, "SYSTEM_CALL")
        else:
            state.CIA = (state.CIA - 4) & MASK64
            engine.interrupt(state, "PROGRAM", int(ProgramCause.PRIVILEGED))


Answer: TypeAlias = Callable[[KernelHypercalls, Caller, MutableSequence[int]], Status | None]
"""Answers a call with a status. Arguments, and then results, are in r4 and on. None leaves the call to user
space.
"""


def _cede(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status:
    caller.cede()
    return _SUCCESS


def _prod(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status:
    target = kernel.machine.vcpus.get(gpr[4])
    if target is None:
        return _PARAMETER
    target.prod()
    return _SUCCESS


def _confer(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status:
    """Give way to one processor, if it does not run (its yield count is still the one that was seen), or to
    all.
    """
    number, yield_count = gpr[4], gpr[5] & 0xFFFF_FFFF
    if number != MASK64:
        target = kernel.machine.vcpus.get(number)
        if target is None:
            return _PARAMETER
        if target.areas.yield_count(kernel.machine.memory) != yield_count:
            return _SUCCESS
    kernel.scheduler.give_way()
    return _SUCCESS


def _register_vpa(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status:
    flags, number, address = gpr[4:7]
    target = kernel.machine.vcpus.get(number)
    if target is None:
        return _PARAMETER
    with kernel.scheduler.monitor:
        status = target.areas.call((flags >> FUNCTION_SHIFT) & 7, address, kernel.machine.memory)
    if status is _SUCCESS and target is caller:
        # An area takes effect at an entry, and the guest may look at it at once.
        caller.enter_anew = True
    return status


def _random(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status:
    gpr[4] = kernel.random_bits(64)
    return _SUCCESS


_PRIVILEGE_HYPERVISOR = 3
"""The last two bits of CIABR: stop at an address of the hypervisor, which a guest may not ask for."""


def _set_mode(kernel: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status | None:
    flags, resource, value1, value2 = gpr[4:8]
    match resource:
        case SetMode.CIABR:
            if flags:
                return Status.UNSUPPORTED_FLAG_START
            if value2:
                return Status.P4
            if value1 & 3 == _PRIVILEGE_HYPERVISOR:
                return Status.P3
            caller.state.set("CIABR", value1)
            return _SUCCESS
        case SetMode.DAWR0:
            # This processor has no watchpoints. KVM answers so if the host's own are out of order.
            return Status.P2
        case _:
            return None


def _presented(answer: Callable[[Xics, Presenter, MutableSequence[int]], Status]) -> Answer:
    """An answer by the interrupt controller; without one that the caller has a presenter at, user space's."""

    def answered(calls: KernelHypercalls, caller: Caller, gpr: MutableSequence[int]) -> Status | None:
        xics = calls.machine.xics
        presenter = None if xics is None else xics.presenters.get(caller.number)
        if xics is None or presenter is None:
            return None
        with calls.scheduler.monitor:
            return answer(xics, presenter, gpr)

    return answered


@_presented
def _cppr(xics: Xics, presenter: Presenter, gpr: MutableSequence[int]) -> Status:
    xics.set_priority(presenter, gpr[4] & 0xFF)
    return _SUCCESS


@_presented
def _xirr(xics: Xics, presenter: Presenter, gpr: MutableSequence[int]) -> Status:
    gpr[4] = xics.accept(presenter)
    return _SUCCESS


@_presented
def _eoi(xics: Xics, presenter: Presenter, gpr: MutableSequence[int]) -> Status:
    xics.end(presenter, gpr[4] & 0xFFFF_FFFF)
    return _SUCCESS


@_presented
def _ipi(xics: Xics, presenter: Presenter, gpr: MutableSequence[int]) -> Status:
    target = xics.presenters.get(gpr[4])
    if target is None:
        return _PARAMETER
    xics.request(target, gpr[5] & 0xFF)
    return _SUCCESS


@_presented
def _ipoll(xics: Xics, presenter: Presenter, gpr: MutableSequence[int]) -> Status:
    target = xics.presenters.get(gpr[4])
    if target is None:
        return _PARAMETER
    gpr[4], gpr[5] = (target.cppr << 24) | target.xisr, target.mfrr
    return _SUCCESS


ANSWERS: dict[int, Answer] = {
    # Plain numbers: a look-up by an enum's members takes twice as long.
    int(number): answer
    for number, answer in (
        (Hcall.CPPR, _cppr),
        (Hcall.EOI, _eoi),
        (Hcall.IPI, _ipi),
        (Hcall.IPOLL, _ipoll),
        (Hcall.XIRR, _xirr),
        (Hcall.CEDE, _cede),
        (Hcall.CONFER, _confer),
        (Hcall.PROD, _prod),
        (Hcall.RANDOM, _random),
        (Hcall.REGISTER_VPA, _register_vpa),
        (Hcall.SET_MODE, _set_mode),
    )
}
"""The hypercalls that are answered here by Python: all that their programs decline."""

ANSWERABLE = ANSWERS.keys() | {one.number for one in PROGRAMS}
"""The hypercalls that need not reach user space. Without an answer above, user space has what is declined."""

ANSWERED_WITH_XICS = frozenset({Hcall.CPPR, Hcall.EOI, Hcall.IPI, Hcall.IPOLL, Hcall.XIRR})
"""Those of them that are answered once the machine has an interrupt controller."""

ANSWERED_BY_DEFAULT = frozenset({Hcall.CEDE, Hcall.PROD, Hcall.CONFER, Hcall.REGISTER_VPA})
"""Those of them that are answered even if user space does not ask for it."""
