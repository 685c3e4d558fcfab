"""A KVM whose vCPUs run a script of exits, to see what user space does with each without a hypervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from chronovisor.kvm.exits import Exit, HcallExit, Interrupted
from chronovisor.kvm.ids import ONE_REG_BY_ID
from chronovisor.kvm.interface import HostFacts
from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.machine.console import Console
from chronovisor.machine.guest import Guest
from chronovisor.machine.sizes import Topology
from chronovisor.memory import GuestMemory
from chronovisor.memory.gate import WORDS as GATE_WORDS
from chronovisor.memory.word_queue import WORDS
from chronovisor.memory.words import words
from chronovisor.timebase.clock import HostClock, RealTime

Step = Exit | Callable[["FakeVcpu"], Exit]


class FakeVcpu:
    """Each `run()` gives the script's next exit; behind its end it loops in the guest until it is kicked."""

    def __init__(self, number: int, script: Sequence[Step]) -> None:
        self.id = number
        self.script = list(script)
        self.regs = Regs()
        self.one_regs = {"LPCR_64": 0, "TB_OFFSET": 0}
        self.bound = False
        self.inside = False
        self.entered = threading.Event()
        self.kicked = threading.Event()
        self.answers: list[tuple[int, list[int]]] = []
        self._pending: HcallExit | None = None

    def run(self) -> Exit:
        assert self.bound, "a vCPU runs without having been bound"
        if self._pending is not None:
            self.answers.append((int(self._pending.ret), list(self._pending.results)))
            self._pending = None
        if self.kicked.is_set():
            self.kicked.clear()
            return Interrupted()
        if not self.script:
            self.inside = True
            self.entered.set()
            self.kicked.wait()
            self.kicked.clear()
            self.inside = False
            return Interrupted()
        step = self.script.pop(0)
        exit_ = step(self) if callable(step) else step
        self._pending = exit_ if isinstance(exit_, HcallExit) else None
        return exit_

    def kick(self) -> None:
        self.kicked.set()

    def bind(self) -> None:
        self.bound = True

    def unbind(self) -> None:
        self.bound = False

    def get_one_reg(self, register_id: int) -> int:
        assert not self.inside, "a register is read while its vCPU is in the guest"
        return self.one_regs[ONE_REG_BY_ID[register_id].name]

    def set_one_reg(self, register_id: int, value: int) -> None:
        assert not self.inside, "a register is set while its vCPU is in the guest"
        self.one_regs[ONE_REG_BY_ID[register_id].name] = value

    def get_regs(self) -> Regs:
        return self.regs

    def set_regs(self, regs: Regs) -> None:
        self.regs = regs

    def get_sregs(self) -> Sregs:
        return Sregs(0x4E1200)

    def set_sregs(self, sregs: Sregs) -> None:
        raise NotImplementedError

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        pass

    def interrupt(self, level: bool) -> None:
        raise NotImplementedError


class FakeSystem:
    """A system of which only the clock is real."""

    host = HostFacts("fake", 0x4E1200, 512_000_000, 1, 1, True, 56, 4096)

    def __init__(self) -> None:
        self.clock = HostClock(RealTime())

    def check_extension(self, cap: int) -> int:
        return 0

    def create_vm(self, vm_type: int = 1) -> FakeVm:
        return FakeVm()

    def close(self) -> None:
        pass


class FakeVm:
    """A machine that does nothing but kick its vCPUs."""

    def __init__(self, vcpus: Sequence[FakeVcpu] = ()) -> None:
        self._vcpus = vcpus

    def kick(self) -> None:
        for vcpu in self._vcpus:
            vcpu.kick()

    def set_user_memory_region(
        self, slot: int, flags: int, guest_phys_addr: int, memory: GuestMemory
    ) -> None:
        pass

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        pass

    def check_extension(self, cap: int) -> int:
        return 0

    def create_vcpu(self, vcpu_id: int) -> FakeVcpu:
        return FakeVcpu(vcpu_id, [])

    def get_dirty_log(self, slot: int) -> list[int]:
        return []

    def tce_table(self, liobn: int, entries: int) -> memoryview:
        return memoryview(bytearray(8 * entries)).cast("Q")

    def signal_mode(self, unit: int) -> memoryview:
        return memoryview(bytearray(8)).cast("Q")

    def lan_buffers(self, unit: int) -> memoryview:
        return words(WORDS)

    def gate(self, unit: int) -> memoryview:
        return words(GATE_WORDS)

    def idle_gate(self) -> memoryview:
        return words(GATE_WORDS)

    def device_wrote(self, address: int, size: int) -> None:
        pass

    def statistics(self) -> None:
        pass

    def close(self) -> None:
        pass


def scripted_guest(*scripts: Sequence[Step], memory: int = 1 << 20) -> tuple[Guest, list[FakeVcpu]]:
    """A guest whose vCPUs follow these scripts."""
    vcpus = [FakeVcpu(number, script) for number, script in enumerate(scripts)]
    topology = Topology(len(vcpus), 1)
    guest = Guest(FakeSystem(), FakeVm(vcpus), vcpus, GuestMemory(memory), topology, Console(), "scripted")
    return guest, vcpus


def call(number: int, *args: int) -> HcallExit:
    """A hypercall's exit."""
    return HcallExit(number, (*args, *[0] * (9 - len(args))))
