"""KVM's numbers on 64-bit Power: one-register ids, capabilities, exit reasons. One table each.

Source: the kernel's user-space headers, `asm/kvm.h` of powerpc and `linux/kvm.h`, as of Linux 6.1. Registers
of embedded (Book E) processors are left out: Book3S refuses them.

Names and sizes are the kernel's. They do not derive from the ISA's table of registers, because KVM's
interface knows no ISA. A test compares the two.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

KVM_API_VERSION: Final = 12
_PPC: Final = 0x1000_0000_0000_0000
_SIZE_CODE: Final = {4: 0x0020_0000_0000_0000, 8: 0x0030_0000_0000_0000, 16: 0x0040_0000_0000_0000}
_TM: Final = 0x8000_0000


class OneReg(NamedTuple):
    """A register that KVM_GET_ONE_REG and KVM_SET_ONE_REG reach."""

    name: str
    """KVM's own name without `KVM_REG_PPC_`."""
    number: int
    """The low 32 bits of the id."""
    size: int
    """In bytes: 4, 8 or 16."""

    @property
    def id(self) -> int:
        """The 64-bit id that the ioctl takes: architecture, size and number."""
        return _PPC | _SIZE_CODE[self.size] | self.number


def _registers(size: int, base: int = 0, **numbers: int) -> list[OneReg]:
    return [OneReg(name, base + number, size) for name, number in numbers.items()]


def _array(name: str, count: int, size: int, first: int) -> list[OneReg]:
    return [OneReg(f"{name}{n}", first + n, size) for n in range(count)]


# fmt: off
ONE_REGS: Final[tuple[OneReg, ...]] = (
    *_registers(
        8,
        HIOR=0x01, DABR=0x08, DSCR=0x09, PURR=0x0A, SPURR=0x0B, DAR=0x0C, AMR=0x0E, UAMOR=0x0F,
        MMCR0=0x10, MMCR1=0x11, MMCRA=0x12, MMCR2=0x13, MMCRS=0x14, SIAR=0x15, SDAR=0x16, SIER=0x17,
        FPSCR=0x80, VPA_ADDR=0x82, ICP_STATE=0x8C, TB_OFFSET=0x9C, IAMR=0x9F,
        TFHAR=0xA0, TFIAR=0xA1, TEXASR=0xA2, FSCR=0xA3, EBBHR=0xA5, EBBRR=0xA6, BESCR=0xA7,
        TAR=0xA8, DPDES=0xA9, DAWR=0xAA, DAWRX=0xAB, CIABR=0xAC, IC=0xAD, VTB=0xAE, CSIGR=0xAF,
        TACR=0xB0, TCSCR=0xB1, PID=0xB2, ACOP=0xB3, LPCR_64=0xB5, PPR=0xB6, WORT=0xB9, SPRG9=0xBA,
        TIDR=0xBC, PSSCR=0xBD, DEC_EXPIRY=0xBE, PTCR=0xC0, MMCR3=0xC1, SIER2=0xC2, SIER3=0xC3,
        DAWR1=0xC4, DAWRX1=0xC5,
    ),
    *_registers(
        4,
        DSISR=0x0D, PMC1=0x18, PMC2=0x19, PMC3=0x1A, PMC4=0x1B, PMC5=0x1C, PMC6=0x1D, PMC7=0x1E, PMC8=0x1F,
        VSCR=0x81, DEBUG_INST=0x8B, SPMC1=0x9D, SPMC2=0x9E, PSPB=0xA4, VRSAVE=0xB4, LPCR=0xB5,
        ARCH_COMPAT=0xB7, DABRX=0xB8, DBSR=0xBB, ONLINE=0xBF,
    ),
    *_registers(16, VPA_SLB=0x83, VPA_DTL=0x84, VP_STATE=0x8D),
    *_array("FPR", 32, 8, 0x20),
    *_array("VR", 32, 16, 0x40),
    *_array("VSR", 32, 16, 0x60),
    *_array("TM_GPR", 32, 8, _TM),
    *_array("TM_VSR", 64, 16, _TM + 0x20),
    *_registers(
        8, _TM,
        TM_CR=0x60, TM_LR=0x61, TM_CTR=0x62, TM_FPSCR=0x63, TM_AMR=0x64, TM_PPR=0x65, TM_VRSAVE=0x66,
        TM_DSCR=0x68, TM_TAR=0x69, TM_XER=0x6A,
    ),
    *_registers(4, _TM, TM_VSCR=0x67),
)
# fmt: on
"""Every one-register id of Book3S. 16-byte registers are integers: VR and VSR with bits 0:63 in
the upper half, whatever the kernel's byte order is; VPA_SLB and VPA_DTL are `address << 64 | length`."""

ONE_REG_BY_NAME: Final = {register.name: register for register in ONE_REGS}
ONE_REG_BY_ID: Final = {register.id: register for register in ONE_REGS}


class Cap(IntEnum):
    """Capabilities that KVM_CHECK_EXTENSION and KVM_ENABLE_CAP take."""

    USER_MEMORY = 3
    NR_VCPUS = 9
    MP_STATE = 14
    SYNC_MMU = 16
    IOEVENTFD = 36
    PPC_SEGSTATE = 43
    PPC_UNSET_IRQ = 53
    ENABLE_CAP = 54
    PPC_GET_PVINFO = 57
    PPC_IRQ_LEVEL = 58
    SPAPR_TCE = 63
    PPC_SMT = 64
    PPC_RMA = 65
    MAX_VCPUS = 66
    PPC_HIOR = 67
    PPC_PAPR = 68
    ONE_REG = 70
    PPC_GET_SMMU_INFO = 78
    PPC_ALLOC_HTAB = 80
    PPC_HTAB_FD = 84
    DEVICE_CTRL = 89
    PPC_RTAS = 91
    IRQ_XICS = 92
    SPAPR_MULTITCE = 94
    ENABLE_CAP_VM = 98
    PPC_FIXUP_HCALL = 103
    PPC_ENABLE_HCALL = 104
    PPC_HWRNG = 115
    SPAPR_TCE_64 = 125
    MAX_VCPU_ID = 128
    PPC_HTM = 132
    SPAPR_RESIZE_HPT = 133
    PPC_MMU_RADIX = 134
    PPC_MMU_HASH_V3 = 135
    IMMEDIATE_EXIT = 136
    PPC_FWNMI = 146
    PPC_SMT_POSSIBLE = 147
    PPC_GET_CPU_CHAR = 151
    PPC_NESTED_HV = 160
    PPC_IRQ_XIVE = 169
    PPC_GUEST_DEBUG_SSTEP = 176
    PPC_SECURE_GUEST = 181
    PPC_DAWR1 = 194
    PPC_RPT_INVALIDATE = 202
    PPC_AIL_MODE_3 = 210


class MemoryFlag(IntFlag):
    """Flags of KVM_SET_USER_MEMORY_REGION."""

    LOG_DIRTY_PAGES = 1
    """KVM_MEM_LOG_DIRTY_PAGES: which pages are written can be asked with KVM_GET_DIRTY_LOG."""


class DeviceType(IntEnum):
    """KVM_CREATE_DEVICE's types, as far as this hypervisor has them."""

    XICS = 3


class XicsGroup(IntEnum):
    """Groups of attributes of the XICS device."""

    SOURCES = 1
    """An attribute a source, by its number; the value is made of `XicsSource`'s fields."""


class XicsSource:
    """A source's state in 64 bits (KVM_XICS_*): its server in the low 32, then what is here."""

    PRIORITY_SHIFT: Final = 32
    LEVEL_SENSITIVE: Final = 1 << 40
    MASKED: Final = 1 << 41
    PENDING: Final = 1 << 42
    PRESENTED: Final = 1 << 43


class MmuV3Flag(IntFlag):
    """Flags of KVM_PPC_CONFIGURE_V3_MMU."""

    RADIX = 1
    GTSE = 2
    """The guest may execute tlbie and tlbsync itself (LPCR[GTSE])."""


class ExitReason(IntEnum):
    """`kvm_run.exit_reason`: why KVM_RUN came back to user space."""

    UNKNOWN = 0
    DEBUG = 4
    MMIO = 6
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    NMI = 16
    INTERNAL_ERROR = 17
    PAPR_HCALL = 19
    SYSTEM_EVENT = 24


class SystemEventType(IntEnum):
    """`kvm_run.system_event.type`."""

    SHUTDOWN = 1
    RESET = 2
    CRASH = 3


class VmType(IntEnum):
    """KVM_CREATE_VM's argument on Power."""

    AUTO = 0
    HV = 1
    PR = 2
