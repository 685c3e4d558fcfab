"""Fixed-point loads and stores (Power ISA 3.0B Book I 3.3.2 to 3.3.7, Book II 4.6)."""

from __future__ import annotations

from chronovisor.isa.forms import DS, D, X
from chronovisor.isa.instruction import instruction
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


@instruction("lwz RT,D(RA)", D, 32)
def lwz(m: Machine, RT: Value, RA: Value, D: Value) -> None:
    m.gpr[RT] = m.load(m.base(RA) + D, 4).zext(64)


@instruction("std RS,DS(RA)", DS, 62, 0)
def std(m: Machine, RS: Value, RA: Value, DS: Value) -> None:
    m.store(m.base(RA) + DS, m.gpr[RS])


@instruction("stwcx. RS,RA,RB", X, 31, 150, Rc=1)
def stwcx(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
    ea = m.base(RA) + m.gpr[RB]
    with m.when((ea & 3).ne(0)):
        m["DAR"] = ea
        m.interrupt("ALIGNMENT")
    done = m.store_conditional(ea, m.gpr[RS].trunc(32))
    zero = m.value(0, 2)
    m.cr[0] = m.concat(zero, done, m["XER"].extract(31, 1))
