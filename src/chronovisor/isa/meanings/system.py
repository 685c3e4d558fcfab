"""System instructions: machine state, interrupts' returns, special purpose registers (Book II, Book III)."""

from __future__ import annotations

from chronovisor.isa.forms import SC, XFX
from chronovisor.isa.instruction import instruction
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import SPR_READ, Privilege
from chronovisor.isa.values import Value


@instruction("sc LEV", SC, 17, 1)
def sc(m: Machine, LEV: int) -> None:
    if LEV == 1:
        m.interrupt("HYPERCALL")
    else:
        m.interrupt("SYSTEM_CALL")


@instruction("mfspr RT,SPR", XFX, 31, 339)
def mfspr(m: Machine, RT: Value, SPR: int) -> None:
    register = SPR_READ.get(SPR)
    if register is None:
        m.illegal()
        return
    if register.read is not Privilege.PROBLEM:
        m.privileged(register.read)
    m.gpr[RT] = m.register(register)
