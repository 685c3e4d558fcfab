"""Questions about the kernel's interrupt controller, and about choosing the guest's translation."""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.ids import Cap, DeviceType, MmuV3Flag, XicsGroup, XicsSource
from chronovisor.kvm.interface import System
from chronovisor.papr.hcalls import Hcall
from conformance.questions import Answers, question
from conformance.rig import MSR, MSR_EE, STOP, refusal, rig

_SOURCE: Final = 0x1000
_PRIORITY: Final = 5
_ACCEPT: Final = f"li r3, {int(Hcall.XIRR):#x}; sc 1; mr r14, r4\n"
_TAKE_BACK: Final = f"li r3, {int(Hcall.IPI):#x}; li r4, 0; li r5, 0xff; sc 1\n"
"""Ends the request for an inter-processor interrupt."""
_END: Final = f"li r3, {int(Hcall.EOI):#x}; mr r4, r14; sc 1; mr r5, r3; mr r4, r14; {STOP}"
_LET_ALL_IN: Final = f"li r3, {int(Hcall.CPPR):#x}; li r4, 0xff; sc 1; b .\n"


@question
def interrupt_controller(system: System) -> Answers:
    """A XICS device: made, connected, its sources set; interrupts of a source and of another vCPU arrive."""
    answers: Answers = {}
    with rig(system, vcpus=2) as r:
        answers["a line without it"] = refusal(lambda: r.vm.irq_line(_SOURCE, True))
        controller = r.vm.create_device(DeviceType.XICS)
        answers["a second one"] = refusal(lambda: r.vm.create_device(DeviceType.XICS))
        for vcpu in r.vcpus:
            vcpu.enable_cap(Cap.IRQ_XICS, controller.descriptor, vcpu.id)
        answers["presenter at first"] = f"{r.get('ICP_STATE'):#x}"
        controller.set_attr(XicsGroup.SOURCES, _SOURCE, _PRIORITY << XicsSource.PRIORITY_SHIFT)
        answers["source"] = f"{controller.get_attr(XicsGroup.SOURCES, _SOURCE):#x}"
        answers["no such source"] = refusal(lambda: controller.get_attr(XicsGroup.SOURCES, _SOURCE + 1))
        answers["no such group"] = refusal(lambda: controller.get_attr(7, _SOURCE))
        for number in (0, 1):
            r.set("DEC_EXPIRY", r.guest_time(number) + (1 << 30), number)
        r.vm.irq_line(_SOURCE, True)
        r.put(_ACCEPT + _TAKE_BACK + _END, 0x500)
        r.enter(_LET_ALL_IN, msr=MSR | MSR_EE)
        ended = r.run()
        answers["from a source"] = f"{ended.args[0]:#x}"
        answers["its end"] = ended.args[1]
        # An edge is one interrupt: lowering the line gives none.
        r.vm.irq_line(_SOURCE, False)
        r.enter(f"li r4, 1; {STOP}", msr=MSR | MSR_EE)
        answers["after its end"] = r.run().args[0]
        r.enter(f"li r3, {int(Hcall.IPI):#x}; li r4, 0; li r5, 4; sc 1; mr r4, r3; {STOP}", vcpu=1)
        answers["to another vCPU"] = r.run(1).args[0]
        r.enter("b .\n", msr=MSR | MSR_EE)
        answers["from another vCPU"] = f"{r.run().args[0]:#x}"
        answers["presenter afterwards"] = f"{r.get('ICP_STATE'):#x}"
    return answers


@question
def translation(system: System) -> Answers:
    """KVM_PPC_CONFIGURE_V3_MMU: radix trees are taken, unknown flags are refused."""
    radix = MmuV3Flag.RADIX | MmuV3Flag.GTSE
    with rig(system) as r:
        return {
            "radix": refusal(lambda: r.vm.configure_v3_mmu(radix, (1 << 63) | 0x4_0000)),
            "an unknown flag": refusal(lambda: r.vm.configure_v3_mmu(radix | 1 << 9, (1 << 63) | 0x4_0000)),
        }
