"""A virtual machine: its memory, its vCPUs and how they are grouped into virtual cores."""

from __future__ import annotations

from collections.abc import Collection

from chronovisor.engine.interface import Engine
from chronovisor.hypervisor.hypercall_programs import PROGRAMS
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.kernel_hypercalls import ANSWERED_WITH_XICS, KernelHypercalls
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.xics import LENT, LENT_PLACES, Xics
from chronovisor.isa.bits import LPCR
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.watched import Watchpoint
from chronovisor.memory.words import words


class NumberInUseError(ValueError):
    """A vCPU with that number, or the virtual core that it would need, exists."""


class VirtualMachine:
    """A guest on a host. Before `give_memory` its vCPUs can be made and set up, but not run.

    `stride` is the number of vCPUs that a virtual core can have, unless the host's threads are independent.
    """

    def __init__(self, host: Hypervisor, stride: int = 1) -> None:
        self.host: Hypervisor = host
        self.stride = stride
        self.has_memory = False
        self.memory: GuestMemory = GuestMemory(PAGE_SIZE)
        self._word_tables: dict[int, memoryview] = {}
        self.engine: Engine = self._make_engine(self.memory)
        self.hypercalls = KernelHypercalls(
            self, host.scheduler, host.random_bits, host.guest_model.reflects_user_hypercall
        )
        self.xics: Xics | None = None
        """Its interrupt controller, once it has one."""
        self.process_table = 0
        """The second doubleword of its partition table entry; 0 until the guest registers a table."""
        self.vcpus: dict[int, VirtualCpu] = {}
        self._vcores: dict[int, VirtualCore] = {}

    def give_memory(self, memory: GuestMemory) -> None:
        """Make `memory` the guest's real storage. Not while a vCPU runs."""
        self.memory, self.engine = memory, self._make_engine(memory)
        self.has_memory = True
        for vcpu in self.vcpus.values():
            vcpu.adopt_engine()

    def _make_engine(self, memory: GuestMemory) -> Engine:
        engine = self.host.engine(memory)
        engine.answer_hypercalls(PROGRAMS)
        for number, table in self._word_tables.items():
            engine.share_words(number, table)
        return engine

    def share_words(self, number: int, table: memoryview) -> None:
        """Have hypercalls set these words as the table of that number (`hypercall_programs`). No vCPU may
        run. ValueError if there is such a table.
        """
        if number in self._word_tables:
            raise ValueError(f"there is a table {number:#x} already")
        self._word_tables[number] = table
        self.engine.share_words(number, table)

    def add_vcpu(self, number: int) -> VirtualCpu:
        """Make the vCPU `number`. NumberInUseError if it, or on independent threads its virtual core, exists
        already.
        """
        if number in self.vcpus:
            raise NumberInUseError(f"the vCPU {number} exists already")
        host = self.host
        model = host.cpu_model
        stride = 1 if model.independent_threads else self.stride
        vcore = self._vcores.get(number // stride)
        if vcore is None:
            vcore = VirtualCore(host.source, host.guest_model, model.has_tbu40, stride)
            self._vcores[number // stride] = vcore
        vcpu = self.vcpus[number] = VirtualCpu(self, host, vcore, number)
        vcpu.state.set("PATE1", self.process_table)
        vcore.timers.append(vcpu.timer)
        return vcpu

    def make_xics(self) -> Xics:
        """Give it an interrupt controller. Not while a vCPU runs."""
        lent = words(LENT_PLACES)
        self.share_words(LENT, lent)
        self.xics = Xics(lent, lambda *exchange: self.engine.exchange_word(LENT, *exchange))
        for number in ANSWERED_WITH_XICS:
            self.hypercalls.enable(number, True)
        return self.xics

    def translate(self, process_table: int, guest_invalidates: bool) -> None:
        """Have the guest translate by radix trees from now on. No vCPU may run.

        `process_table` is the second doubleword of its partition table entry; `guest_invalidates` lets it
        execute tlbie (LPCR[GTSE]).
        """
        self.process_table = process_table
        for vcore in self._vcores.values():
            vcore.lpcr = (vcore.lpcr & ~int(LPCR.GTSE)) | int(LPCR.HR | LPCR.UPRT)
            vcore.lpcr |= int(LPCR.GTSE) if guest_invalidates else 0
        for vcpu in self.vcpus.values():
            vcpu.state.set("PATE1", process_table)
        self.engine.forget_translations()

    def break_at(self, addresses: Collection[int]) -> None:
        """Have vCPUs stop before the instructions at these real addresses, and at no others. None may run."""
        self.engine.break_at(addresses)

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Have vCPUs stop before instructions that access these places, and no others. None may run."""
        self.engine.watch(watchpoints)

    def close(self) -> None:
        """Give up the vCPUs. None may be running."""
        for vcpu in self.vcpus.values():
            self.host.scheduler.drop(vcpu.seat)
        self.vcpus.clear()
        self._vcores.clear()
