"""Fixed-point multiplication, division and modulo.

Results that the book leaves undefined are fixed here: bits 0:31 of word results are zero, and a quotient that
does not exist is what the operation gives for it.
"""

from __future__ import annotations

from chronovisor.isa.forms import VA, XO, D, X
from chronovisor.isa.instruction import section
from chronovisor.isa.meanings.arithmetic import finish, overflowed
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

arithmetic = section("Book I 3.3.9")


def word(m: Machine, number: Value) -> Value:
    """The low word of a general register."""
    return m.gpr[number].trunc(32)


def fits(wide: Value, width: int) -> Value:
    """1 bit: the signed value needs no more than ``width`` bits."""
    return wide.trunc(width).sext(wide.width).eq(wide)


# Multiplication


@arithmetic("mulli RT,RA,SI", D, 7)
def mulli(m: Machine, RT: Value, RA: Value, SI: Value) -> None:
    m.gpr[RT] = m.gpr[RA] * SI


@arithmetic("mullw[o][.] RT,RA,RB", XO, 31, 235)
def mullw(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    product = word(m, RA).sext(64) * word(m, RB).sext(64)
    if OE:
        overflow = ~fits(product, 32)
        overflowed(m, overflow, overflow)
    finish(m, RT, product, Rc)


@arithmetic("mulhw[.] RT,RA,RB", XO, 31, 75)
def mulhw(m: Machine, RT: Value, RA: Value, RB: Value, Rc: int) -> None:
    product = word(m, RA).sext(64) * word(m, RB).sext(64)
    finish(m, RT, product.extract(32, 32).zext(64), Rc)


@arithmetic("mulhwu[.] RT,RA,RB", XO, 31, 11)
def mulhwu(m: Machine, RT: Value, RA: Value, RB: Value, Rc: int) -> None:
    product = word(m, RA).zext(64) * word(m, RB).zext(64)
    finish(m, RT, product.extract(32, 32).zext(64), Rc)


@arithmetic("mulld[o][.] RT,RA,RB", XO, 31, 233)
def mulld(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    a, b = m.gpr[RA], m.gpr[RB]
    if OE:
        overflow = ~fits(a.sext(128) * b.sext(128), 64)
        overflowed(m, overflow, overflow)
    finish(m, RT, a * b, Rc)


@arithmetic("mulhd[.] RT,RA,RB", XO, 31, 73)
def mulhd(m: Machine, RT: Value, RA: Value, RB: Value, Rc: int) -> None:
    product = m.gpr[RA].sext(128) * m.gpr[RB].sext(128)
    finish(m, RT, product.extract(64, 64), Rc)


@arithmetic("mulhdu[.] RT,RA,RB", XO, 31, 9)
def mulhdu(m: Machine, RT: Value, RA: Value, RB: Value, Rc: int) -> None:
    product = m.gpr[RA].zext(128) * m.gpr[RB].zext(128)
    finish(m, RT, product.extract(64, 64), Rc)


@arithmetic("maddhd RT,RA,RB,RC", VA, 4, 48)
def maddhd(m: Machine, RT: Value, RA: Value, RB: Value, RC: Value) -> None:
    total = m.gpr[RA].sext(128) * m.gpr[RB].sext(128) + m.gpr[RC].sext(128)
    m.gpr[RT] = total.extract(64, 64)


@arithmetic("maddhdu RT,RA,RB,RC", VA, 4, 49)
def maddhdu(m: Machine, RT: Value, RA: Value, RB: Value, RC: Value) -> None:
    total = m.gpr[RA].zext(128) * m.gpr[RB].zext(128) + m.gpr[RC].zext(128)
    m.gpr[RT] = total.extract(64, 64)


@arithmetic("maddld RT,RA,RB,RC", VA, 4, 51)
def maddld(m: Machine, RT: Value, RA: Value, RB: Value, RC: Value) -> None:
    m.gpr[RT] = m.gpr[RA] * m.gpr[RB] + m.gpr[RC]


# Division


def divide_signed(m: Machine, RT: Value, dividend: Value, divisor: Value, OE: int, Rc: int) -> None:
    """Signed quotient; it overflows if the divisor is zero or if it is wider than the divisor."""
    quotient = dividend.sdiv(divisor.sext(dividend.width))
    most_negative = dividend.eq(1 << (dividend.width - 1))
    overflow = divisor.eq(0) | ~fits(quotient, divisor.width) | (most_negative & divisor.eq(-1))
    finish_quotient(m, RT, quotient.trunc(divisor.width), overflow, OE, Rc)


def divide_unsigned(m: Machine, RT: Value, dividend: Value, divisor: Value, OE: int, Rc: int) -> None:
    """Unsigned quotient; it overflows if the divisor is zero or if it is wider than the divisor."""
    width = divisor.width
    quotient = dividend.udiv(divisor.zext(dividend.width))
    result = quotient.trunc(width)
    overflow = divisor.eq(0) | result.zext(dividend.width).ne(quotient)
    finish_quotient(m, RT, result, overflow, OE, Rc)


def finish_quotient(m: Machine, RT: Value, quotient: Value, overflow: Value, OE: int, Rc: int) -> None:
    """Put a quotient into RT; OV and OV32 both say that it overflowed, whatever its width."""
    if OE:
        overflowed(m, overflow, overflow)
    finish(m, RT, quotient.zext(64), Rc)


def extended(m: Machine, high: Value) -> Value:
    """A dividend twice as wide: ``high`` above zeros."""
    return m.concat(high, m.value(0, high.width))


@arithmetic("divw[o][.] RT,RA,RB", XO, 31, 491)
def divw(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_signed(m, RT, word(m, RA), word(m, RB), OE, Rc)


@arithmetic("divwu[o][.] RT,RA,RB", XO, 31, 459)
def divwu(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_unsigned(m, RT, word(m, RA), word(m, RB), OE, Rc)


@arithmetic("divwe[o][.] RT,RA,RB", XO, 31, 427)
def divwe(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_signed(m, RT, extended(m, word(m, RA)), word(m, RB), OE, Rc)


@arithmetic("divweu[o][.] RT,RA,RB", XO, 31, 395)
def divweu(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_unsigned(m, RT, extended(m, word(m, RA)), word(m, RB), OE, Rc)


@arithmetic("divd[o][.] RT,RA,RB", XO, 31, 489)
def divd(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_signed(m, RT, m.gpr[RA], m.gpr[RB], OE, Rc)


@arithmetic("divdu[o][.] RT,RA,RB", XO, 31, 457)
def divdu(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_unsigned(m, RT, m.gpr[RA], m.gpr[RB], OE, Rc)


@arithmetic("divde[o][.] RT,RA,RB", XO, 31, 425)
def divde(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_signed(m, RT, extended(m, m.gpr[RA]), m.gpr[RB], OE, Rc)


@arithmetic("divdeu[o][.] RT,RA,RB", XO, 31, 393)
def divdeu(m: Machine, RT: Value, RA: Value, RB: Value, OE: int, Rc: int) -> None:
    divide_unsigned(m, RT, extended(m, m.gpr[RA]), m.gpr[RB], OE, Rc)


@arithmetic("modsw RT,RA,RB", X, 31, 779)
def modsw(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    m.gpr[RT] = word(m, RA).srem(word(m, RB)).zext(64)


@arithmetic("moduw RT,RA,RB", X, 31, 267)
def moduw(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    m.gpr[RT] = word(m, RA).urem(word(m, RB)).zext(64)


@arithmetic("modsd RT,RA,RB", X, 31, 777)
def modsd(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    m.gpr[RT] = m.gpr[RA].srem(m.gpr[RB])


@arithmetic("modud RT,RA,RB", X, 31, 265)
def modud(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    m.gpr[RT] = m.gpr[RA].urem(m.gpr[RB])
