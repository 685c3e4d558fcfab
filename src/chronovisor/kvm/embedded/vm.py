"""A virtual machine of the embedded provider."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Final

from chronovisor.engine import statistics
from chronovisor.hypervisor.device_programs import BUFFERS, GATES, IDLE_GATE, SIGNAL_MODES
from chronovisor.hypervisor.kernel_hypercalls import ANSWERABLE
from chronovisor.hypervisor.virtual_machine import NumberInUseError, VirtualMachine
from chronovisor.isa import radix
from chronovisor.isa.bits import LPCR
from chronovisor.kvm.embedded.course import EmbeddedCourse
from chronovisor.kvm.embedded.vcpu import EmbeddedVcpu
from chronovisor.kvm.embedded.xics_device import XICS_DESCRIPTOR, XicsDevice
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.ids import Cap, DeviceType, MemoryFlag, MmuV3Flag
from chronovisor.kvm.statistics import Instructions, NativeCode, Statistics
from chronovisor.memory.gate import WORDS as GATE_WORDS
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.watched import Watchpoint
from chronovisor.memory.word_queue import WORDS
from chronovisor.memory.words import words
from chronovisor.papr.hcalls import name_of

MAX_VCPUS: Final = 2048
MAX_VCPU_ID: Final = 16384
_MAX_SMT: Final = 8
_LARGEST_PROCESS_TABLE: Final = 24
"""As log2 of its size in bytes, less 12."""


class EmbeddedVm:
    """`kvm.interface.Vm` over the embedded hypervisor."""

    def __init__(self, machine: VirtualMachine, check_extension: Callable[[int], int]) -> None:
        self._host = machine.host
        self._check_extension = check_extension
        self._machine = machine
        machine.hypercalls.left = HcallExit
        self._smt_mode = check_extension(Cap.PPC_SMT)
        self._slot: int | None = None
        self._logging = False
        self._device: XicsDevice | None = None
        self._course = EmbeddedCourse(machine, self._host.processor.random)

    def set_user_memory_region(
        self, slot: int, flags: int, guest_phys_addr: int, memory: GuestMemory
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION. This hypervisor supports one region, at address 0.

        Written pages are always noted; logging costs nothing more.
        """
        if guest_phys_addr % PAGE_SIZE:
            raise KvmError(
                errno.EINVAL, f"memory at {guest_phys_addr:#x}: it must be a multiple of {PAGE_SIZE}"
            )
        if flags not in (0, MemoryFlag.LOG_DIRTY_PAGES):
            raise KvmError(errno.EINVAL, f"memory with flags {flags:#x}: only dirty pages can be logged")
        logging = bool(flags & MemoryFlag.LOG_DIRTY_PAGES)
        if slot == self._slot:
            if guest_phys_addr or memory is not self._machine.memory:
                raise KvmError(errno.EINVAL, f"slot {slot} holds other memory already")
            if logging and not self._logging:
                memory.dirty.take()
            self._logging = logging
            return
        if self._slot is not None:
            raise KvmError(errno.EEXIST, f"slot {self._slot} holds all of the machine's memory already")
        if guest_phys_addr:
            raise KvmError(errno.EINVAL, f"memory at {guest_phys_addr:#x}: it has to begin at 0 here")
        self._machine.give_memory(memory)
        if logging:
            memory.dirty.take()
        self._slot, self._logging = slot, logging

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP on the machine."""
        first, second = (*args, 0, 0)[:2]
        if cap == Cap.PPC_SMT and not flags:
            self._set_smt_mode(first, second)
        elif cap == Cap.PPC_ENABLE_HCALL and not flags:
            self._enable_hypercall(first, second)
        else:
            raise KvmError(errno.EINVAL, f"capability {cap} cannot be enabled on a machine")

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the machine."""
        return self._smt_mode if cap == Cap.PPC_SMT else self._check_extension(cap)

    def create_vcpu(self, vcpu_id: int) -> EmbeddedVcpu:
        """KVM_CREATE_VCPU."""
        independent = self._host.cpu_model.independent_threads
        limit = min(MAX_VCPU_ID, MAX_VCPUS * self._smt_mode if independent else MAX_VCPU_ID)
        if not 0 <= vcpu_id < limit:
            raise KvmError(errno.EINVAL, f"a vCPU {vcpu_id}: ids go from 0 to {limit - 1}")
        try:
            return EmbeddedVcpu(self._machine.add_vcpu(vcpu_id))
        except NumberInUseError as error:
            # With independent threads KVM finds the virtual core in use before it looks for the vCPU.
            raise KvmError(errno.EINVAL if independent else errno.EEXIST, str(error)) from None

    def create_device(self, kind: int) -> XicsDevice:
        """KVM_CREATE_DEVICE: an interrupt controller."""
        if kind != DeviceType.XICS:
            raise KvmError(errno.ENODEV, f"there is no device of the type {kind}")
        if self._machine.xics is not None:
            raise KvmError(errno.EEXIST, "the machine has an interrupt controller already")
        xics = self._machine.make_xics()
        self._device = XicsDevice(xics, XICS_DESCRIPTOR, self._host.scheduler.monitor)
        return self._device

    def irq_line(self, irq: int, level: bool) -> None:
        """KVM_IRQ_LINE."""
        xics = self._machine.xics
        if xics is None:
            raise KvmError(errno.ENXIO, f"interrupt source {irq}: the machine has no interrupt controller")
        if irq not in xics:
            raise KvmError(errno.EINVAL, f"there is no interrupt source {irq}")
        with self._host.scheduler.monitor:
            xics.set_line(irq, level)

    def configure_v3_mmu(self, flags: int, process_table: int) -> None:
        """KVM_PPC_CONFIGURE_V3_MMU: radix trees alone, on a host that has them."""
        if flags & ~int(MmuV3Flag.RADIX | MmuV3Flag.GTSE):
            raise KvmError(errno.EINVAL, f"translation with the unknown flags {flags:#x}")
        if not flags & MmuV3Flag.RADIX:
            raise KvmError(errno.EINVAL, "hashed page tables are not implemented: choose radix translation")
        if not self._host.guest_model.lpcr & LPCR.HR:
            raise KvmError(
                errno.EINVAL, f"radix translation: a {self._host.cpu_model.name} has none; choose a POWER9"
            )
        if not process_table >> 63 or process_table & radix.TABLE_SIZE > _LARGEST_PROCESS_TABLE:
            raise KvmError(errno.EINVAL, f"the process table {process_table:#x} is none of radix trees")
        self._machine.translate(process_table, bool(flags & MmuV3Flag.GTSE))

    def get_dirty_log(self, slot: int) -> Sequence[int]:
        """KVM_GET_DIRTY_LOG."""
        if slot != self._slot:
            raise KvmError(errno.ENOENT, f"slot {slot} holds no memory")
        if not self._logging:
            raise KvmError(errno.ENOENT, f"the pages of slot {slot} are not logged")
        return self._machine.memory.dirty.take()

    def break_at(self, addresses: Collection[int]) -> None:
        """Chronovisor's own: breakpoints that are not in guest memory."""
        self._machine.break_at(addresses)

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Chronovisor's own: watchpoints, as many as wished."""
        self._machine.watch(watchpoints)

    def memory_changed(self, address: int, size: int) -> None:
        """Have instructions that were changed from outside be decoded anew."""
        self._machine.engine.forget_code(address, size)

    def device_wrote(self, address: int, size: int) -> None:
        """Have instructions that a device has written over be decoded anew."""
        self._machine.engine.forget_code(address, size)

    def tce_table(self, liobn: int, entries: int) -> memoryview:
        """As KVM_CREATE_SPAPR_TCE_64."""
        return self._shared_words(liobn, entries)

    def signal_mode(self, unit: int) -> memoryview:
        """Chronovisor's own: what H_VIO_SIGNAL sets."""
        return self._shared_words(unit | SIGNAL_MODES, 1)

    def lan_buffers(self, unit: int) -> memoryview:
        """Chronovisor's own: where H_ADD_LOGICAL_LAN_BUFFER leaves buffers."""
        return self._shared_words(unit | BUFFERS, WORDS)

    def gate(self, unit: int) -> memoryview:
        """Chronovisor's own: by which H_SEND_CRQ and H_SEND_LOGICAL_LAN serve the guest."""
        return self._shared_words(unit | GATES, GATE_WORDS)

    def idle_gate(self) -> memoryview:
        """Chronovisor's own: by which vCPUs in H_CEDE receive frames."""
        return self._shared_words(IDLE_GATE, GATE_WORDS)

    def _shared_words(self, number: int, count: int) -> memoryview:
        table = words(count)
        try:
            self._machine.share_words(number, table)
        except ValueError as error:
            raise KvmError(errno.EEXIST, str(error)) from None
        return table

    def kick(self) -> None:
        """Kick all vCPUs: in virtual time none executes anything between the first one's kick and its own."""
        with self._host.scheduler.monitor:
            for vcpu in self._machine.vcpus.values():
                vcpu.kick()

    @property
    def course(self) -> EmbeddedCourse:
        """Its exact course."""
        if not self._host.source.is_virtual:
            raise KvmError(errno.EOPNOTSUPP, "only what runs in virtual time can be repeated exactly")
        return self._course

    def statistics(self) -> Statistics:
        """What the machine's engine has counted."""
        return Statistics(
            Instructions(*self._machine.engine.instructions),
            NativeCode(**asdict(statistics.HANDLERS)),
            NativeCode(**asdict(statistics.REGIONS)),
        )

    def close(self) -> None:
        """Give up the machine."""
        self._machine.close()

    def _set_smt_mode(self, mode: int, flags: int) -> None:
        if flags or mode not in (1, 2, 4, _MAX_SMT):
            raise KvmError(
                errno.EINVAL, f"{mode} threads per virtual core (flags {flags:#x}): choose 1, 2, 4 or 8"
            )
        if not self._host.cpu_model.independent_threads and mode > self._host.threads_per_core:
            raise KvmError(
                errno.EINVAL,
                f"{mode} threads per virtual core: this host's cores have {self._host.threads_per_core}",
            )
        if self._machine.vcpus:
            raise KvmError(errno.EBUSY, "the threads per virtual core cannot change once a vCPU exists")
        self._smt_mode = mode
        self._machine.stride = mode

    def _enable_hypercall(self, number: int, enable: int) -> None:
        if enable > 1:
            raise KvmError(errno.EINVAL, f"{name_of(number)} is enabled by 1 or disabled by 0, not {enable}")
        if number not in ANSWERABLE:
            raise KvmError(errno.EINVAL, f"{name_of(number)} is always left to user space")
        self._machine.hypercalls.enable(number, bool(enable))
