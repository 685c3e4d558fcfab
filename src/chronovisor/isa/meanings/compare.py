"""Fixed-point comparison, traps and select."""

from __future__ import annotations

from functools import reduce
from operator import or_

from chronovisor.isa.bits import ProgramCause
from chronovisor.isa.forms import A, D, X
from chronovisor.isa.instruction import section
from chronovisor.isa.meanings.logical import parts
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

comparison = section("Book I 3.3.10")
move = section("Book I 3.3.17")
select = section("Book I 3.3.12")
trap = section("Book I 3.3.11")


def operand_of(value: Value, L: int) -> Value:
    """The whole register if L is 1, else its low word."""
    return value if L else value.trunc(32)


# Comparison


@comparison("cmpi BF,L,RA,SI", D, 11)
def cmpi(m: Machine, BF: Value, L: int, RA: Value, SI: Value) -> None:
    a, b = operand_of(m.gpr[RA], L), operand_of(SI, L)
    m.cr[BF] = m.compare(a.slt(b), a.eq(b))


@comparison("cmp BF,L,RA,RB", X, 31, 0)
def cmp(m: Machine, BF: Value, L: int, RA: Value, RB: Value) -> None:
    a, b = operand_of(m.gpr[RA], L), operand_of(m.gpr[RB], L)
    m.cr[BF] = m.compare(a.slt(b), a.eq(b))


@comparison("cmpli BF,L,RA,UI", D, 10)
def cmpli(m: Machine, BF: Value, L: int, RA: Value, UI: Value) -> None:
    a, b = operand_of(m.gpr[RA], L), operand_of(UI, L)
    m.cr[BF] = m.compare(a.ult(b), a.eq(b))


@comparison("cmpl BF,L,RA,RB", X, 31, 32)
def cmpl(m: Machine, BF: Value, L: int, RA: Value, RB: Value) -> None:
    a, b = operand_of(m.gpr[RA], L), operand_of(m.gpr[RB], L)
    m.cr[BF] = m.compare(a.ult(b), a.eq(b))


def matched(m: Machine, BF: Value, match: Value) -> None:
    """A condition field with the bit GT if there was a match, and no other bit."""
    m.cr[BF] = m.concat(m.value(0, 1), match, m.value(0, 2))


@comparison("cmprb BF,L,RA,RB", X, 31, 192)
def cmprb(m: Machine, BF: Value, L: int, RA: Value, RB: Value) -> None:
    byte = m.gpr[RA].trunc(8)
    high1, low1, high2, low2 = parts(m.gpr[RB].trunc(32), 8)
    within = ~byte.ult(low2) & ~byte.ugt(high2)
    if L:
        within = within | (~byte.ult(low1) & ~byte.ugt(high1))
    matched(m, BF, within)


@comparison("cmpeqb BF,RA,RB", X, 31, 224)
def cmpeqb(m: Machine, BF: Value, RA: Value, RB: Value) -> None:
    byte = m.gpr[RA].trunc(8)
    matched(m, BF, reduce(or_, (byte.eq(other) for other in parts(m.gpr[RB], 8))))


@move("setb RT,BFA", X, 31, 128)
def setb(m: Machine, RT: Value, BFA: Value) -> None:
    lt, gt, _, _ = parts(m.cr[BFA], 1)
    m.gpr[RT] = m.select(lt, -1, gt.zext(64))


@select("isel RT,RA,RB,BC", A, 31, 15)
def isel(m: Machine, RT: Value, RA: Value, RB: Value, BC: Value) -> None:
    m.gpr[RT] = m.select(m.cr_bit[BC], m.base(RA), m.gpr[RB])


# Traps


def trap_if(m: Machine, TO: int, a: Value, b: Value) -> None:
    """A program interrupt if one of the relations that TO chooses holds."""
    chosen = (
        (0b10000, a.slt(b)),
        (0b01000, a.sgt(b)),
        (0b00100, a.eq(b)),
        (0b00010, a.ult(b)),
        (0b00001, a.ugt(b)),
    )
    holds = reduce(or_, (relation for bit, relation in chosen if TO & bit), m.value(0, 1))
    with m.when(holds):
        m.interrupt("PROGRAM", int(ProgramCause.TRAP))


@trap("twi TO,RA,SI", D, 3)
def twi(m: Machine, TO: int, RA: Value, SI: Value) -> None:
    trap_if(m, TO, m.gpr[RA].trunc(32), SI.trunc(32))


@trap("tw TO,RA,RB", X, 31, 4)
def tw(m: Machine, TO: int, RA: Value, RB: Value) -> None:
    trap_if(m, TO, m.gpr[RA].trunc(32), m.gpr[RB].trunc(32))


@trap("tdi TO,RA,SI", D, 2)
def tdi(m: Machine, TO: int, RA: Value, SI: Value) -> None:
    trap_if(m, TO, m.gpr[RA], SI)


@trap("td TO,RA,RB", X, 31, 68)
def td(m: Machine, TO: int, RA: Value, RB: Value) -> None:
    trap_if(m, TO, m.gpr[RA], m.gpr[RB])
