"""Code that a guest has written over is executed without `icbi` when it is fetched through another address.

A POWER9's instruction caches see stores. Linux counts on that: it writes a program into a page that held
another one, and then maps it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chronovisor.isa.assembly import assemble
from chronovisor.machine import Host

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import POWER_OFF, program

CODE, SEEN = 0x10_0000, 0x3_0000
FUNCTION = assemble("li r5,1; blr", CODE, True)
LATER = int.from_bytes(assemble("li r5,2; blr", CODE, True)[:4], "little")
BOTH = program(
    f"""
    lis r4,0x40; mtctr r4
wait: bdnz wait
    lis r8,{SEEN >> 16:#x}; lis r7,{CODE >> 16:#x}
    li r9,-0x4000; sldi r9,r9,48; oris r9,r9,{CODE >> 16:#x}
    mtctr r9; bctrl; std r5,0(r8)
    lis r6,{LATER >> 16:#x}; ori r6,r6,{LATER & 0xFFFF:#x}; stw r6,0(r7)
    li r9,-0x3000; sldi r9,r9,48; oris r9,r9,{CODE >> 16:#x}
    mtctr r9; bctrl; std r5,8(r8)
    {POWER_OFF}
    """
)
"""Waits until it runs natively. Then it calls the function at 0xc000000000100000, writes another over it,
and calls that at 0xd000000000100000.
"""


@pytest.mark.parametrize("engine", ["threaded", "regions"])
def test_code_that_was_written_over_is_executed(engine: str) -> None:
    with Host(engine=engine) as host:
        guest = host.boot(BOTH, "2M")
        guest.memory.write(CODE, FUNCTION)
        assert guest.run(20).ok
        assert [guest.memory.load(SEEN + at, 8, True) for at in (0, 8)] == [1, 2]
