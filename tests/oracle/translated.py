"""Cases under page tables: each begins in real mode, chooses a process and its keys, and goes over to
translated code by `rfid`.

Only well-formed tables: QEMU does not look at the sizes of trees and directories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from engine.page_tables import KERNEL, PageTables

from chronovisor.isa.assembly import assemble
from chronovisor.memory.guest_memory import GuestMemory

from .case import BACKGROUND, BLOCK, MSR_DR, MSR_EE, MSR_IR, MSR_LE, MSR_ME, MSR_PR, MSR_RI, MSR_SF, Case
from .generate import MODES, initial
from .image import DIRECTORY, PROCESS_TABLE, ROOT

TABLES: Final = 0x400_0000
"""Guest address of the processes' tables."""
_ROOM: Final = 0x2_0000
"""Bytes that a process's tables have: a root, and some directories."""
PROCESSES: Final = 200
_TRANSLATED: Final = MSR_SF | MSR_ME | MSR_RI | MSR_IR | MSR_DR
_PAGES: Final = ((12, 0x4000_0000), (16, 0x4020_0000), (21, 0x4040_0000), (30, 0x8000_0000))
"""log2 of a page's size, and where pages of that size are mapped: to the memory block that a case has."""
_USES: Final = (
    *("ld r5,0(r20)", "std r5,8(r20)", "lwz r5,4(r20)", "stw r5,4(r20)", "lbz r5,0(r20)", "stb r5,1(r20)"),
    *("ld r6,0(r21)", "std r6,8(r21)", "lhz r6,2(r21)", "sth r6,2(r21)", "ldx r7,r20,r22", "stdx r7,r21,r22"),
    *(
        "dcbst 0,r20",
        "lwarx r5,0,r20",
        "lwarx r5,0,r20; stwcx. r5,0,r20",
        "addi r5,r5,1",
        "std r6,0(r23)",
        "ld r6,0(r23)",
    ),
)
_ENTRY: Final = "mtspr AMR,r4; mtspr 61,r5; mtspr 48,r3; mtspr SRR0,r6; mtspr SRR1,r7; rfid"
_ENTRY_WORDS: Final = 6


@dataclass(frozen=True)
class _Process:
    """A process: its number, where its pages are, and whether its code is mapped as usual."""

    pid: int
    pages: tuple[int, ...]


def _words(text: str) -> list[int]:
    code = assemble(text)
    return [int.from_bytes(code[at : at + 4], "big") for at in range(0, len(code), 4)]


def _flags(random: Random) -> int:
    authority = 7 if random.random() < 0.5 else random.randrange(16)
    attributes = random.choice((0, 0, 0, 0x10, 0x20, 0x30))
    return authority | attributes | random.choice((0, 0x100, 0x180))


class Tables:
    """Tables of some processes in a memory of the oracle's size, as QEMU and the evaluators find them."""

    def __init__(self, random: Random, memory: GuestMemory) -> None:
        self.memory = memory
        self.processes: list[_Process] = []
        # What the harness makes for process 0, whose table is the kernel's too.
        for address, value in (
            (PROCESS_TABLE, (2 << 61) | ROOT | (5 << 5) | 13),
            (ROOT, (1 << 63) | DIRECTORY | 9),
            (DIRECTORY, (3 << 62) | 0x187),
        ):
            memory.store(address, 8, value, False)
        for pid in range(1, PROCESSES + 1):
            self._add(random, pid)

    def _add(self, random: Random, pid: int) -> None:
        root = TABLES + pid * _ROOM
        tables = PageTables(self.memory, PROCESS_TABLE, {pid: root}, root + 0x1_0000)
        for code in range(0, 0x100_0000, 0x20_0000):
            tables.map(code, code, 21, 0x187 if random.random() < 0.85 else _flags(random), pid)
        pages = []
        for size, base in _PAGES:
            for n in range(3):
                ea = base + (n << size)
                tables.map(ea, BLOCK >> size << size, size, _flags(random), pid)
                pages.append(ea + BLOCK % (1 << size))
        if random.random() < 0.2:
            place = random.choice(tables.entries[1:])
            self.memory.store(place, 8, self.memory.load(place, 8, False) & ~(1 << 63), False)
        assert tables.free <= root + _ROOM
        self.processes.append(_Process(pid, tuple(pages)))

    @property
    def extent(self) -> tuple[tuple[int, int], ...]:
        """Address and size of everything that is the tables'."""
        return (PROCESS_TABLE, 0x1000), (TABLES, (PROCESSES + 1) * _ROOM)

    def contents(self) -> dict[int, bytes]:
        """The tables' memory as it is now."""
        return {at: self.memory.read(at, size) for at, size in self.extent}


def cases(random: Random, tables: Tables, place: Iterator[int], count: int) -> list[Case]:
    """Draw cases of several accesses each, in problem state or not, in either byte order."""
    return [_case(random, random.choice(tables.processes), next(place)) for _ in range(count)]


def _case(random: Random, process: _Process, address: int) -> Case:
    little = random.choice((0, MSR_LE))
    body = [word for _ in range(random.randrange(1, 9)) for word in _words(random.choice(_USES))]
    words = (*_words(_ENTRY), *body)
    msr = _TRANSLATED | little | (MSR_PR | MSR_EE if random.random() < 0.6 else 0)
    gpr = list(BACKGROUND)
    gpr[3] = process.pid
    gpr[4], gpr[5] = (0 if random.random() < 0.6 else random.getrandbits(2) << 62 for _ in range(2))
    gpr[6], gpr[7] = address + 4 * _ENTRY_WORDS, msr
    for number in (20, 21):
        gpr[number] = random.choice(process.pages) + 8 * random.randrange(1, 28)
    gpr[22] = 8
    gpr[23] = random.choice(
        (
            random.choice((0, KERNEL, 1 << 62, 2 << 62)) + BLOCK + 64,
            random.choice(process.pages) + (1 << random.choice((34, 51, 52, 57, 61))),
        )
    )
    mode = next(mode for mode in MODES if mode & MSR_SF and bool(mode & MSR_LE) == bool(little))
    return initial(random, words, address, mode, gpr)
