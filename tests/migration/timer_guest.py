"""A guest with one timer: it says when the interrupt came, and how often."""

from __future__ import annotations

import sys
from pathlib import Path

from chronovisor.isa.assembly import assemble

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import Elf, Part

STEP = 256
"""Ticks of virtual time an instruction."""
DISTANCE = 0x0200_0000
"""Ticks from the guest's start to its deadline: 65.5 ms."""
ARMED_AT = 64 * STEP
"""Virtual time in which the timer is surely armed."""
ORIGIN = 0x10000


def timer_guest() -> bytes:
    """An ELF file: r5 counts decrementer interrupts, r6 is the timebase at the last, r8 at the arming."""
    handler = assemble("addi r5,r5,1; mfspr r6,268; lis r7,0x7fff; mtspr 22,r7; rfid", 0x900, False)
    main = assemble(
        f"li r5,0; lis r7,{DISTANCE >> 16:#x}; mtspr 22,r7; mfspr r8,268; "
        "li r9,0; ori r9,r9,0x8002; mtmsrd r9,1; loop: b loop",
        ORIGIN,
        False,
    )
    return Elf([Part(handler, 0x900), Part(main, ORIGIN)], ORIGIN, little=False).build()
