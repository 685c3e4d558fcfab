"""Questions of a debugger: addresses, code that user space changes, and all vCPUs stopped at once."""

from __future__ import annotations

from typing import Final

from chronovisor.isa.assembly import assemble
from chronovisor.kvm.exits import Interrupted
from chronovisor.kvm.ids import MmuV3Flag
from chronovisor.kvm.interface import System
from conformance.questions import Answers, question
from conformance.rig import CODE, END, MSR, STOP, WATCH_TIME, Running, rig

_MSR_DR: Final = 1 << 4
_TREE: Final = 0x4_0000
_PROCESSES: Final = 0x5_0000
_RADIX: Final = 1 << 63
_MAPPED: Final = 0xC000_0000_0000_0000


@question
def changed_code(system: System) -> Answers:
    """Instructions that user space writes are executed once it has said so."""
    with rig(system) as r:
        vcpu = r.vcpus[0]
        r.enter(f"again: li r4, 1; li r3, {END:#x}; sc 1; b again")
        before = r.run().args[0]
        r.memory.write(CODE, assemble("li r4, 2", CODE, little=True))
        r.vm.memory_changed(CODE, 4)
        return {"before": before, "after": r.run().args[0], "it goes on": type(vcpu.run()).__name__}


@question
def addresses(system: System) -> Answers:
    """Effective addresses of data: in real mode, by the guest's radix tables, and where none leads."""
    with rig(system) as r:
        vcpu = r.vcpus[0]
        r.enter(STOP)
        answers: Answers = {"real mode": vcpu.translate(0x1234)}
        # A tree of one level: 2^13 entries, each for 2^39 bytes; the first one leads to a table, which has a
        # page of 2 MiB.
        r.memory.write(_PROCESSES, ((1 << 62) | (5 << 5) | _TREE | 13).to_bytes(8, "big") + bytes(8))
        r.memory.write(_TREE, ((1 << 63) | (_TREE + 0x1_8000) | 9).to_bytes(8, "big"))
        r.memory.write(_TREE + 0x1_8000, ((1 << 63) | (_TREE + 0x1_C000) | 9).to_bytes(8, "big"))
        leaf = (3 << 62) | 0x18F
        r.memory.write(_TREE + 0x1_C000, leaf.to_bytes(8, "big"))
        r.vm.configure_v3_mmu(int(MmuV3Flag.RADIX | MmuV3Flag.GTSE), _RADIX | _PROCESSES)
        r.run()
        regs = vcpu.get_regs()
        regs.msr |= _MSR_DR
        vcpu.set_regs(regs)
        for name, address in {
            "translated": _MAPPED + 0x4_5678,
            "no page": _MAPPED + (1 << 21),
            "no table": _MAPPED + (1 << 40),
            "too high": _MAPPED + (1 << 53),
            "a host's quadrant": 1 << 62,
        }.items():
            answers[name] = vcpu.translate(address)
        return answers


@question
def kicks_of_the_machine(system: System) -> Answers:
    """A kick of the machine ends the runs of all its vCPUs, in the guest or about to enter it."""
    with rig(system, vcpus=2) as r:
        ended = 0
        for number in range(2):
            r.enter(WATCH_TIME, vcpu=number, msr=MSR)
        for _ in range(20):
            running = [Running(vcpu) for vcpu in r.vcpus]
            r.vm.kick()
            ended += sum(isinstance(one.ended(), Interrupted) for one in running)
        return {"runs that ended": ended}
