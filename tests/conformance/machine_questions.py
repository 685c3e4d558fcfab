"""Questions that are not about time: kicks, pending answers, interrupts, the dirty log."""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.exits import HcallExit, Interrupted, MmioExit
from chronovisor.kvm.ids import MemoryFlag
from chronovisor.kvm.interface import System
from conformance.questions import Answers, question
from conformance.rig import END, MSR, MSR_EE, STOP, WATCH_TIME, Running, rig

_KICKS: Final = 100


@question
def kicks(system: System) -> Answers:
    """Kicks before a run, during a run, and several at once: none is lost, and none has effect twice."""
    answers: Answers = {}
    with rig(system) as r:
        r.enter(f"li r20, 1; {STOP}", r20=0)
        vcpu = r.vcpus[0]
        vcpu.kick()
        vcpu.kick()
        answers["before a run"] = type(vcpu.run()).__name__
        answers["no instruction was run"] = vcpu.get_regs().gpr[20] == 0
        answers["several are one"] = type(vcpu.run()).__name__
        answers["it ran then"] = vcpu.get_regs().gpr[20] == 1
    with rig(system) as r:
        r.enter(WATCH_TIME)
        ended = 0
        for number in range(_KICKS):
            running = Running(r.vcpus[0])
            if number % 3 == 0:
                r.wait_for_change()
            r.vcpus[0].kick()
            ended += isinstance(running.ended(), Interrupted)
        answers["runs that a kick ended"] = ended
    return answers


@question
def answers_of_hypercalls(system: System) -> Answers:
    """The answer to a hypercall is in the registers when the next run continues, or when a kick ends it."""
    with rig(system) as r:
        vcpu = r.vcpus[0]
        r.enter(f"li r3, {END:#x}; sc 1; mr r10, r3; mr r11, r4; {STOP}", r4=44, r5=55, r6=66)
        first = r.run()
        pc = vcpu.get_regs().pc
        first.ret, first.results = -4, [0x1111]
        vcpu.kick()
        kicked = vcpu.run()
        regs = vcpu.get_regs()
        return {
            "arguments": list(first.args[:3]),
            "number": first.nr,
            "the kicked run": type(kicked).__name__,
            "status": f"{regs.gpr[3]:#x}",
            "result": regs.gpr[4],
            "others keep what they held": regs.gpr[5:7] == [55, 66],
            "no instruction was run": regs.pc == pc,
            "the guest sees the status": f"{r.run().args[6]:#x}",
        }


@question
def external_interrupt(system: System) -> Answers:
    """KVM_INTERRUPT: the line stays raised until it is lowered, and the interrupt waits for MSR[EE]."""
    answers: Answers = {}
    with rig(system) as r:
        r.put(f"li r4, 0x500; {STOP}", 0x500)
        vcpu = r.vcpus[0]
        r.set("DEC_EXPIRY", r.guest_time() + (1 << 30))
        vcpu.interrupt(True)
        r.enter(f"li r4, 1; {STOP}")
        answers["interrupts off"] = r.run().args[0]
        r.enter(f"li r4, 1; {STOP}", msr=MSR | MSR_EE)
        answers["interrupts on"] = f"{r.run().args[0]:#x}"
        vcpu.interrupt(False)
        r.enter(f"li r4, 1; {STOP}", msr=MSR | MSR_EE)
        answers["lowered"] = r.run().args[0]
    return answers


@question
def dirty_log(system: System) -> Answers:
    """The log has the pages that the guest and user space write after logging is switched on."""
    page = system.host.page_size
    with rig(system) as r:
        r.enter(f"lis r9, 4; std r9, 8(r9); {STOP}")
        r.run()
        r.memory.write(0x5_0000, b"before")
        r.vm.set_user_memory_region(0, MemoryFlag.LOG_DIRTY_PAGES, 0, r.memory)
        before = list(r.vm.get_dirty_log(0))
        r.enter(f"lis r9, 8; std r9, 8(r9); {STOP}")
        r.run()
        r.memory.write(0xC_0000, b"user space")
        written = set(r.vm.get_dirty_log(0))
        again = list(r.vm.get_dirty_log(0))
        r.vm.set_user_memory_region(0, 0, 0, r.memory)
        return {
            "nothing from before": before == [],
            "the guest's page": 0x8_0000 // page in written,
            "user space's page": 0xC_0000 // page in written,
            "no other": not written & {0x4_0000 // page, 0x5_0000 // page},
            "nothing twice": again == [],
        }


@question
def outside_memory(system: System) -> Answers:
    """A load from an address outside the guest's memory."""
    with rig(system) as r:
        r.put(f"li r4, 0x300; {STOP}", 0x300)
        r.enter(f"lis r9, 0x100; ld r4, 0(r9); {STOP}")
        ended = r.vcpus[0].run()
        what = "hypercall" if isinstance(ended, HcallExit) else type(ended).__name__
        at = f"{ended.phys_addr:#x}" if isinstance(ended, MmioExit) else ""
        return {"exit": what, "address": at}
