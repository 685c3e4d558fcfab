"""How a vCPU enters code that begins a system, or a processor's part in one."""

from __future__ import annotations

from typing import Final

from chronovisor.memory import AddressError, GuestMemory

MSR_SF: Final = 1 << 63
MSR_EE: Final = 1 << 15
MSR_ME: Final = 1 << 12
MSR_LE: Final = 1
_BRANCH: Final = 18
_NO_OPCODES: Final = (0, 1)
"""Primary opcodes (an instruction's top six bits) that no instruction of Power ISA 3.0B has."""


def entered_little(first: bytes, little: bool) -> bool:
    """Whether code whose first instruction has these bytes is entered in little-endian mode.

    It is if it belongs to a little-endian system, with one exception. Some such systems count on firmware
    that enters them in big-endian mode, and begin with a branch written so, which is no instruction at all in
    their own order.
    """
    first = first.ljust(4, b"\0")
    begins_big = first[0] >> 2 == _BRANCH and first[3] >> 2 in _NO_OPCODES
    return little and not begins_big


def entry_msr(memory: GuestMemory, entry: int, little: bool) -> int:
    """The MSR with which a vCPU enters code at real address `entry` of a system of this endianness.

    64-bit mode, machine checks on, translation and interrupts off.
    """
    try:
        first = memory.read(entry, 4)
    except AddressError:
        first = b""
    return MSR_SF | MSR_ME | (MSR_LE if entered_little(first, little) else 0)
