"""Where a guest's effective addresses lead: a walk of its radix tables by user space, because the kernel has
no KVM_TRANSLATE on Power.

Power ISA 3.0B, Book III 5.7. Permissions do not count, and nothing in the tables changes.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final, Protocol

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import MmuV3Flag

MSR_SF: Final = 1 << 63
MSR_IR: Final = 1 << 5
MSR_DR: Final = 1 << 4

_REAL_ADDRESS: Final = (1 << 60) - 1
"""The bits of an effective address that real mode uses."""
_QUADRANT_SHIFT: Final = 62
_USER, _KERNEL = 0, 3
"""Quadrants: addresses of the process in PIDR, and of process 0. A guest has no others."""
_TABLE: Final = 0x0FFF_FFFF_FFFF_F000
_NEXT: Final = 0x0FFF_FFFF_FFFF_FF00
_REAL_PAGE: Final = 0x01FF_FFFF_FFFF_F000
_SIZE: Final = 0x1F
_SMALLEST_TREE: Final = 31
_SMALLEST_TABLE: Final = 12
_VALID: Final = 1 << 63
_LEAF: Final = 1 << 62
_ENTRY: Final = 8
_PROCESS_ENTRY_SHIFT: Final = 4


class RealMemory(Protocol):
    """Memory by guest real addresses."""

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes at an address; None if any of them is not there."""


@dataclass(frozen=True, slots=True)
class ProcessTables:
    """How a guest translates: what it registered by KVM_PPC_CONFIGURE_V3_MMU."""

    flags: int = 0
    process_table: int = 0
    """The second doubleword of the partition table entry."""

    def real(self, memory: RealMemory, address: int, msr: int, relocate: int, process: int) -> int | None:
        """Return the guest real address behind an effective one, None if it leads nowhere.

        `relocate` is MSR_IR for instructions and MSR_DR for data; `process` is PIDR. EOPNOTSUPP for a guest
        with hashed page tables.
        """
        if not msr & MSR_SF:
            address &= 0xFFFF_FFFF
        if not msr & relocate:
            return address & _REAL_ADDRESS
        if not self.flags & MmuV3Flag.RADIX:
            raise KvmError(errno.EOPNOTSUPP, "addresses of a guest with hashed page tables")
        quadrant = address >> _QUADRANT_SHIFT
        if quadrant not in (_USER, _KERNEL):
            return None
        tree = self._tree(memory, process if quadrant == _USER else 0)
        return None if tree is None else _walk(memory, tree, address & ((1 << _QUADRANT_SHIFT) - 1))

    def _tree(self, memory: RealMemory, process: int) -> int | None:
        if process >> ((self.process_table & _SIZE) + _SMALLEST_TABLE - _PROCESS_ENTRY_SHIFT):
            return None
        return _doubleword(memory, (self.process_table & _TABLE) + (process << _PROCESS_ENTRY_SHIFT))


def _walk(memory: RealMemory, tree: int, address: int) -> int | None:
    left = (((tree >> 61) & 3) << 3 | (tree >> 5) & 7) + _SMALLEST_TREE
    if address >> left:
        return None
    entry: int | None = tree
    while entry is not None:
        bits = entry & _SIZE
        if not 0 < bits <= left:
            return None
        left -= bits
        index = (address >> left) & ((1 << bits) - 1)
        entry = _doubleword(memory, (entry & _NEXT) + _ENTRY * index)
        if entry is None or not entry & _VALID:
            return None
        if entry & _LEAF:
            offset = (1 << left) - 1
            return (entry & _REAL_PAGE & ~offset) | (address & offset)
    return None


def _doubleword(memory: RealMemory, address: int) -> int | None:
    # Tables are big-endian, whatever the guest is.
    raw = memory.read(address, _ENTRY)
    return None if raw is None else int.from_bytes(raw, "big")
