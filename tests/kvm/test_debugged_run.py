"""The linux provider's breakpoints and steps, on a machine whose runs end at breakpoints as the kernel's do.

That machine is the embedded provider: it is told to break where the linux provider writes its instruction. So
the same questions get the same answers as from the embedded provider's own steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronovisor.kvm.exits import Exit
from chronovisor.kvm.interface import HostOptions, System, Vcpu, Vm
from chronovisor.kvm.linux.breakpoints import DEBUG_INSTRUCTION, Breakpoints
from chronovisor.kvm.linux.debugged_run import DebuggedRun
from chronovisor.kvm.linux.successors import Place
from chronovisor.kvm.linux.translation import MSR_IR, ProcessTables
from chronovisor.kvm.provider import open_system
from chronovisor.memory import GuestMemory
from chronovisor.timebase.clock import RealTime

sys.path.insert(0, str(Path(__file__).parents[1]))
from conformance.breakpoint_questions import WITH_BREAKPOINTS, ask_with_breakpoints

_LITTLE = 1


class KernelsVm:
    """A machine that runs up to what is written at breakpoints."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._memory = GuestMemory(1 << 16)
        self._written: set[int] = set()
        self.breakpoints = Breakpoints(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vm, name)

    def set_user_memory_region(self, slot: int, flags: int, address: int, memory: GuestMemory) -> None:
        self._memory = memory
        self._vm.set_user_memory_region(slot, flags, address, memory)

    def create_vcpu(self, number: int) -> KernelsVcpu:
        return KernelsVcpu(self._vm.create_vcpu(number), self)

    def break_at(self, addresses: set[int]) -> None:
        self.breakpoints.choose(addresses)

    def read(self, address: int, size: int) -> bytes | None:
        if address in self._written:
            return DEBUG_INSTRUCTION.to_bytes(size, "big")
        return self._memory.read(address, size) if address + size <= self._memory.size else None

    def write_code(self, address: int, data: bytes) -> None:
        """Note where there is a breakpoint, in place of writing it."""
        if int.from_bytes(data, "big") == DEBUG_INSTRUCTION:
            self._written.add(address)
        else:
            self._written.discard(address)
        self._vm.break_at(self._written)


class KernelsVcpu:
    """One of its vCPUs."""

    def __init__(self, vcpu: Vcpu, vm: KernelsVm) -> None:
        self._vcpu = vcpu
        self._vm = vm
        self._debugged = DebuggedRun(self, vm.breakpoints)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vcpu, name)

    def run(self) -> Exit:
        return self._debugged.run() if self._debugged.needed else self._vcpu.run()

    def enter(self) -> Exit:
        return self._vcpu.run()

    def single_step(self, on: bool) -> None:
        self._debugged.steps = on

    def finish_answer(self) -> None:
        self._vcpu.kick()
        self._vcpu.run()

    def instruction_at(self, place: Place) -> tuple[int | None, int]:
        real = ProcessTables().real(self._vm, place.address, place.msr, MSR_IR, 0)
        word = None if real is None else self._vm.read(real, 4)
        if word is None:
            return None, 0
        return real, int.from_bytes(word, "little" if place.msr & _LITTLE else "big")


class KernelsSystem:
    """The host of such machines."""

    def __init__(self, system: System) -> None:
        self._system = system

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def create_vm(self, vm_type: int = 1) -> KernelsVm:
        return KernelsVm(self._system.create_vm(vm_type))


@pytest.mark.parametrize("name", WITH_BREAKPOINTS)
def test_steps_by_breakpoints_are_steps(name: str) -> None:
    system = open_system(HostOptions(source=RealTime(), engine="concrete"), "embedded")
    try:
        ask: Callable[[Any], Any] = WITH_BREAKPOINTS[name]
        answers = ask(KernelsSystem(system))
    finally:
        system.close()
    assert answers == ask_with_breakpoints("embedded", "concrete")[name]
    assert len(answers) > 5


def test_the_guests_own_change_of_an_instruction_stays() -> None:
    """While a breakpoint is there the guest writes another instruction to its place."""

    class Memory:
        def __init__(self) -> None:
            self.words = {0: b"own0", 4: b"own4"}

        def read(self, address: int, size: int) -> bytes | None:
            return self.words.get(address)

        def write_code(self, address: int, data: bytes) -> None:
            self.words[address] = data

    memory = Memory()
    breakpoints = Breakpoints(memory)
    breakpoints.choose({0, 4, 8})
    with breakpoints.inserted(without={4}):
        assert memory.words == {0: DEBUG_INSTRUCTION.to_bytes(4, "big"), 4: b"own4"}
        with breakpoints.inserted():
            assert memory.words[4] == b"own4", "another vCPU is stepping over it"
        memory.words[0] = b"new0"
    assert memory.words == {0: b"new0", 4: b"own4"}
