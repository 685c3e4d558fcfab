"""Radix address translation, written as a meaning (Power ISA 3.0B Book III 5.7.10 to 5.7.12).

A program made here takes an effective address and either ends in `translated`, which hands the real address
to whoever asked, or raises the storage interrupt that the architecture prescribes. It reads and updates the
guest's tables through real addresses only, so every evaluator can run it.

The tree is the one that POWER9 supports: 52 bits of effective address, of which the four levels take 13, 9,
9, and 9 (4 KiB pages) or 5 (64 KiB pages). A leaf one level up maps 2 MiB, two levels up 1 GiB.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Final

from chronovisor.isa.bits import DSISR, MSR
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Program, Value
from chronovisor.isa.verifier import verify


class Access(Enum):
    """What a translated address is used for."""

    LOAD = "load"
    STORE = "store"
    FETCH = "fetch"


TABLE_ADDRESS: Final = 0x0FFF_FFFF_FFFF_F000
"""Where the second doubleword of a partition table entry has the process table's real address."""
TABLE_SIZE: Final = 0x1F
"""Where that doubleword has the process table's size: log2 of its bytes, less 12."""
_ENTRY_SIZE: Final = 16

_DIRECTORY_ADDRESS: Final = 0x0FFF_FFFF_FFFF_FF00
_DIRECTORY_SIZE: Final = 0x1F
_EFFECTIVE_BITS: Final = 52
_ROOT_LEVELS: Final = 13
_TREE_52_BITS: Final = 21
"""A process table entry's tree size field for a tree of 52 bits: the size less 31."""

VALID: Final = 1 << 63
LEAF: Final = 1 << 62
REAL_PAGE: Final = 0x01FF_FFFF_FFFF_F000
REFERENCED: Final = 1 << 8
CHANGED: Final = 1 << 7
_ATTRIBUTES: Final = 0x30
_NON_IDEMPOTENT: Final = 0x20
PRIVILEGED: Final = 1 << 3
READ: Final = 1 << 2
READ_WRITE: Final = 1 << 1
EXECUTE: Final = 1 << 0

KEY_SHIFT: Final = 62
"""Where AMR and IAMR have the two bits of key 0, the only one that radix translation uses."""
_AMR_NO_STORE: Final = 2 << KEY_SHIFT
_AMR_NO_LOAD: Final = 1 << KEY_SHIFT
_IAMR_NO_FETCH: Final = 1 << KEY_SHIFT

_LEVELS: Final = (39, 30, 21)
"""The bits of the effective address below each directory's index, from the root down."""


class _Walk:
    """One walk in the making: what it has found so far."""

    def __init__(self, m: Machine, access: Access) -> None:
        self.m = m
        self.access = access
        self.ea = m.operand("ea")
        self.problem = (m["MSR"] & int(MSR.PR)).ne(0)

    def fault(self, cause: int) -> None:
        """End in the storage interrupt of this kind of access."""
        m = self.m
        if self.access is Access.FETCH:
            m.interrupt("INSTRUCTION_STORAGE", cause)
            return
        m["DAR"] = self.ea
        m["DSISR"] = m.value(cause | (int(DSISR.STORE) if self.access is Access.STORE else 0), 32)
        m.interrupt("DATA_STORAGE")

    def fault_if(self, condition: Value, cause: DSISR) -> None:
        """End in the storage interrupt if `condition` holds."""
        with self.m.when(condition):
            self.fault(int(cause))

    def check_quadrant(self) -> Value:
        """Return 1 bit: the address is in the kernel's quadrant.

        The two quadrants between are invalid, and so is an address of more bits than the tree translates.
        """
        m, quadrant = self.m, self.ea.extract(62, 2)
        beyond = self.ea.extract(_EFFECTIVE_BITS, 62 - _EFFECTIVE_BITS)
        with m.when(quadrant.eq(1) | quadrant.eq(2) | beyond.ne(0)):
            if self.access is Access.FETCH:
                m.interrupt("INSTRUCTION_SEGMENT")
            else:
                m["DAR"] = self.ea
                m.interrupt("DATA_SEGMENT")
        return quadrant.eq(3)

    def root(self, kernel: Value) -> Value:
        """Return the address of the process's root directory (5.7.10.1)."""
        m = self.m
        pid = m.select(kernel, 0, m["PIDR"].zext(64))
        table = m["PATE1"]
        offset = pid * _ENTRY_SIZE
        size = m.value(1) << ((table & TABLE_SIZE) + 12)
        self.fault_if(~offset.ult(size), DSISR.NO_TRANSLATION)
        entry = m.load_real((table & TABLE_ADDRESS) + offset)
        tree_size = (((entry >> 61) & 3) << 3) | ((entry >> 5) & 7)
        fits = tree_size.eq(_TREE_52_BITS) & (entry & _DIRECTORY_SIZE).eq(_ROOT_LEVELS)
        self.fault_if(~fits, DSISR.BAD_CONFIGURATION)
        return entry & _DIRECTORY_ADDRESS

    def leaf(self, root: Value) -> tuple[Value, Value, Value]:
        """Return the page table entry, its address, and log2 of the page's size."""
        m = self.m
        directory, index_bits = root, m.value(_ROOT_LEVELS)
        found = m.value(0, 1)
        pte = place = size = m.value(0)
        for depth, below in enumerate((*_LEVELS, None)):
            if below is None:
                # The last level has 512 entries for 4 KiB pages or 32 for 64 KiB pages.
                fits = index_bits.eq(9) | index_bits.eq(5)
                low = 21 - index_bits
            else:
                fits = index_bits.eq(_ROOT_LEVELS if depth == 0 else 9)
                low = m.value(below)
            self.fault_if(~found & ~fits, DSISR.BAD_CONFIGURATION)
            index = (self.ea >> low) & ((m.value(1) << index_bits) - 1)
            here = directory + (index << 3)
            entry = m.load_real(here)
            self.fault_if(~found & (entry & VALID).eq(0), DSISR.NO_TRANSLATION)
            is_leaf = (entry & LEAF).ne(0)
            if depth == 0 or below is None:
                # No page is as large as a whole root entry, and nothing lies below the last level.
                self.fault_if(~found & (is_leaf if depth == 0 else ~is_leaf), DSISR.BAD_CONFIGURATION)
            takes = ~found & is_leaf
            pte, place = m.select(takes, entry, pte), m.select(takes, here, place)
            size = m.select(takes, low, size)
            found = found | is_leaf
            directory, index_bits = entry & _DIRECTORY_ADDRESS, entry & _DIRECTORY_SIZE
        return pte, place, size

    def check_access(self, pte: Value) -> Value:
        """Raise the interrupt if the page does not allow the access (5.7.12).

        Return 1 bit: the page may be loaded from too. It is 0 for a fetch, after which nobody asks.
        """
        m = self.m
        privileged_page = (pte & PRIVILEGED).ne(0)
        keyed = ~self.problem & ~privileged_page
        if self.access is Access.FETCH:
            allowed = (pte & EXECUTE).ne(0) & (pte & _ATTRIBUTES).ne(_NON_IDEMPOTENT)
            key = m["IAMR"] & _IAMR_NO_FETCH
            loads = m.value(0, 1)
        elif self.access is Access.STORE:
            allowed = (pte & READ_WRITE).ne(0)
            key = m["AMR"] & _AMR_NO_STORE
            # A page that may be written may be read, unless the key forbids that.
            loads = ~(keyed & (m["AMR"] & _AMR_NO_LOAD).ne(0))
        else:
            allowed = (pte & (READ | READ_WRITE)).ne(0)
            key = m["AMR"] & _AMR_NO_LOAD
            loads = m.value(1, 1)
        denied = ~allowed | (self.problem & privileged_page) | (keyed & key.ne(0))
        self.fault_if(denied, DSISR.NO_EXECUTE if self.access is Access.FETCH else DSISR.PROTECTION)
        return loads

    def record(self, pte: Value, place: Value) -> None:
        """Set the page's reference bit and, for a store, its change bit."""
        seen = REFERENCED | (CHANGED if self.access is Access.STORE else 0)
        with self.m.when((pte & seen).ne(seen)):
            self.m.update_real(place, pte, pte | seen)


@cache
def translation(access: Access) -> Program:
    """Return the program that translates the 64-bit effective address `ea` for one kind of access.

    It ends in `translated` with the real address and log2 of the page's size, or in a storage or segment
    interrupt. For a fetch, DSISR's bits are the interrupt's cause bits in SRR1.
    """
    m = Machine()
    walk = _Walk(m, access)
    kernel = walk.check_quadrant()
    pte, place, size = walk.leaf(walk.root(kernel))
    loads = walk.check_access(pte)
    walk.record(pte, place)
    inside = (m.value(1) << size) - 1
    m.translated((pte & REAL_PAGE & ~inside) | (walk.ea & inside), size, loads)
    return verify(m.trace.program(f"translate_{access.value}", ("ea",)))
