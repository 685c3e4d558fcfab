"""A virtual machine: its memory, its vCPUs and how they are grouped into virtual cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.papr.hcalls import Hcall

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Engine, Host


ANSWERED_BY_DEFAULT = frozenset({Hcall.CEDE, Hcall.PROD, Hcall.CONFER, Hcall.REGISTER_VPA})
"""The hypercalls that are answered without user space's asking for it, of those that can be."""


class NumberInUseError(ValueError):
    """A vCPU with that number, or the virtual core that it would need, exists."""


class VirtualMachine:
    """A guest on a host. Before `give_memory` its vCPUs can be made and set up, but not run.

    `stride` is the number of vCPUs that a virtual core can have, where the host's threads are not
    independent.
    """

    def __init__(self, host: Host, stride: int = 1) -> None:
        self.host: Host = host
        self.stride = stride
        self.has_memory = False
        self.answered: set[int] = set(ANSWERED_BY_DEFAULT)
        """The hypercalls that are not left to user space."""
        self.vcpus: dict[int, VirtualCpu] = {}
        self._vcores: dict[int, VirtualCore] = {}
        self._use(GuestMemory(PAGE_SIZE))

    def give_memory(self, memory: GuestMemory) -> None:
        """Have the guest's real storage be `memory`. Not while a vCPU runs."""
        self._use(memory)
        self.has_memory = True
        for vcpu in self.vcpus.values():
            vcpu.adopt_engine()

    def add_vcpu(self, number: int) -> VirtualCpu:
        """Make the vCPU `number`; NumberInUseError where it, or on independent threads its virtual core,
        exists.
        """
        if number in self.vcpus:
            raise NumberInUseError(f"the vCPU {number} exists already")
        independent = self.host.cpu_model.independent_threads
        stride = 1 if independent else self.stride
        vcore = self._vcores.get(number // stride)
        if vcore is None:
            vcore = self._vcores[number // stride] = VirtualCore(self.host, stride)
        vcpu = self.vcpus[number] = VirtualCpu(self, vcore, number)
        vcore.vcpus.append(vcpu)
        return vcpu

    def close(self) -> None:
        """Give up the vCPUs. None may be running."""
        for vcpu in self.vcpus.values():
            self.host.scheduler.drop(vcpu.seat)
        self.vcpus.clear()
        self._vcores.clear()

    def _use(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.engine: Engine = (self.host.parts.engine or ConcreteEngine)(memory)
