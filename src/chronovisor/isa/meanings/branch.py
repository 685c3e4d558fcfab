"""Branches and condition register logic (Power ISA 3.0B Book I chapter 2)."""

from __future__ import annotations

from chronovisor.isa.forms import B, I
from chronovisor.isa.instruction import instruction
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


@instruction("b[l][a] LI", I, 18)
def b(m: Machine, LI: Value, AA: int, LK: int) -> None:
    cia = m["CIA"]
    m.branch(LI if AA else cia + LI)
    if LK:
        m["LR"] = cia + 4


def branch_taken(m: Machine, BO: int, BI: Value) -> Value:
    """1 bit: the branch is taken; CTR counts down where BO says so (Book I 2.4, the BO field)."""
    taken = m.value(1, 1)
    if not BO & 0b00100:
        ctr = m["CTR"] - 1
        m["CTR"] = ctr
        seen = ctr if m.sixty_four else ctr.trunc(32)
        taken = seen.eq(0) if BO & 0b00010 else seen.ne(0)
    if not BO & 0b10000:
        bit = m.cr_bit[BI]
        taken = taken & (bit if BO & 0b01000 else ~bit)
    return taken


@instruction("bc[l][a] BO,BI,BD", B, 16)
def bc(m: Machine, BO: int, BI: Value, BD: Value, AA: int, LK: int) -> None:
    cia = m["CIA"]
    with m.when(branch_taken(m, BO, BI)):
        m.branch(BD if AA else cia + BD)
    if LK:
        m["LR"] = cia + 4
