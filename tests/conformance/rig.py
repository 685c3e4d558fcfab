"""A guest of a few instructions on a system of any provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from chronovisor.isa.assembly import assemble
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import Exit, HcallExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME, Cap
from chronovisor.kvm.interface import System, Vcpu
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.timebase.types import GRANULE, MASK64, signed64

MSR: Final = 0x8000_0000_0000_1001
"""64-bit, machine checks on, little-endian."""
MSR_EE: Final = 1 << 15
CODE: Final = 0xD_0000
"""Where guests' code begins. Each piece gets a page of its own: changed code would need icbi."""
SAVED: Final = 0x8000
"""Where guests store their readings."""
END: Final = 0x58
"""A hypercall that is always left to user space. It ends a piece of guest code."""
STOP: Final = f"li r3, {END:#x}; sc 1; b .\n"
PATIENCE: Final = 30.0
"""Seconds to wait for an event that must come. No answer depends on how fast it comes."""

READ_TIME: Final = f"again: mftb r4; mfdec r5; mftb r6; li r3, {END:#x}; sc 1; b again\n"
WATCH_TIME: Final = (
    f"lis r9, {SAVED >> 16}; ori r9, r9, {SAVED & 0xFFFF:#x}; again: mftb r4; std r4, 0(r9); b again\n"
)
"""Stores its time for ever."""
HANDLER: Final = f"mftb r4; mfdec r5; mfspr r6, SRR0; li r3, {END:#x}; sc 1; b .\n"


class Rig:
    """A virtual machine with 1 MiB of memory and vCPUs, which run the code given to `put` and `enter`."""

    def __init__(self, system: System, vcpus: int = 1, smt: int | None = None) -> None:
        self.system = system
        self.vm = system.create_vm()
        self.memory = GuestMemory(1 << 20)
        self.vm.set_user_memory_region(0, 0, 0, self.memory)
        if smt is not None:
            self.vm.enable_cap(Cap.PPC_SMT, smt, 0)
        self._code_at = CODE
        self.vcpus = [self.add_vcpu(number) for number in range(vcpus)]
        for interrupt in (0x500, 0x900):
            self.put(HANDLER, interrupt)

    def add_vcpu(self, number: int) -> Vcpu:
        """Make one more vCPU."""
        vcpu = self.vm.create_vcpu(number)
        vcpu.enable_cap(Cap.PPC_PAPR)
        # Interrupts are taken in the byte order of the guest's code.
        lpcr = ONE_REG_BY_NAME["LPCR_64"].id
        vcpu.set_one_reg(lpcr, vcpu.get_one_reg(lpcr) | (1 << 25))
        vcpu.bind()
        return vcpu

    def put(self, text: str, address: int) -> None:
        """Put this code at an address."""
        self.memory.write(address, assemble(text, address, little=True))

    def enter(self, text: str, vcpu: int = 0, msr: int = MSR, **gpr: int) -> None:
        """Let the vCPU begin with this code at its next run, with these registers (r4=…)."""
        self.put(text, self._code_at)
        regs = self.vcpus[vcpu].get_regs()
        regs.pc, regs.msr = self._code_at, msr
        self._code_at += PAGE_SIZE
        for name, value in gpr.items():
            regs.gpr[int(name[1:])] = value & MASK64
        self.vcpus[vcpu].set_regs(regs)

    def run(self, vcpu: int = 0) -> HcallExit:
        """Run until the piece of guest code ends."""
        ended = self.vcpus[vcpu].run()
        assert isinstance(ended, HcallExit), ended
        return ended

    def get(self, name: str, vcpu: int = 0) -> int:
        """Return a register's value, by name."""
        return self.vcpus[vcpu].get_one_reg(ONE_REG_BY_NAME[name].id)

    def set(self, name: str, value: int, vcpu: int = 0) -> None:
        """Set a register, by name."""
        self.vcpus[vcpu].set_one_reg(ONE_REG_BY_NAME[name].id, value & MASK64)

    def set_wide(self, name: str, address: int, length: int, vcpu: int = 0) -> None:
        """Set a register that holds the address and the length of an area."""
        self.vcpus[vcpu].set_one_reg(ONE_REG_BY_NAME[name].id, (address << 64) | length)

    def host_time(self) -> int:
        """Return the host's timebase, unsigned."""
        return self.system.clock.now().value

    def guest_time(self, vcpu: int = 0) -> int:
        """Return the timebase that the guest would read now."""
        return (self.host_time() + self.get("TB_OFFSET", vcpu)) & MASK64

    def saved(self, at: int = SAVED) -> int:
        """Return a doubleword that the guest stored."""
        return self.memory.load(at, 8, little=True)

    def wait_for_change(self, at: int = SAVED) -> int:
        """Wait until the guest stores another value there, and return it."""
        before = self.saved(at)
        wait_until(lambda: self.saved(at) != before)
        return self.saved(at)

    def close(self) -> None:
        """Close the machine."""
        for vcpu in self.vcpus:
            vcpu.unbind()
        self.vm.close()


@contextmanager
def rig(system: System, vcpus: int = 1, smt: int | None = None) -> Iterator[Rig]:
    """A rig that is closed afterwards."""
    opened = Rig(system, vcpus, smt)
    try:
        yield opened
    finally:
        opened.close()


class Running:
    """A vCPU that runs on a thread of its own until an exit."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.exit: Exit | None = None
        self._vcpu = vcpu
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.exit = self._vcpu.run()

    def ended(self) -> Exit:
        """Wait for the exit."""
        self._thread.join(PATIENCE)
        assert self.exit is not None, "the vCPU is still in its run"
        return self.exit


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds. Raises `AssertionError` if it does not within `PATIENCE`."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if holds():
            return
        pause.wait(0.001)
    raise AssertionError("the event that must come did not come")


def between(earlier: int, value: int, later: int) -> bool:
    """Whether a time lies between two others, all modulo 2^64."""
    return signed64(value - earlier) >= 0 and signed64(later - value) >= 0


def refusal(call: Callable[[], object]) -> str:
    """Return the name of the errno with which a call is refused, or "" if it is not refused."""
    import errno

    try:
        call()
    except KvmError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def rounded_up(offset: int) -> int:
    """Return the offset that is kept if this one is set: rounded up to a multiple of 2^24, modulo 2^64."""
    return (-(-offset // GRANULE) * GRANULE) & MASK64
