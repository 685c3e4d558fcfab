"""Fixed-point addition, subtraction and negation."""

from __future__ import annotations

from chronovisor.isa.bits import XER
from chronovisor.isa.forms import DX, XO, Z23, D
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

arithmetic = section("Book I 3.3.9")


def carries(m: Machine, a: Value, b: Value, carry_in: Value) -> tuple[Value, Value, Value]:
    """a + b + carry, and the carries out of it: the mode's, and that of the low 32 bits."""
    wide = a.zext(65) + b.zext(65) + carry_in.zext(65)
    result = wide.trunc(64)
    # A bit of a sum is the two bits and the carry into it.
    carry32 = (a ^ b ^ result).extract(32, 1)
    return result, wide.extract(64, 1) if m.sixty_four else carry32, carry32


def add_with_carry(m: Machine, a: Value, b: Value, carry_in: Value) -> Value:
    """a + b + carry, 64 bits; sets CA and CA32."""
    result, ca, ca32 = carries(m, a, b, carry_in)
    m.set_xer(CA=ca, CA32=ca32)
    return result


def overflowed(m: Machine, ov: Value, ov32: Value) -> None:
    """Set OV and OV32, and SO if OV is set. SO stays until software clears it."""
    m.set_xer(OV=ov, OV32=ov32, SO=m.xer_bit(XER.SO) | ov)


def set_overflow(m: Machine, a: Value, b: Value, result: Value) -> None:
    """OV, OV32 and SO of ``result = a + b`` (perhaps with a carry): two of one sign make the other."""
    differs = ~(a ^ b) & (a ^ result)
    ov32 = differs.extract(31, 1)
    overflowed(m, differs.extract(63, 1) if m.sixty_four else ov32, ov32)


def finish(m: Machine, RT: Value, result: Value, Rc: int) -> None:
    """Put the result into RT and, for the dotted form, into CR field 0."""
    m.gpr[RT] = result
    if Rc:
        m.record(result)


def sum_to(m: Machine, RT: Value, a: Value, b: Value, carry_in: Value, OE: int, Rc: int) -> None:
    """RT becomes a + b + carry, with CA and CA32; OE and Rc as the forms have it."""
    result = add_with_carry(m, a, b, carry_in)
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)


# Without carry


@arithmetic("addi RT,RA,SI", D, 14)
def addi(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    m.gpr[RT] = m.base(RA) + SI


@arithmetic("addis RT,RA,SI", D, 15)
def addis(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    m.gpr[RT] = m.base(RA) + (SI << 16)


@arithmetic("addpcis RT,D16", DX, 19, 2)
def addpcis(m: Machine, RT: Value, D16: Value) -> None:
    m.gpr[RT] = m["CIA"] + 4 + (D16 << 16)


@arithmetic("add[o][.] RT,RA,RB", XO, 31, 266)
def add(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = m.gpr[RA], m.gpr[RB]
    result = a + b
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)


@arithmetic("subf[o][.] RT,RA,RB", XO, 31, 40)
def subf(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = ~m.gpr[RA], m.gpr[RB]
    result = b + a + 1
    if OE:
        set_overflow(m, a, b, result)
    finish(m, RT, result, Rc)


@arithmetic("neg[o][.] RT,RA", XO, 31, 104)
def neg(m: Machine, RT: Value, RA: Value, OE: int, Rc: int) -> None:
    a = ~m.gpr[RA]
    result = a + 1
    if OE:
        set_overflow(m, a, m.value(0), result)
    finish(m, RT, result, Rc)


# Making a carry


@arithmetic("addic RT,RA,SI", D, 12)
def addic(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    sum_to(m, RT, m.gpr[RA], SI, m.value(0, 1), OE=0, Rc=0)


@arithmetic("addic. RT,RA,SI", D, 13)
def addic_(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    sum_to(m, RT, m.gpr[RA], SI, m.value(0, 1), OE=0, Rc=1)


@arithmetic("subfic RT,RA,SI", D, 8)
def subfic(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    sum_to(m, RT, ~m.gpr[RA], SI, m.value(1, 1), OE=0, Rc=0)


@arithmetic("addc[o][.] RT,RA,RB", XO, 31, 10)
def addc(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, m.gpr[RA], m.gpr[RB], m.value(0, 1), OE, Rc)


@arithmetic("subfc[o][.] RT,RA,RB", XO, 31, 8)
def subfc(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, ~m.gpr[RA], m.gpr[RB], m.value(1, 1), OE, Rc)


# Taking the carry in


@arithmetic("adde[o][.] RT,RA,RB", XO, 31, 138)
def adde(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, m.gpr[RA], m.gpr[RB], m.xer_bit(XER.CA), OE, Rc)


@arithmetic("addme[o][.] RT,RA", XO, 31, 234)
def addme(m: Machine, RT: Value, RA: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, m.gpr[RA], m.value(-1), m.xer_bit(XER.CA), OE, Rc)


@arithmetic("addze[o][.] RT,RA", XO, 31, 202)
def addze(m: Machine, RT: Value, RA: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, m.gpr[RA], m.value(0), m.xer_bit(XER.CA), OE, Rc)


@arithmetic("subfe[o][.] RT,RA,RB", XO, 31, 136)
def subfe(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, ~m.gpr[RA], m.gpr[RB], m.xer_bit(XER.CA), OE, Rc)


@arithmetic("subfme[o][.] RT,RA", XO, 31, 232)
def subfme(m: Machine, RT: Value, RA: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, ~m.gpr[RA], m.value(-1), m.xer_bit(XER.CA), OE, Rc)


@arithmetic("subfze[o][.] RT,RA", XO, 31, 200)
def subfze(m: Machine, RT: Value, RA: Value, OE: int, Rc: int) -> None:
    sum_to(m, RT, ~m.gpr[RA], m.value(0), m.xer_bit(XER.CA), OE, Rc)


@arithmetic("addex RT,RA,RB,CY", Z23, 31, 170)
def addex(m: Machine, RT: Value, RA: Value, RB: Value, CY: int) -> None:
    if CY:  # reserved: only OV serves as a second carry
        m.illegal()
        return
    result, ov, ov32 = carries(m, m.gpr[RA], m.gpr[RB], m.xer_bit(XER.OV))
    m.gpr[RT] = result
    m.set_xer(OV=ov, OV32=ov32)
