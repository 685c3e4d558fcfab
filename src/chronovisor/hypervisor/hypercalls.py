"""The hypercalls that are answered here, without a switch of worlds; user space answers the rest."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import TYPE_CHECKING

from chronovisor.hypervisor.exits import Hypercall
from chronovisor.hypervisor.vpa import FUNCTION_SHIFT
from chronovisor.isa.bits import MSR, ProgramCause
from chronovisor.papr.hcalls import CALL_ARGUMENTS, Hcall, SetMode, Status
from chronovisor.timebase.types import MASK64

if TYPE_CHECKING:
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu

_PR = int(MSR.PR)
_ARGUMENTS = slice(4, 4 + CALL_ARGUMENTS)
# By names of their own: to look a member up in an Enum takes as long as a clock's reading.
_SUCCESS, _PARAMETER = Status.SUCCESS, Status.PARAMETER

Answer = Callable[["VirtualCpu", MutableSequence[int]], Status | None]
"""Answers a call by a status, with the arguments and then results in r4 and on; None leaves it to user space.
"""


def answer(vcpu: VirtualCpu) -> Hypercall | None:
    """Answer the hypercall that the vCPU has just made, or return it for user space to answer."""
    state = vcpu.state
    if state.MSR & _PR:
        _refuse_user(vcpu)
        return None
    gpr = state.gpr
    number = gpr[3]
    if number in vcpu.machine.answered:
        status = ANSWERS[number](vcpu, gpr)
        if status is not None:
            gpr[3] = status & MASK64
            return None
    return Hypercall(number, tuple(gpr[_ARGUMENTS]))


def _refuse_user(vcpu: VirtualCpu) -> None:
    """`sc 1` in problem state is none of ours: the guest's kernel gets it."""
    engine, state = vcpu.machine.engine, vcpu.state
    if vcpu.host.cpu_model.reflects_user_hypercall:
        engine.interrupt(state, "SYSTEM_CALL")
    else:
        state.CIA = (state.CIA - 4) & MASK64
        engine.interrupt(state, "PROGRAM", int(ProgramCause.PRIVILEGED))


def _cede(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status:
    vcpu.cede()
    return _SUCCESS


def _prod(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status:
    target = vcpu.machine.vcpus.get(gpr[4])
    if target is None:
        return _PARAMETER
    target.prod()
    return _SUCCESS


def _confer(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status:
    """Give way to one processor, if it does not run (its yield count is still the one that was seen), or to
    all.
    """
    number, yield_count = gpr[4], gpr[5] & 0xFFFF_FFFF
    if number != MASK64:
        target = vcpu.machine.vcpus.get(number)
        if target is None:
            return _PARAMETER
        if target.areas.yield_count(vcpu.machine.memory) != yield_count:
            return _SUCCESS
    vcpu.host.scheduler.give_way()
    return _SUCCESS


def _register_vpa(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status:
    flags, number, address = gpr[4:7]
    target = vcpu.machine.vcpus.get(number)
    if target is None:
        return _PARAMETER
    with vcpu.host.scheduler.monitor:
        status = target.areas.call(flags >> FUNCTION_SHIFT & 7, address, vcpu.machine.memory)
    if status is _SUCCESS and target is vcpu:
        # It takes effect at an entry, and the guest may look at once.
        vcpu.enter_anew = True
    return status


def _random(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status:
    gpr[4] = vcpu.host.random_bits(64)
    return _SUCCESS


_PRIVILEGE_HYPERVISOR = 3
"""In CIABR's last two bits: stop at an address of the hypervisor, which is not the guest's to ask for."""


def _set_mode(vcpu: VirtualCpu, gpr: MutableSequence[int]) -> Status | None:
    flags, resource, value1, value2 = gpr[4:8]
    match resource:
        case SetMode.CIABR:
            if flags:
                return Status.UNSUPPORTED_FLAG_START
            if value2:
                return Status.P4
            if value1 & 3 == _PRIVILEGE_HYPERVISOR:
                return Status.P3
            vcpu.state.set("CIABR", value1)
            return _SUCCESS
        case SetMode.DAWR0:
            # No watchpoints in this processor: what KVM says of one whose own are out of order.
            return Status.P2
        case _:
            return None


ANSWERS: dict[int, Answer] = {
    Hcall.CEDE: _cede,
    Hcall.CONFER: _confer,
    Hcall.PROD: _prod,
    Hcall.RANDOM: _random,
    Hcall.REGISTER_VPA: _register_vpa,
    Hcall.SET_MODE: _set_mode,
}
"""The hypercalls that can be answered here."""
