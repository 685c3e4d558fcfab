"""The structures that KVM's ioctls take on 64-bit Power, and the ioctls' numbers, which follow from them.

Source: the kernel's user-space headers, `asm/kvm.h` and `asm/ioctl.h` of powerpc and `linux/kvm.h`, as of
Linux 6.1. Powerpc numbers ioctls its own way: three bits of direction, of which "none" is one.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag
from typing import Final

SLB_ENTRIES: Final = 64


class OneRegister(ctypes.Structure):
    """`struct kvm_one_reg`."""

    _fields_ = (("id", ctypes.c_uint64), ("addr", ctypes.c_uint64))


SCALARS: Final = ("pc", "cr", "ctr", "lr", "xer", "msr", "srr0", "srr1", "pid")
ARRAYS: Final = {"sprg": 8, "gpr": 32}


class Registers(ctypes.Structure):
    """`struct kvm_regs`: doublewords, `SCALARS` and then `ARRAYS`."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in SCALARS),
        *((name, ctypes.c_uint64 * length) for name, length in ARRAYS.items()),
    )


class _SlbEntry(ctypes.Structure):
    _fields_ = (("slbe", ctypes.c_uint64), ("slbv", ctypes.c_uint64))


class SpecialRegisters(ctypes.Structure):
    """`struct kvm_sregs` with Book3S's side of its union."""

    _fields_ = (
        ("pvr", ctypes.c_uint32),
        ("sdr1", ctypes.c_uint64),
        ("slb", _SlbEntry * SLB_ENTRIES),
        # Of processors with segment registers and block address translation (sr, ibat, dbat).
        ("other_processors", ctypes.c_uint8 * (16 * 4 + 8 * 8 + 8 * 8)),
    )


class MemoryRegion(ctypes.Structure):
    """`struct kvm_userspace_memory_region`."""

    _fields_ = (
        ("slot", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("userspace_addr", ctypes.c_uint64),
    )


class DirtyLogRequest(ctypes.Structure):
    """`struct kvm_dirty_log`."""

    _fields_ = (("slot", ctypes.c_uint32), ("padding", ctypes.c_uint32), ("dirty_bitmap", ctypes.c_uint64))


class EnableCap(ctypes.Structure):
    """`struct kvm_enable_cap`."""

    _fields_ = (
        ("cap", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("args", ctypes.c_uint64 * 4),
        ("padding", ctypes.c_uint8 * 64),
    )


CAP_ARGUMENTS: Final = 4


class Interrupt(ctypes.Structure):
    """`struct kvm_interrupt`."""

    _fields_ = (("irq", ctypes.c_uint32),)


class InterruptLevel(IntEnum):
    """`kvm_interrupt.irq` on powerpc: an external interrupt's line up until it is lowered, and down."""

    UNSET = 0xFFFF_FFFE
    SET_LEVEL = 0xFFFF_FFFD


class GuestDebugControl(IntFlag):
    """`kvm_guest_debug.control`, as far as KVM HV heeds it: KVM_GUESTDBG_…"""

    ENABLE = 1
    USE_SW_BP = 1 << 16


class GuestDebug(ctypes.Structure):
    """`struct kvm_guest_debug`; its 16 breakpoints in registers are other processors'."""

    _fields_ = (("control", ctypes.c_uint32), ("pad", ctypes.c_uint32), ("arch", ctypes.c_uint64 * (16 * 2)))


class _Hypercall(ctypes.Structure):
    _fields_ = (("nr", ctypes.c_uint64), ("ret", ctypes.c_uint64), ("args", ctypes.c_uint64 * 9))


class _Mmio(ctypes.Structure):
    _fields_ = (
        ("phys_addr", ctypes.c_uint64),
        ("data", ctypes.c_uint8 * 8),
        ("len", ctypes.c_uint32),
        ("is_write", ctypes.c_uint8),
    )


class _DebugArch(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("status", ctypes.c_uint32))


class _Debug(ctypes.Structure):
    _fields_ = (("arch", _DebugArch),)


class _FailEntry(ctypes.Structure):
    _fields_ = (("hardware_entry_failure_reason", ctypes.c_uint64), ("cpu", ctypes.c_uint32))


class _InternalError(ctypes.Structure):
    _fields_ = (("suberror", ctypes.c_uint32), ("ndata", ctypes.c_uint32), ("data", ctypes.c_uint64 * 16))


class _SystemEvent(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("ndata", ctypes.c_uint32), ("data", ctypes.c_uint64 * 16))


class _Reasons(ctypes.Union):
    _fields_ = (
        ("papr_hcall", _Hypercall),
        ("mmio", _Mmio),
        ("debug", _Debug),
        ("fail_entry", _FailEntry),
        ("internal", _InternalError),
        ("system_event", _SystemEvent),
    )


class KvmRun(ctypes.Structure):
    """The beginning of `struct kvm_run`, as far as this provider reads it."""

    _anonymous_ = ("exit",)
    _fields_ = (
        ("request_interrupt_window", ctypes.c_uint8),
        ("immediate_exit", ctypes.c_uint8),
        ("padding1", ctypes.c_uint8 * 6),
        ("exit_reason", ctypes.c_uint32),
        ("ready_for_interrupt_injection", ctypes.c_uint8),
        ("if_flag", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("cr8", ctypes.c_uint64),
        ("apic_base", ctypes.c_uint64),
        ("exit", _Reasons),
    )


_KVM: Final = 0xAE
_NONE, _READ, _WRITE = 1, 2, 4


def _ioctl(direction: int, number: int, argument: type[ctypes.Structure] | None = None) -> int:
    size = ctypes.sizeof(argument) if argument is not None else 0
    return (direction << 29) | (size << 16) | (_KVM << 8) | number


class MmuV3Configuration(ctypes.Structure):
    """`struct kvm_ppc_mmuv3_cfg`."""

    _fields_ = (("flags", ctypes.c_uint64), ("process_table", ctypes.c_uint64))


class CreateDevice(ctypes.Structure):
    """`struct kvm_create_device`."""

    _fields_ = (("type", ctypes.c_uint32), ("fd", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class DeviceAttribute(ctypes.Structure):
    """`struct kvm_device_attr`."""

    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("attr", ctypes.c_uint64),
        ("addr", ctypes.c_uint64),
    )


class IrqLevel(ctypes.Structure):
    """`struct kvm_irq_level`."""

    _fields_ = (("irq", ctypes.c_uint32), ("level", ctypes.c_uint32))


class Ioctl(IntEnum):
    """KVM's ioctls on powerpc."""

    GET_API_VERSION = _ioctl(_NONE, 0x00)
    CREATE_VM = _ioctl(_NONE, 0x01)
    CHECK_EXTENSION = _ioctl(_NONE, 0x03)
    GET_VCPU_MMAP_SIZE = _ioctl(_NONE, 0x04)
    CREATE_VCPU = _ioctl(_NONE, 0x41)
    GET_DIRTY_LOG = _ioctl(_WRITE, 0x42, DirtyLogRequest)
    IRQ_LINE = _ioctl(_WRITE, 0x61, IrqLevel)
    SET_USER_MEMORY_REGION = _ioctl(_WRITE, 0x46, MemoryRegion)
    RUN = _ioctl(_NONE, 0x80)
    GET_REGS = _ioctl(_READ, 0x81, Registers)
    SET_REGS = _ioctl(_WRITE, 0x82, Registers)
    GET_SREGS = _ioctl(_READ, 0x83, SpecialRegisters)
    SET_SREGS = _ioctl(_WRITE, 0x84, SpecialRegisters)
    INTERRUPT = _ioctl(_WRITE, 0x86, Interrupt)
    ENABLE_CAP = _ioctl(_WRITE, 0xA3, EnableCap)
    GET_ONE_REG = _ioctl(_WRITE, 0xAB, OneRegister)
    SET_ONE_REG = _ioctl(_WRITE, 0xAC, OneRegister)
    SET_GUEST_DEBUG = _ioctl(_WRITE, 0x9B, GuestDebug)
    CREATE_DEVICE = _ioctl(_READ | _WRITE, 0xE0, CreateDevice)
    SET_DEVICE_ATTR = _ioctl(_WRITE, 0xE1, DeviceAttribute)
    GET_DEVICE_ATTR = _ioctl(_WRITE, 0xE2, DeviceAttribute)
    PPC_CONFIGURE_V3_MMU = _ioctl(_WRITE, 0xAF, MmuV3Configuration)
