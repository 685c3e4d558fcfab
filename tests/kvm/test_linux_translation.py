"""The linux provider's walk of a guest's tables finds what the tests' independent walk finds.

The provider does not know the processor's meanings: a Power host has no wheels of what they need. So the
layout of the tables is written there once more, and these tests compare.
"""

from __future__ import annotations

import random

from engine.page_tables import KERNEL, PID, Fault, PageTables, expected

from chronovisor.isa.bits import MSR
from chronovisor.isa.radix import Access
from chronovisor.kvm.ids import MmuV3Flag
from chronovisor.kvm.linux import successors, translation
from chronovisor.kvm.linux.translation import MSR_DR, MSR_SF, ProcessTables
from chronovisor.memory import GuestMemory

ALL = 0x18F
"""Referenced, changed, readable, writable, executable; for the kernel alone."""


class _Memory:
    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory

    def read(self, address: int, size: int) -> bytes | None:
        inside = address + size <= self._memory.size
        return self._memory.read(address, size) if inside else None


def test_addresses_lead_where_the_architecture_says() -> None:
    draw = random.Random(1)
    memory = GuestMemory(1 << 24)
    tables = PageTables(memory)
    for size in (12, 12, 16, 21):
        for quadrant in (0, KERNEL):
            for _ in range(8):
                tables.map(
                    quadrant | draw.getrandbits(51) >> size << size,
                    draw.getrandbits(24) >> size << size,
                    size,
                    ALL,
                )
    ours = ProcessTables(MmuV3Flag.RADIX | MmuV3Flag.GTSE, tables.process_table)
    compared = {True: 0, False: 0}
    for _ in range(5000):
        address = draw.choice(tables.pages) + draw.getrandbits(12)
        if draw.random() < 0.3:
            address ^= 1 << draw.randrange(64)
        # Process 700 is beyond the table of 2^12 bytes.
        process = draw.choice((PID, PID, PID, 700))
        answer, _ = expected(memory.data, tables.process_table, process, address, Access.LOAD, False, 0, 0)
        found = ours.real(_Memory(memory), address, MSR_SF | MSR_DR, MSR_DR, process)
        assert found == (None if isinstance(answer, Fault) else answer), hex(address)
        compared[found is None] += 1
    assert min(compared.values()) > 500


def test_the_bits_of_msr_are_the_architectures() -> None:
    assert (translation.MSR_SF, translation.MSR_IR, MSR_DR) == (MSR.SF, MSR.IR, MSR.DR)
    assert (successors._MSR_EE, successors._MSR_PR) == (MSR.EE, MSR.PR)
