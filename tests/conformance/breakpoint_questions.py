"""Questions about breakpoints and single steps.

They are asked apart from the others, because not every machine's KVM has breakpoints.
"""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import DebugExit, Exit, HcallExit
from chronovisor.kvm.interface import HostOptions, System, Vcpu
from chronovisor.kvm.provider import open_system
from chronovisor.timebase.clock import RealTime
from conformance.questions import Answers, Question
from conformance.rig import CODE, END, STOP, rig


def _said(exit_: Exit) -> str:
    if isinstance(exit_, DebugExit):
        return f"{'stepped to' if exit_.stepped else 'breakpoint at'} {exit_.address - CODE:#x}"
    return type(exit_).__name__


def breakpoints(system: System) -> Answers:
    """A run ends before the instruction at a breakpoint, which memory does not show, and only there."""
    answers: Answers = {}
    with rig(system) as r:
        vcpu = r.vcpus[0]
        r.enter(f"li r20, 0; again: addi r20, r20, 1; cmpldi r20, 3; blt again; {STOP}")
        code = r.memory.read(CODE, 32)
        r.vm.break_at({CODE + 4, CODE + 0xC})
        answers["the first"] = _said(vcpu.run())
        answers["memory is the guest's own"] = r.memory.read(CODE, 32) == code
        answers["what was executed"] = vcpu.get_regs().gpr[20]
        r.vm.break_at({CODE + 0xC})
        answers["the second"] = _said(vcpu.run())
        answers["what was executed then"] = vcpu.get_regs().gpr[20]
        vcpu.single_step(True)
        answers["a step over it"] = _said(vcpu.run())
        vcpu.single_step(False)
        answers["the next turn"] = _said(vcpu.run())
        answers["what was executed by then"] = vcpu.get_regs().gpr[20]
        r.vm.break_at(())
        answers["without"] = _said(vcpu.run())
        answers["in the end"] = vcpu.get_regs().gpr[20]
    return answers


def _steps(vcpu: Vcpu, count: int) -> list[str]:
    vcpu.single_step(True)
    said = []
    for _ in range(count):
        exit_ = vcpu.run()
        said.append(_said(exit_))
        if isinstance(exit_, HcallExit):
            exit_.ret = 77
    vcpu.single_step(False)
    return said


def single_steps(system: System) -> Answers:
    """A step is one instruction: plain ones, branches of each kind, calls, a trap, a system call."""
    answers: Answers = {}
    with rig(system) as r:
        vcpu = r.vcpus[0]
        text = f"""
            li r20, 2
            mtctr r20
        itself: bdnz itself
            li r21, 5
            cmpldi r21, 5
            bne itself
            beq over
            li r21, 6
        over: bl called
            li r3, {END:#x}
            sc 1
            mr r22, r3
            b .
        called: mflr r23
            addi r21, r21, 1
            blr
        """
        r.enter(text)
        answers["plain and branches"] = _steps(vcpu, 14)
        answers["around a hypercall"] = _steps(vcpu, 4)
        answers["the hypercall's answer"] = vcpu.get_regs().gpr[22]
        answers["a branch to itself"] = _steps(vcpu, 2)
        regs = vcpu.get_regs()
        answers["counter"], answers["link"] = regs.ctr, regs.lr - CODE
        answers["counted"] = [regs.gpr[n] for n in (20, 21)]
    with rig(system) as r:
        # Interrupts lead to real addresses: LPCR[AIL] is clear.
        r.put("b .", 0xC00)
        r.put("b .", 0x700)
        vcpu = r.vcpus[0]
        r.enter("li r20, 1; twi 4, r20, 7; twi 4, r20, 1; b .")
        answers["a trap that is not taken"] = _steps(vcpu, 2)
        vcpu.single_step(True)
        taken = vcpu.run()
        answers["one that is taken leads to"] = (
            taken.address if isinstance(taken, DebugExit) else _said(taken)
        )
        vcpu.single_step(False)
        r.enter("sc; b .")
        vcpu.single_step(True)
        called = vcpu.run()
        answers["a system call leads to"] = called.address if isinstance(called, DebugExit) else _said(called)
        vcpu.single_step(False)
        regs = vcpu.get_regs()
        r.put("rfid", 0xC00)
        r.vm.memory_changed(0xC00, 4)
        answers["its return"] = _steps(vcpu, 1) if regs.pc == 0xC00 else regs.pc
    return answers


WITH_BREAKPOINTS: Final[dict[str, Question]] = {ask.__name__: ask for ask in (breakpoints, single_steps)}


def ask_with_breakpoints(provider: str, engine: str = "auto") -> dict[str, Answers]:
    """Ask a provider the questions about breakpoints. Return the answers by question; if it has none, its
    refusal as the answer to all.
    """
    system = open_system(HostOptions(source=RealTime(), engine=engine), provider)
    try:
        return {name: ask(system) for name, ask in WITH_BREAKPOINTS.items()}
    except KvmError as error:
        return {"refused": {"errno": error.errno, "words": str(error)}}
    finally:
        system.close()
