"""Inside the machine: what requests to KVM cost through the linux provider, and by a C program."""

from __future__ import annotations

import time
from collections.abc import Callable

from chronovisor.isa.assembly import assemble
from chronovisor.kvm.ids import ONE_REG_BY_NAME, Cap
from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.provider import open_system
from chronovisor.memory import GuestMemory
from chronovisor.timebase.clock import RealTime
from real_kvm.inside import run_command

PROGRAM = "/usr/bin/kvm-figures"
_MSR = 0x8000_0000_0000_1001


def by_c(times: int) -> list[int]:
    """Nanoseconds of a hypercall's round trip, of reading and of setting TB_OFFSET."""
    ended = run_command(PROGRAM, str(times))
    assert ended["status"] == 0, ended
    return [int(word) for word in ended["out"].split()]


def by_python(times: int) -> list[int]:
    """The same through the provider."""
    system = open_system(HostOptions(source=RealTime()), "linux")
    vm = system.create_vm()
    memory = GuestMemory(1 << 20)
    memory.write(0, assemble("again: li r3, 0x58; sc 1; b again", 0, little=True))
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpu = vm.create_vcpu(0)
    vcpu.enable_cap(Cap.PPC_PAPR)
    regs = vcpu.get_regs()
    regs.msr = _MSR
    vcpu.set_regs(regs)
    offset = ONE_REG_BY_NAME["TB_OFFSET"].id
    vcpu.run()
    try:
        return [
            _mean(times, vcpu.run),
            _mean(times, lambda: vcpu.get_one_reg(offset)),
            _mean(times, lambda: vcpu.set_one_reg(offset, 0)),
        ]
    finally:
        system.close()


def _mean(times: int, call: Callable[[], object]) -> int:
    begun = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - begun) // times
