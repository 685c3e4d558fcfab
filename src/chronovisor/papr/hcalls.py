"""Hypercall numbers and status codes, declared once.

A guest calls with `sc 1`: the number in r3, arguments in r4 to r12; the status comes back in r3, results from
r4 on. Statuses are signed 64-bit integers: `Status.FUNCTION & (2**64 - 1)` is what r3 holds.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class Status(IntEnum):
    """A hypercall's status (LoPAR table "Hypervisor Call Return Code")."""

    SUCCESS = 0
    BUSY = 1
    CLOSED = 2
    NOT_AVAILABLE = 3
    PARTIAL = 5
    IN_PROGRESS = 14
    CONTINUE = 18
    LONG_BUSY_1_MS = 9900
    LONG_BUSY_10_MS = 9901
    LONG_BUSY_100_MS = 9902
    LONG_BUSY_1_S = 9903
    LONG_BUSY_10_S = 9904
    LONG_BUSY_100_S = 9905
    HARDWARE = -1
    FUNCTION = -2
    PRIVILEGE = -3
    PARAMETER = -4
    BAD_MODE = -5
    PTEG_FULL = -6
    NOT_FOUND = -7
    RESERVED_DABR = -8
    NO_MEM = -9
    AUTHORITY = -10
    PERMISSION = -11
    DROPPED = -12
    RESOURCE = -16
    P2 = -55
    P3 = -56
    P4 = -57
    P5 = -58
    P6 = -59
    P7 = -60
    P8 = -61
    P9 = -62
    TOO_BIG = -64
    UNSUPPORTED = -67
    OVERLAP = -68
    INTERRUPT = -69
    STATE = -75
    UNSUPPORTED_FLAG_START = -256


TOO_HARD: Final = 9999
"""No guest sees this status: the hypervisor's handler returns it to leave the answer to user space."""


class Hcall(IntEnum):
    """A hypercall's number, as the guest passes it in r3."""

    REMOVE = 0x04
    ENTER = 0x08
    READ = 0x0C
    CLEAR_MOD = 0x10
    CLEAR_REF = 0x14
    PROTECT = 0x18
    GET_TCE = 0x1C
    PUT_TCE = 0x20
    SET_SPRG0 = 0x24
    SET_DABR = 0x28
    PAGE_INIT = 0x2C
    LOGICAL_CI_LOAD = 0x3C
    LOGICAL_CI_STORE = 0x40
    GET_TERM_CHAR = 0x54
    PUT_TERM_CHAR = 0x58
    EOI = 0x64
    CPPR = 0x68
    IPI = 0x6C
    IPOLL = 0x70
    XIRR = 0x74
    REGISTER_VPA = 0xDC
    CEDE = 0xE0
    CONFER = 0xE4
    PROD = 0xE8
    REG_CRQ = 0xFC
    FREE_CRQ = 0x100
    VIO_SIGNAL = 0x104
    SEND_CRQ = 0x108
    REGISTER_LOGICAL_LAN = 0x114
    FREE_LOGICAL_LAN = 0x118
    ADD_LOGICAL_LAN_BUFFER = 0x11C
    SEND_LOGICAL_LAN = 0x120
    BULK_REMOVE = 0x124
    MULTICAST_CTRL = 0x130
    SET_XDABR = 0x134
    STUFF_TCE = 0x138
    PUT_TCE_INDIRECT = 0x13C
    CHANGE_LOGICAL_LAN_MAC = 0x14C
    GET_CPU_CHARACTERISTICS = 0x1C8
    FREE_LOGICAL_LAN_BUFFER = 0x1D4
    ILLAN_ATTRIBUTES = 0x244
    JOIN = 0x298
    VASI_STATE = 0x2A4
    ENABLE_CRQ = 0x2B0
    HOME_NODE_ASSOCIATIVITY = 0x2EC
    XIRR_X = 0x2FC
    RANDOM = 0x300
    SET_MODE = 0x31C
    REGISTER_PROC_TBL = 0x37C
    SIGNAL_SYS_RESET = 0x380
    RPT_INVALIDATE = 0x448
    RTAS = 0xF000
    """Not of the PAPR: for guests without an RTAS image of their own; r4 = the argument block."""


class SetMode(IntEnum):
    """H_SET_MODE's resources (its second argument)."""

    CIABR = 1
    DAWR0 = 2
    ADDRESS_TRANSLATION = 3
    ENDIAN = 4
    DAWR1 = 5


class PageInit(IntFlag):
    """H_PAGE_INIT's flags (its first argument) that say what becomes of the page; neither: nothing."""

    ZERO = 1 << (63 - 48)
    COPY = 1 << (63 - 49)


MOST_STUFFED: Final = 1 << 16
"""Entries that one H_STUFF_TCE sets at most, here."""

LAN_HEADER: Final = 8
"""Bytes in front of a frame in a buffer of H_ADD_LOGICAL_LAN_BUFFER: what the guest finds it again by."""

SHORTEST_FRAME: Final = 14
"""Bytes of a frame without data: its header."""

CALL_ARGUMENTS: Final = 9
"""r4 to r12."""


def unsigned(status: int) -> int:
    """A status as the 64-bit pattern that r3 holds."""
    return int(status) & 0xFFFF_FFFF_FFFF_FFFF


def name_of(number: int) -> str:
    """A hypercall's name for people: `H_CEDE`, or `hypercall 0x398` if the number is not in `Hcall`."""
    try:
        return f"H_{Hcall(number).name}"
    except ValueError:
        return f"hypercall {number:#x}"
