"""Fixed-point logic, counts and decimal assists."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.forms import XO, D, X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

decimal = section("Book I 3.3.15")
logical = section("Book I 3.3.13")


def finish(m: Machine, RA: Value, result: Value, Rc: int) -> None:
    """Put the result into RA and, for the dotted form, into CR field 0."""
    m.gpr[RA] = result
    if Rc:
        m.record(result)


def parts(value: Value, width: int) -> list[Value]:
    """The value cut into pieces of ``width`` bits, most significant first."""
    return [value.extract(low, width) for low in range(value.width - width, -1, -width)]


def each(m: Machine, value: Value, width: int, piece: Callable[[Value], Value]) -> Value:
    """What ``piece`` makes of each ``width`` bits of the value, side by side."""
    return m.concat(*(piece(part) for part in parts(value, width)))


# With an immediate


@logical("andi. RA,RS,UI", D, 28)
def andi_(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    finish(m, RA, m.gpr[RS] & UI, Rc=1)


@logical("andis. RA,RS,UI", D, 29)
def andis_(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    finish(m, RA, m.gpr[RS] & (UI << 16), Rc=1)


@logical("ori RA,RS,UI", D, 24)
def ori(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    m.gpr[RA] = m.gpr[RS] | UI


@logical("oris RA,RS,UI", D, 25)
def oris(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    m.gpr[RA] = m.gpr[RS] | (UI << 16)


@logical("xori RA,RS,UI", D, 26)
def xori(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    m.gpr[RA] = m.gpr[RS] ^ UI


@logical("xoris RA,RS,UI", D, 27)
def xoris(m: Machine, RA: Value, RS: Value, UI: Value) -> None:
    m.gpr[RA] = m.gpr[RS] ^ (UI << 16)


# Of two registers


@logical("and[.] RA,RS,RB", X, 31, 28)
def and_(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] & m.gpr[RB], Rc)


@logical("or[.] RA,RS,RB", X, 31, 444)
def or_(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] | m.gpr[RB], Rc)


@logical("xor[.] RA,RS,RB", X, 31, 316)
def xor(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] ^ m.gpr[RB], Rc)


@logical("nand[.] RA,RS,RB", X, 31, 476)
def nand(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, ~(m.gpr[RS] & m.gpr[RB]), Rc)


@logical("nor[.] RA,RS,RB", X, 31, 124)
def nor(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, ~(m.gpr[RS] | m.gpr[RB]), Rc)


@logical("eqv[.] RA,RS,RB", X, 31, 284)
def eqv(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, ~(m.gpr[RS] ^ m.gpr[RB]), Rc)


@logical("andc[.] RA,RS,RB", X, 31, 60)
def andc(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] & ~m.gpr[RB], Rc)


@logical("orc[.] RA,RS,RB", X, 31, 412)
def orc(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] | ~m.gpr[RB], Rc)


# Sign extension


@logical("extsb[.] RA,RS", X, 31, 954)
def extsb(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(8).sext(64), Rc)


@logical("extsh[.] RA,RS", X, 31, 922)
def extsh(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(16).sext(64), Rc)


@logical("extsw[.] RA,RS", X, 31, 986)
def extsw(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).sext(64), Rc)


# Counts, parity, bytes


@logical("cntlzw[.] RA,RS", X, 31, 26)
def cntlzw(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).clz().zext(64), Rc)


@logical("cntlzd[.] RA,RS", X, 31, 58)
def cntlzd(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].clz(), Rc)


@logical("cnttzw[.] RA,RS", X, 31, 538)
def cnttzw(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).ctz().zext(64), Rc)


@logical("cnttzd[.] RA,RS", X, 31, 570)
def cnttzd(m: Machine, RA: Value, RS: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].ctz(), Rc)


@logical("popcntb RA,RS", X, 31, 122)
def popcntb(m: Machine, RA: Value, RS: Value) -> None:
    m.gpr[RA] = each(m, m.gpr[RS], 8, Value.popcount)


@logical("popcntw RA,RS", X, 31, 378)
def popcntw(m: Machine, RA: Value, RS: Value) -> None:
    m.gpr[RA] = each(m, m.gpr[RS], 32, Value.popcount)


@logical("popcntd RA,RS", X, 31, 506)
def popcntd(m: Machine, RA: Value, RS: Value) -> None:
    m.gpr[RA] = m.gpr[RS].popcount()


def byte_parity(value: Value) -> Value:
    """1 if an odd number of the value's bytes have their least significant bit set, else 0."""
    ones = int.from_bytes(b"\x01" * (value.width // 8), "big")
    return (value & ones).popcount() & 1


@logical("prtyw RA,RS", X, 31, 154)
def prtyw(m: Machine, RA: Value, RS: Value) -> None:
    m.gpr[RA] = each(m, m.gpr[RS], 32, byte_parity)


@logical("prtyd RA,RS", X, 31, 186)
def prtyd(m: Machine, RA: Value, RS: Value) -> None:
    m.gpr[RA] = byte_parity(m.gpr[RS])


@logical("cmpb RA,RS,RB", X, 31, 508)
def cmpb(m: Machine, RA: Value, RS: Value, RB: Value) -> None:
    m.gpr[RA] = each(m, m.gpr[RS] ^ m.gpr[RB], 8, lambda differs: differs.eq(0).sext(8))


@logical("bpermd RA,RS,RB", X, 31, 252)
def bpermd(m: Machine, RA: Value, RS: Value, RB: Value) -> None:
    source = m.gpr[RB]
    # An index of 64 or more shifts everything out: it picks a zero.
    picked = [(source << index.zext(64)).bit(0) for index in parts(m.gpr[RS], 8)]
    m.gpr[RA] = m.concat(*picked).zext(64)


# Decimal assists


@decimal("addg6s RT,RA,RB", XO, 31, 74)
def addg6s(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    a, b = m.gpr[RA].zext(68), m.gpr[RB].zext(68)
    carried_into = a ^ b ^ (a + b)
    carried_out_of_digit = carried_into.extract(4, 64)
    m.gpr[RT] = (~carried_out_of_digit & 0x1111_1111_1111_1111) * 6


def declet(m: Machine, digits: Value) -> Value:
    """BCD_TO_DPD: three decimal digits (12 bits) as a densely packed declet (10 bits; Book I B.1)."""
    a, b, c, d, e, f, g, h, i, j, k, y = parts(digits, 1)
    p = (f & a & i & ~e) | (j & a & ~i) | (b & ~a)
    q = (g & a & i & ~e) | (k & a & ~i) | (c & ~a)
    s = (j & ~a & e & ~i) | (f & ~i & ~e) | (f & ~a & ~e) | (e & i)
    t = (k & ~a & e & ~i) | (g & ~i & ~e) | (g & ~a & ~e) | (a & i)
    v = a | e | i
    w = (~e & j & ~i) | (e & i) | a
    x = (~a & k & ~i) | (a & i) | e
    return m.concat(p, q, d, s, t, h, v, w, x, y)


def digits_of(m: Machine, packed: Value) -> Value:
    """DPD_TO_BCD: the three decimal digits (12 bits) of a declet (10 bits; Book I B.2)."""
    p, q, d, s, t, h, v, w, x, y = parts(packed, 1)
    a = (~s & v & w) | (t & v & w & x) | (v & w & ~x)
    b = (p & s & x & ~t) | (p & ~w) | (p & ~v)
    c = (q & s & x & ~t) | (q & ~w) | (q & ~v)
    e = (v & ~w & x) | (s & v & w & x) | (~t & v & x & w)
    f = (p & t & v & w & x & ~s) | (s & ~x & v) | (s & ~v)
    g = (q & t & w & v & x & ~s) | (t & ~x & v) | (t & ~v)
    i = (t & v & w & x) | (s & v & w & x) | (v & ~w & ~x)
    j = (p & ~s & ~t & w & v) | (s & v & ~w & x) | (p & w & ~x & v) | (w & ~v)
    k = (q & ~s & ~t & v & w) | (t & v & ~w & x) | (q & v & w & ~x) | (x & ~v)
    return m.concat(a, b, c, d, e, f, g, h, i, j, k, y)


@decimal("cdtbcd RA,RS", X, 31, 282)
def cdtbcd(m: Machine, RA: Value, RS: Value) -> None:
    def convert(word: Value) -> Value:
        return m.concat(*(digits_of(m, word.extract(low, 10)) for low in (10, 0))).zext(32)

    m.gpr[RA] = each(m, m.gpr[RS], 32, convert)


@decimal("cbcdtd RA,RS", X, 31, 314)
def cbcdtd(m: Machine, RA: Value, RS: Value) -> None:
    def convert(word: Value) -> Value:
        return m.concat(*(declet(m, word.extract(low, 12)) for low in (12, 0))).zext(32)

    m.gpr[RA] = each(m, m.gpr[RS], 32, convert)
