"""A virtual machine of the kernel's."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Collection, Sequence
from typing import Final

from chronovisor.kvm.course import Course
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import ONE_REG_BY_NAME, MemoryFlag
from chronovisor.kvm.linux.breakpoints import Breakpoints
from chronovisor.kvm.linux.device import ask, enable_cap
from chronovisor.kvm.linux.layouts import (
    CreateDevice,
    DeviceAttribute,
    DirtyLogRequest,
    Ioctl,
    IrqLevel,
    MemoryRegion,
    MmuV3Configuration,
)
from chronovisor.kvm.linux.machine_code import CACHE_BLOCK, code_changed_function
from chronovisor.kvm.linux.translation import ProcessTables
from chronovisor.kvm.linux.vcpu import LinuxVcpu
from chronovisor.memory import PAGE_SIZE, GuestMemory, Watchpoint
from chronovisor.memory.gate import WORDS as GATE_WORDS
from chronovisor.memory.word_queue import WORDS
from chronovisor.memory.words import words

_ADDRESS_LENGTH_SHIFT: Final = 64
"""The registers of areas with a length are `address << 64 | length`."""


class _Slot:
    """A memory region and what the kernel was told of it."""

    def __init__(self, guest_phys_addr: int, memory: GuestMemory) -> None:
        self.guest_phys_addr = guest_phys_addr
        self.memory = memory
        self.logging = False


class LinuxDevice:
    """`kvm.interface.Device` over a device's file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """What names it to KVM_ENABLE_CAP."""
        return self._descriptor

    def set_attr(self, group: int, attr: int, value: int) -> None:
        """KVM_SET_DEVICE_ATTR."""
        self._ask(Ioctl.SET_DEVICE_ATTR, group, attr, ctypes.c_uint64(value))

    def get_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR."""
        value = ctypes.c_uint64()
        self._ask(Ioctl.GET_DEVICE_ATTR, group, attr, value)
        return value.value

    def _ask(self, request: Ioctl, group: int, attr: int, value: ctypes.c_uint64) -> None:
        attribute = DeviceAttribute(0, group, attr, ctypes.addressof(value))
        ask(self._descriptor, request, attribute, f"the attribute {attr:#x} of group {group} of a device")

    def close(self) -> None:
        """Close the device's file."""
        os.close(self._descriptor)


class LinuxVm:
    """`kvm.interface.Vm` over a virtual machine's file."""

    def __init__(self, descriptor: int, shared_size: int, check_breakpoints: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self.check_breakpoints = check_breakpoints
        """KvmError if this machine's KVM has no breakpoints."""
        self._shared_size = shared_size
        self._slots: dict[int, _Slot] = {}
        self._vcpus: list[LinuxVcpu] = []
        self._devices: list[LinuxDevice] = []
        self._tables = ProcessTables()
        self._code_changed: Callable[[int], None] | None = None
        self.breakpoints = Breakpoints(self)
        self._closed = False

    def set_user_memory_region(
        self, slot: int, flags: int, guest_phys_addr: int, memory: GuestMemory
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION."""
        if memory.size % mmap.PAGESIZE:
            raise KvmError(
                errno.EINVAL,
                f"guest memory of {memory.size} bytes: this host's pages have {mmap.PAGESIZE}",
            )
        set_before = self._slots.get(slot)
        if set_before is not None and (set_before.memory, set_before.guest_phys_addr) != (
            memory,
            guest_phys_addr,
        ):
            # The kernel might take it, and move the memory that a guest has.
            raise KvmError(errno.EINVAL, f"slot {slot} holds other memory already")
        region = MemoryRegion(
            slot,
            flags,
            guest_phys_addr,
            memory.size,
            ctypes.addressof(ctypes.c_char.from_buffer(memory.data)),
        )
        ask(
            self._descriptor,
            Ioctl.SET_USER_MEMORY_REGION,
            region,
            f"{memory.size} bytes of memory at {guest_phys_addr:#x} in slot {slot}",
        )
        # Kept: the kernel writes there for as long as the machine lives.
        kept = self._slots.setdefault(slot, _Slot(guest_phys_addr, memory))
        logging = bool(flags & MemoryFlag.LOG_DIRTY_PAGES)
        if logging and not kept.logging:
            memory.dirty.take()
        kept.logging = logging

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP on the machine."""
        enable_cap(self._descriptor, cap, args, flags)

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the machine."""
        return ask(self._descriptor, Ioctl.CHECK_EXTENSION, cap)

    def create_vcpu(self, vcpu_id: int) -> LinuxVcpu:
        """KVM_CREATE_VCPU."""
        descriptor = ask(self._descriptor, Ioctl.CREATE_VCPU, vcpu_id, f"making vCPU {vcpu_id}")
        try:
            vcpu = LinuxVcpu(descriptor, vcpu_id, self._shared_size, self)
        except BaseException:
            os.close(descriptor)
            raise
        self._vcpus.append(vcpu)
        return vcpu

    def create_device(self, kind: int) -> LinuxDevice:
        """KVM_CREATE_DEVICE."""
        request = CreateDevice(kind)
        ask(self._descriptor, Ioctl.CREATE_DEVICE, request, f"making a device of the type {kind}")
        device = LinuxDevice(request.fd)
        self._devices.append(device)
        return device

    def irq_line(self, irq: int, level: bool) -> None:
        """KVM_IRQ_LINE."""
        ask(self._descriptor, Ioctl.IRQ_LINE, IrqLevel(irq, level), f"the line of interrupt source {irq}")

    def configure_v3_mmu(self, flags: int, process_table: int) -> None:
        """KVM_PPC_CONFIGURE_V3_MMU."""
        ask(
            self._descriptor,
            Ioctl.PPC_CONFIGURE_V3_MMU,
            MmuV3Configuration(flags, process_table),
            f"translation with flags {flags:#x} and the process table {process_table:#x}",
        )
        self._tables = ProcessTables(flags, process_table)

    def get_dirty_log(self, slot: int) -> Sequence[int]:
        """KVM_GET_DIRTY_LOG, and what user space and the kernel's own stores wrote.

        Since Linux 6.1 the kernel does not log what it writes to dispatch trace logs. So the shared areas of
        each vCPU that is outside its run count as written; the last round of a move finds all of them so.
        """
        kept = self._slots.get(slot)
        if kept is None or not kept.logging:
            raise KvmError(errno.ENOENT, f"slot {slot} holds no memory whose pages are logged")
        pages = kept.memory.size // mmap.PAGESIZE
        # The kernel stores whole words of its own width.
        bitmap = bytearray(-(-pages // 64) * 8)
        address = ctypes.addressof(ctypes.c_char.from_buffer(bitmap))
        ask(self._descriptor, Ioctl.GET_DIRTY_LOG, DirtyLogRequest(slot, 0, address))
        written = _numbers(bitmap)
        ratio = mmap.PAGESIZE // PAGE_SIZE
        written.update(page // ratio for page in kept.memory.dirty.take())
        for start, length in self._shared_areas():
            first = (start - kept.guest_phys_addr) // mmap.PAGESIZE
            last = (start + length - 1 - kept.guest_phys_addr) // mmap.PAGESIZE
            written.update(page for page in range(first, last + 1) if 0 <= page < pages)
        return sorted(written)

    def kick(self) -> None:
        """Kick all vCPUs."""
        for vcpu in self._vcpus:
            vcpu.kick()

    @property
    def course(self) -> Course:
        """Refused: real time does not repeat itself."""
        raise KvmError(errno.EOPNOTSUPP, "only what runs in virtual time can be repeated exactly")

    def break_at(self, addresses: Collection[int]) -> None:
        """Have breakpoints in guest memory while vCPUs run (`breakpoints.py`). EOPNOTSUPP if KVM_RUN does not
        end at them.
        """
        if addresses:
            self.check_breakpoints()
        self.breakpoints.choose(addresses)

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Refused: KVM HV tells the guest of accesses that DAWR watches, and not user space."""
        if watchpoints:
            raise KvmError(errno.EOPNOTSUPP, "watchpoints: the kernel's KVM has none for its user space")

    def memory_changed(self, address: int, size: int) -> None:
        """Have the processor fetch instructions anew."""
        if self._code_changed is None:
            self._code_changed = code_changed_function()
        for slot in self._slots.values():
            first = max(address, slot.guest_phys_addr)
            end = min(address + size, slot.guest_phys_addr + slot.memory.size)
            if first < end:
                at = ctypes.addressof(ctypes.c_char.from_buffer(slot.memory.data)) - slot.guest_phys_addr
                for block in range(first - first % CACHE_BLOCK, end, CACHE_BLOCK):
                    self._code_changed(at + block)

    # What its vCPUs and its breakpoints need

    def read(self, address: int, size: int) -> bytes | None:
        """Return the bytes at a guest real address; None if any of them is not there."""
        for slot in self._slots.values():
            at = address - slot.guest_phys_addr
            if 0 <= at <= slot.memory.size - size:
                return slot.memory.read(at, size)
        return None

    def write_code(self, address: int, data: bytes) -> None:
        """Write instructions to where `read` finds some, and have the processor fetch them anew."""
        for slot in self._slots.values():
            at = address - slot.guest_phys_addr
            if 0 <= at <= slot.memory.size - len(data):
                slot.memory.write(at, data)
        self.memory_changed(address, len(data))

    def real(self, address: int, msr: int, relocate: int, process: int) -> int | None:
        """Return the guest real address behind an effective one: see `ProcessTables.real`."""
        return self._tables.real(self, address, msr, relocate, process)

    def device_wrote(self, address: int, size: int) -> None:
        """Nothing: the processor's caches see it."""

    def tce_table(self, liobn: int, entries: int) -> memoryview:
        """A table that user space sets: the kernel is asked for none."""
        return words(entries)

    def signal_mode(self, unit: int) -> memoryview:
        """A word that user space sets: the kernel has none."""
        return words(1)

    def lan_buffers(self, unit: int) -> memoryview:
        """A queue that stays empty: the kernel has none."""
        return words(WORDS)

    def gate(self, unit: int) -> memoryview:
        """A gate that nobody enters: the kernel serves no device."""
        return words(GATE_WORDS)

    def idle_gate(self) -> memoryview:
        """A gate that nobody enters: the kernel's vCPUs do nothing in H_CEDE."""
        return words(GATE_WORDS)

    def statistics(self) -> None:
        """None: the processor executes the guest's instructions."""

    def close(self) -> None:
        """Give the machine back, its vCPUs first."""
        if self._closed:
            return
        self._closed = True
        for vcpu in self._vcpus:
            vcpu.close()
        for device in self._devices:
            device.close()
        os.close(self._descriptor)
        self._slots.clear()

    def _shared_areas(self) -> list[tuple[int, int]]:
        """Address and length of what vCPUs outside their run have registered."""
        areas = []
        for vcpu in self._vcpus:
            if not vcpu.take_if_outside():
                continue
            try:
                vpa = vcpu.get_one_reg(ONE_REG_BY_NAME["VPA_ADDR"].id)
                log = vcpu.get_one_reg(ONE_REG_BY_NAME["VPA_DTL"].id)
            finally:
                vcpu.release()
            if vpa:
                areas.append((vpa, PAGE_SIZE))
            if log:
                areas.append((log >> _ADDRESS_LENGTH_SHIFT, log & ((1 << _ADDRESS_LENGTH_SHIFT) - 1)))
        return areas


def _numbers(bitmap: bytearray) -> set[int]:
    """The bits that are set: page n is bit `n % 8` of byte `n // 8`, whatever the kernel's byte order."""
    return {8 * at + bit for at, byte in enumerate(bitmap) if byte for bit in range(8) if (byte >> bit) & 1}
