"""KVM's interface as Python protocols: what every provider offers and all that user space ever uses.

The shape is the kernel's (a system, its virtual machines, their vCPUs; one method for each ioctl) with its
ids, sizes and errors: what the kernel refuses with an errno raises `KvmError` with that errno.
KVM_GET_MP_STATE is absent, as it is in the kernel's Book3S: user space knows which vCPUs are stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from chronovisor.kvm.exits import Exit
from chronovisor.kvm.statistics import Statistics
from chronovisor.kvm.structures import Regs, Sregs

if TYPE_CHECKING:
    from chronovisor.kvm.course import Course
    from chronovisor.memory import GuestMemory, Watchpoint
    from chronovisor.timebase.clock import HostClock, TickSource
    from chronovisor.timebase.run_trace import RunTrace
    from chronovisor.timebase.trace import Observer


TICKS_PER_INSTRUCTION: Final = 256
"""How far virtual time goes with each guest instruction unless something else is chosen: 0.5 µs."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What a host shall be. A provider on real hardware refuses what it cannot choose (EINVAL)."""

    source: TickSource
    """The machine's one monotonic clock, in timebase ticks."""
    tb_origin: int = 0
    """The host's timebase when `source` stands at 0: unsigned 64-bit ticks."""
    cores: int = 1
    threads_per_core: int = 1
    """1, 2, 4 or 8 hardware threads that share a core's timebase."""
    cpu_model: str = "auto"
    """"auto" is the host's own; power9 if the provider can be any."""
    ticks_per_instruction: int = TICKS_PER_INSTRUCTION
    """How far virtual time goes with each guest instruction; real time ignores it."""
    engine: str = "auto"
    """What executes instructions: "regions" (native code, hot loops compiled whole), "threaded" (native code,
    a function an instruction), "concrete" (the reference), or "auto": regions if possible.
    """
    observer: Observer | None = None
    """Told each step of every entry and exit that touches time."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What user space must know of the host it runs on."""

    provider: str
    pvr: int
    frequency: int
    """Timebase ticks a second."""
    cores: int
    threads_per_core: int
    has_tbu40: bool
    """Without it a timebase offset other than 0 is refused."""
    dec_bits: int
    """Width of the decrementer if LPCR[LD] is set, `ibm,dec-bits`: 56 on POWER9, 32 before."""
    page_size: int
    """In bytes: the unit of `Vm.get_dirty_log`."""


class System(Protocol):
    """An open `/dev/kvm`, or the embedded host that stands for one."""

    @property
    def host(self) -> HostFacts:
        """What this host is."""

    @property
    def clock(self) -> HostClock:
        """The host's timebase, and the monotonic clock that it counts with."""

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION: 0 if the capability is absent, else its value."""

    def create_vm(self, vm_type: int = 1) -> Vm:
        """KVM_CREATE_VM; EINVAL for a type other than 0 (automatic) and 1 (HV)."""

    def close(self) -> None:
        """Give everything back; harmless when repeated."""


class Device(Protocol):
    """A device that stands in the kernel's half."""

    @property
    def descriptor(self) -> int:
        """What names it to KVM_ENABLE_CAP."""

    def set_attr(self, group: int, attr: int, value: int) -> None:
        """KVM_SET_DEVICE_ATTR with a value of 64 bits; ENXIO for an attribute that the device lacks."""

    def get_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: a value of 64 bits; ENXIO as above, ENOENT for what was never set."""


class Vm(Protocol):
    """A virtual machine."""

    def set_user_memory_region(
        self, slot: int, flags: int, guest_phys_addr: int, memory: GuestMemory
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION: all of `memory` at `guest_phys_addr`.

        Set again with the same memory at the same address, a slot changes its flags alone: with
        `MemoryFlag.LOG_DIRTY_PAGES` its pages are logged from then on, beginning with a log that is clear,
        and without it no longer.

        EINVAL for an address that is no multiple of the page size, and if a slot is set again with other
        memory or at another address; EEXIST for an address that overlaps another slot.
        """

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP on the machine: PPC_SMT (mode, flags), PPC_ENABLE_HCALL (number, 0 or 1).

        EINVAL for what is unknown; EBUSY for PPC_SMT once a vCPU exists.
        """

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the machine: as the system's, with what this machine changed (PPC_SMT)."""

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """KVM_CREATE_VCPU. vCPUs whose ids agree divided by the SMT mode share a virtual core.

        EEXIST or EINVAL for an id in use, EINVAL for one that is too large.
        """

    def create_device(self, kind: int) -> Device:
        """KVM_CREATE_DEVICE: of `DeviceType`. ENODEV for an unknown type, EEXIST for a second one."""

    def irq_line(self, irq: int, level: bool) -> None:
        """KVM_IRQ_LINE: raise or lower the line of an interrupt source. From any thread.

        ENXIO without an interrupt controller. EINVAL for an unknown source; the kernel ignores it.
        """

    def configure_v3_mmu(self, flags: int, process_table: int) -> None:
        """KVM_PPC_CONFIGURE_V3_MMU: how the guest translates, and where its process table is.

        `flags` are of `MmuV3Flag`; `process_table` is the second doubleword of the partition table entry: the
        table's real address and log2 of its size in bytes, less 12. No vCPU may be in `run()`.

        EINVAL for unknown flags and for a kind of translation that the host does not have.
        """

    def get_dirty_log(self, slot: int) -> Sequence[int]:
        """KVM_GET_DIRTY_LOG: the pages of the slot written since the last call (the first time: since the
        log was switched on), as rising page numbers in units of `HostFacts.page_size`.

        Written by the guest, the kernel's half (its shared areas), or user space, which says so in
        `GuestMemory.dirty`; so a provider on a real kernel adds that log to the kernel's. vCPUs may run
        meanwhile: each page is cleared in the log before its number is handed out and never after, and is
        logged only after it was written. So a reader of the page after this call sees all that was written
        before, and what is written later is in the next answer.

        ENOENT for a slot that holds no memory or whose pages are not logged.
        """

    def break_at(self, addresses: Collection[int]) -> None:
        """Have vCPUs end their runs (`DebugExit`) before the instructions at these guest real addresses, and
        at no others. No vCPU may be in `run()`.

        Guest memory does not change. KVM has no such call: there user space writes an illegal instruction
        into memory. EOPNOTSUPP on a real kernel.
        """

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Have vCPUs end their runs (`DebugExit`) before instructions that access these places, and no
        others. No vCPU may be in `run()`. EOPNOTSUPP on a real kernel.
        """

    def memory_changed(self, address: int, size: int) -> None:
        """Say that user space changed what may be instructions, at a guest real address. No vCPU may be in
        `run()`. A real kernel's user space has the processor do what `icbi` does.
        """

    def device_wrote(self, address: int, size: int) -> None:
        """Say that a device of user space's has written memory, at a guest real address. vCPUs may run.

        A guest that learns of it afterwards and executes what is there executes what was written, without
        `icbi`: a POWER9's instruction caches see what devices write. A real kernel needs no such call.
        """

    def tce_table(self, liobn: int, entries: int) -> memoryview:
        """A table of so many TCEs, for the DMA window of that number (LIOBN) from I/O address 0 on, with
        pages of 4 KiB: words of 64 bits in this machine's byte order, all 0.

        H_PUT_TCE, H_PUT_TCE_INDIRECT and H_STUFF_TCE set them without an exit, if they are enabled and what
        they ask for is in order. No vCPU may be in `run()`. EEXIST if there is a table of that number. KVM's
        own such table is made by KVM_CREATE_SPAPR_TCE_64, which is not used: on a real kernel these calls
        reach user space.
        """

    def signal_mode(self, unit: int) -> memoryview:
        """A word of 64 bits that H_VIO_SIGNAL sets without an exit, if it is enabled: whether the virtual
        device at that unit address may interrupt. As `tce_table` in all else; KVM has no such call.
        """

    def lan_buffers(self, unit: int) -> memoryview:
        """The words of a queue (`memory.word_queue`) in which H_ADD_LOGICAL_LAN_BUFFER leaves a buffer for
        the network card at that unit address without an exit, if it is enabled and the queue takes one. As
        `tce_table` in all else; KVM has no such call.
        """

    def gate(self, unit: int) -> memoryview:
        """The words of the gate (`memory.gate`) of the disk or network card at that unit address, by which
        H_SEND_CRQ and H_SEND_LOGICAL_LAN serve the guest without an exit, if they are enabled and the gate is
        open. As `tce_table` in all else; KVM has no such call.
        """

    def idle_gate(self) -> memoryview:
        """The words of the gate by which vCPUs in H_CEDE receive frames for the machine's network card while
        it is open. As `tce_table` in all else; KVM has no such call.
        """

    def kick(self) -> None:
        """Kick all vCPUs at one moment: in virtual time none executes anything while another one is kicked
        already. From any thread, without waiting.
        """

    @property
    def course(self) -> Course:
        """The exact course of a machine in virtual time. EOPNOTSUPP in real time."""

    def statistics(self) -> Statistics | None:
        """What executed the guest's instructions; None if the processor itself does. No vCPU may be in
        `run()`; the machine may be closed.
        """

    def close(self) -> None:
        """Give the machine back; its vCPUs must have left `run()`."""


class Vcpu(Protocol):
    """A virtual CPU. All methods but `kick`, `bind` and `interrupt` wait until it has left `run()`."""

    @property
    def id(self) -> int:
        """The id it was made with."""

    def run(self) -> Exit:
        """KVM_RUN: run the guest until something needs user space.

        Only one thread may call it. A pending hypercall or MMIO load is finished first with the answer in its
        exit. If a kick is pending, `run` finishes that answer and returns `Interrupted` without running
        a guest instruction.
        """

    def kick(self) -> None:
        """Make `run()` return: the call in progress, or else the next one (`kvm_run.immediate_exit`).

        From any thread, without waiting. It is spent by the `Interrupted` that it causes; several kicks
        before that are one.
        """

    def bind(self) -> None:
        """Announce that this vCPU will be in `run()`, now and after each exit, until `unbind`.

        From any thread; harmless when repeated. Real hosts do nothing. A host in virtual time is
        deterministic over the vCPUs that are bound to it: its clock stands while any of them is outside
        `run()`, and it waits for the thread of the one whose turn it is. So a thread that starts a vCPU binds
        it before it goes on, a thread unbinds before it waits for anything but `run()`, and handling an exit
        takes no virtual time.
        """

    def unbind(self) -> None:
        """Say that this vCPU will not call `run()` for now. From any thread while outside `run()`."""

    def get_one_reg(self, register_id: int) -> int:
        """KVM_GET_ONE_REG. EINVAL for an id that is unknown (an existing number with a wrong size is)."""

    def set_one_reg(self, register_id: int, value: int) -> None:
        """KVM_SET_ONE_REG. EINVAL as above, and if `value` does not fit the id's size or is refused."""

    def get_regs(self) -> Regs:
        """KVM_GET_REGS: a copy. The answer of a hypercall still to be finished is not in it."""

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS: a copy."""

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS; EINVAL for a processor version that this host is not."""

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP on the vCPU: PPC_PAPR, without which hypercalls do not reach user space.

        IRQ_XICS (a device's descriptor, a server's number) connects the vCPU to the interrupt controller.
        """

    def single_step(self, on: bool) -> None:
        """KVM_SET_GUEST_DEBUG with KVM_GUESTDBG_SINGLESTEP, or without: whether a run ends (`DebugExit`)
        after one instruction. No interrupt from outside comes before that instruction. A breakpoint at it
        does not count. EOPNOTSUPP if the host cannot.
        """

    def translate(self, address: int) -> int | None:
        """KVM_TRANSLATE: the guest real address behind an effective address of data; None if there is none.

        Permissions do not count, and nothing that the guest can see changes. EOPNOTSUPP if the host cannot.
        """

    def trace(self, trace: RunTrace | None) -> None:
        """Tell `trace` what happens inside this vCPU's runs from now on; None: nobody. KVM has no such call:
        a real kernel tells of it in traces of its own, and `trace` is told nothing.
        """

    def interrupt(self, level: bool) -> None:
        """KVM_INTERRUPT: raise or lower the external interrupt (0x500). From any thread."""
