"""Fixed-point arithmetic (Power ISA 3.0B Book I 3.3.9)."""

from __future__ import annotations

from chronovisor.isa.bits import XER
from chronovisor.isa.forms import XO, D
from chronovisor.isa.instruction import instruction
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


def add_with_carry(m: Machine, a: Value, b: Value, carry_in: Value) -> Value:
    """a + b + carry, 64 bits; sets CA and CA32."""
    wide = a.zext(65) + b.zext(65) + carry_in.zext(65)
    low = a.trunc(32).zext(33) + b.trunc(32).zext(33) + carry_in.zext(33)
    ca32 = low.extract(32, 1)
    m.set_xer(CA=wide.extract(64, 1) if m.sixty_four else ca32, CA32=ca32)
    return wide.trunc(64)


def set_overflow(m: Machine, a: Value, b: Value, result: Value) -> None:
    """OV, OV32 and SO of ``result = a + b`` (perhaps with a carry): two of one sign make the other."""
    differs = ~(a ^ b) & (a ^ result)
    ov32 = differs.extract(31, 1)
    ov = differs.extract(63, 1) if m.sixty_four else ov32
    m.set_xer(OV=ov, OV32=ov32, SO=m.xer_bit(XER.SO) | ov)


def finish(m: Machine, RT: Value, result: Value, Rc: int) -> None:
    """Put the result into RT and, for the dotted form, into CR field 0."""
    m.gpr[RT] = result
    if Rc:
        m.record(result)


@instruction("addi RT,RA,SI", D, 14)
def addi(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    m.gpr[RT] = m.base(RA) + SI


@instruction("addis RT,RA,SI", D, 15)
def addis(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    m.gpr[RT] = m.base(RA) + (SI << 16)


@instruction("add[o][.] RT,RA,RB", XO, 31, 266)
def add(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = m.gpr[RA], m.gpr[RB]
    result = a + b
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)


@instruction("subf[o][.] RT,RA,RB", XO, 31, 40)
def subf(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = ~m.gpr[RA], m.gpr[RB]
    result = b + a + 1
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)


@instruction("addc[o][.] RT,RA,RB", XO, 31, 10)
def addc(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = m.gpr[RA], m.gpr[RB]
    result = add_with_carry(m, a, b, m.value(0, 1))
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)
