"""Page tables for tests, and a walk of them that shares nothing with the one under test."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from chronovisor.isa.radix import Access
from chronovisor.memory.guest_memory import GuestMemory

KERNEL = 0xC000_0000_0000_0000
PID = 5
_PROCESS_TABLE = 0x2_0000
_ROOTS = {0: 0x3_0000, PID: 0x4_0000}
_FIRST_FREE = 0x5_0000
_TREE = (0b010 << 61) | (0b101 << 5) | 13
"""52 bits: the field of five bits holds 21, in two parts; the root directory has 2^13 entries."""


class Fault(NamedTuple):
    """An interrupt that an access ends in: its name, and DSISR or SRR1's bits."""

    name: str
    cause: int


class PageTables:
    """Tables of the kernel and of one process, in a guest's memory.

    `pages` are the effective addresses mapped, `entries` the addresses of all table entries that were made.
    """

    def __init__(
        self,
        memory: GuestMemory,
        process_table: int = _PROCESS_TABLE,
        roots: Mapping[int, int] = _ROOTS,
        free: int = _FIRST_FREE,
    ) -> None:
        """The process table has 2^12 bytes; `roots` are the root directories of processes, the kernel's of 0.

        Further directories are made at `free` and behind it.
        """
        self.memory = memory
        self.process_table = process_table
        self.pages: list[int] = []
        self.entries: list[int] = []
        self.free = free
        """Where the next directory is made."""
        self._roots = roots
        for pid, root in roots.items():
            self._put(process_table + pid * 16, _TREE | root)

    def map(self, ea: int, real: int, size: int, flags: int, pid: int = PID) -> int:
        """Map a page of 2^size bytes, unless something larger is there; return its entry's address."""
        directory, bits, low = self._roots[0 if ea >> 62 == 3 else pid], 13, 39
        self.pages.append(ea)
        while True:
            place = directory + ((ea >> low) & ((1 << bits) - 1)) * 8
            entry = self.memory.load(place, 8, False)
            if low == size or entry >> 62 == 3:
                self._put(place, entry or (0b11 << 62) | real | flags)
                return place
            if not entry:
                bits = 9 if low != 21 else (9 if size == 12 else 5)
                entry = (1 << 63) | self.free | bits
                self.free += 0x1000
                self._put(place, entry)
            directory, bits = entry & 0x0FFF_FFFF_FFFF_FF00, entry & 0x1F
            low -= bits

    def spoil(self, place: int, draw: random.Random) -> None:
        """Damage an entry in one bit that matters."""
        bit = draw.choice([63, 62, 0, 1, 3, 5])
        self.memory.store(place, 8, self.memory.load(place, 8, False) ^ (1 << bit), False)

    def written(self) -> list[int]:
        """The addresses of all doublewords that are not 0."""
        return [p for p in dict.fromkeys(self.entries) if self.memory.load(p, 8, False)]

    def _put(self, place: int, value: int) -> None:
        self.entries.append(place)
        self.memory.store(place, 8, value, False)


def expected(
    memory: bytes, table: int, pid: int, ea: int, access: Access, problem: bool, AMR: int, IAMR: int
) -> tuple[int | Fault, tuple[int, int] | None]:
    """What an access must end in, and the page table entry that it leaves changed: (address, value)."""
    fetch, store = access is Access.FETCH, access is Access.STORE

    def storage(bit: int) -> tuple[Fault, None]:
        cause = 1 << (63 - 32 - (bit - 32))
        if fetch:
            return Fault("INSTRUCTION_STORAGE", cause), None
        return Fault("DATA_STORAGE", cause | (0x0200_0000 if store else 0)), None

    def doubleword(at: int) -> int:
        return int.from_bytes(memory[at : at + 8], "big") if at + 8 <= len(memory) else 0

    if ea >> 62 in (1, 2) or (ea >> 52) & 0x3FF:
        return Fault("INSTRUCTION_SEGMENT" if fetch else "DATA_SEGMENT", 0), None
    process = 0 if ea >> 62 == 3 else pid
    if process >= (0x1000 << (table & 0x1F)) // 16:
        return storage(33)
    root = doubleword((table & 0x0FFF_FFFF_FFFF_F000) + 16 * process)
    if ((root >> 61) & 3, (root >> 5) & 7, root & 0x1F) != (2, 5, 13):
        return storage(44)
    directory, bits = root & 0x0FFF_FFFF_FFFF_FF00, 13
    low = 52
    for level in range(4):
        if (
            (bits != 13 and level == 0)
            or (bits != 9 and level in (1, 2))
            or (bits not in (5, 9) and level == 3)
        ):
            return storage(44)
        low -= bits
        place = directory + ((ea >> low) & ((1 << bits) - 1)) * 8
        entry = doubleword(place)
        if not entry >> 63:
            return storage(33)
        if (entry >> 62) & 1:
            break
        directory, bits = entry & 0x0FFF_FFFF_FFFF_FF00, entry & 0x1F
    else:
        return storage(44)
    if level == 0:
        return storage(44)
    user = not entry & 8
    write, read, execute = bool(entry & 2), bool(entry & 6), bool(entry & 1)
    if problem and not user:
        write = read = execute = False
    if not problem and user:
        write, read = write and not AMR >> 63, read and not (AMR >> 62) & 1
        execute = execute and not (IAMR >> 62) & 1
    if fetch and (not execute or entry & 0x30 == 0x20):
        return storage(35)
    if (store and not write) or (access is Access.LOAD and not read):
        return storage(36)
    marked = entry | 0x100 | (0x80 if store else 0)
    inside = (1 << low) - 1
    real = (entry & 0x01FF_FFFF_FFFF_F000 & ~inside) | (ea & inside)
    return real, (place, marked) if marked != entry else None
