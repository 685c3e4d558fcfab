"""Bits of the machine state register, LPCR, XER, FPSCR and DSISR, by name.

Values are masks over the register; the Power ISA numbers bit 0 as the most significant, so its bit n
of a 64-bit register is ``1 << (63 - n)``. Sources: Power ISA 3.0B Book III 2.2 (LPCR), 3.2.1 (MSR),
7.5 (DSISR); Book I 3.2.2 (XER).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class MSR(IntEnum):
    """The machine state register."""

    SF = 1 << 63
    HV = 1 << 60
    TS = 3 << 33
    TM = 1 << 32
    VEC = 1 << 25
    VSX = 1 << 23
    EE = 1 << 15
    PR = 1 << 14
    FP = 1 << 13
    ME = 1 << 12
    FE0 = 1 << 11
    SE = 1 << 10
    BE = 1 << 9
    FE1 = 1 << 8
    IR = 1 << 5
    DR = 1 << 4
    PMM = 1 << 2
    RI = 1 << 1
    LE = 1 << 0


#: The bits of MSR that are there. Transactional memory is not: MSR[TS], the one field of two bits, stays 0.
MSR_BITS = sum(bit for bit in MSR if bit is not MSR.TS)


class LPCR(IntEnum):
    """The logical partitioning control register."""

    ILE = 1 << 25
    AIL = 3 << 23
    UPRT = 1 << 22
    HR = 1 << 20
    ONL = 1 << 18
    LD = 1 << 17
    PECE = 7 << 12
    MER = 1 << 11
    GTSE = 1 << 10
    TC = 1 << 9
    LPES = 3 << 2
    HVICE = 1 << 1
    HDICE = 1 << 0


class FSCR(IntEnum):
    """What problem state may use; bit 1 << n makes the interruption cause n (Book III 6.2.10)."""

    SCV = 1 << 12
    TAR = 1 << 8
    EBB = 1 << 7
    TM = 1 << 5
    DSCR = 1 << 2
    VSX = 1 << 1
    FP = 1 << 0


class XER(IntEnum):
    """The fixed-point exception register."""

    SO = 1 << 31
    OV = 1 << 30
    CA = 1 << 29
    OV32 = 1 << 19
    CA32 = 1 << 18
    COUNT = 0x7F


class FPSCR(IntFlag):
    """The floating-point status and control register (Book I 4.2.2). Its upper half has DRN alone."""

    FX = 1 << 31
    FEX = 1 << 30
    VX = 1 << 29
    OX = 1 << 28
    UX = 1 << 27
    ZX = 1 << 26
    XX = 1 << 25
    VXSNAN = 1 << 24
    VXISI = 1 << 23
    VXIDI = 1 << 22
    VXZDZ = 1 << 21
    VXIMZ = 1 << 20
    VXVC = 1 << 19
    FR = 1 << 18
    FI = 1 << 17
    C = 1 << 16
    FL = 1 << 15
    FG = 1 << 14
    FE = 1 << 13
    FU = 1 << 12
    VXSOFT = 1 << 10
    VXSQRT = 1 << 9
    VXCVI = 1 << 8
    VE = 1 << 7
    OE = 1 << 6
    UE = 1 << 5
    ZE = 1 << 4
    XE = 1 << 3
    NI = 1 << 2
    RN = 3


class DSISR(IntEnum):
    """Why a storage access failed (data storage interrupt; SRR1 has the same bits for instructions)."""

    NO_TRANSLATION = 1 << 30
    PROTECTION = 1 << 27
    STORE = 1 << 25
    ATTRIBUTE = 1 << 26
    NO_EXECUTE = 1 << (63 - 35)
    BAD_CONFIGURATION = 1 << (63 - 44)
    FUNCTION_CODE = 1 << (63 - 44)


class ProgramCause(IntEnum):
    """SRR1's bits that say why a program interrupt came (Book III 6.5.9)."""

    FP_ENABLED = 1 << (63 - 43)
    ILLEGAL = 1 << (63 - 44)
    PRIVILEGED = 1 << (63 - 45)
    TRAP = 1 << (63 - 46)
    LATER = 1 << (63 - 47)
    """SRR0 has the address of a later instruction than the one that caused the interrupt."""
