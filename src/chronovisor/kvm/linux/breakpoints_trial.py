"""Whether this machine's KVM has breakpoints: found by trying one."""

from __future__ import annotations

import mmap
import struct
from typing import Final

from chronovisor.kvm.exits import DebugExit
from chronovisor.kvm.ids import Cap
from chronovisor.kvm.linux.successors import PROGRAM
from chronovisor.kvm.linux.translation import MSR_SF
from chronovisor.kvm.linux.vm import LinuxVm
from chronovisor.memory import GuestMemory

_LEAVE: Final = struct.pack(">3I", 0x3860_0058, 0x4400_0022, 0x4800_0000)
"""`li r3,0x58; sc 1; b .`, big-endian: a hypercall that user space gets."""


def ends_at_breakpoint(vm: LinuxVm) -> bool:
    """Return whether the run of a new machine's vCPU ends at a breakpoint. Otherwise it ends in the guest's
    handler of the interrupt that the instruction there causes.
    """
    memory = GuestMemory(max(mmap.PAGESIZE, 1 << 16))
    memory.write(0, _LEAVE)
    memory.write(PROGRAM, _LEAVE)
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpu = vm.create_vcpu(1)
    vcpu.enable_cap(Cap.PPC_PAPR)
    regs = vcpu.get_regs()
    regs.pc, regs.msr = 0, MSR_SF
    vcpu.set_regs(regs)
    vm.breakpoints.choose({0})
    return isinstance(vcpu.run(), DebugExit)
