"""Loads and stores of several registers: quadword, multiple, string.

Multiple and string forms are not there in little-endian mode: they end in an alignment interrupt.
"""

from __future__ import annotations

from chronovisor.isa.bits import XER
from chronovisor.isa.forms import DQ, DS, D, X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

quadword = section("Book I 3.3.4")
multiple = section("Book I 3.3.6")
string = section("Book I 3.3.7")


@quadword("lq RT,DQ(RA)", DQ, 56, static=("RT",))
def lq(m: Machine, RT: int, RA: Value, DQ: Value) -> None:
    if RT & 1:
        m.illegal()
        return
    both = m.load(m.base(RA) + DQ, 16)
    m.gpr[RT] = both.extract(64, 64)
    m.gpr[RT + 1] = both.trunc(64)


@quadword("stq RS,DS(RA)", DS, 62, 2, static=("RS",))
def stq(m: Machine, RS: int, RA: Value, DS: Value) -> None:
    if RS & 1:
        m.illegal()
        return
    m.store(m.base(RA) + DS, m.concat(m.gpr[RS], m.gpr[RS + 1]))


@multiple("lmw RT,D(RA)", D, 46, static=("RT",))
def lmw(m: Machine, RT: int, RA: Value, D: Value) -> None:
    ea = m.base(RA) + D
    if m.little:
        m.alignment(ea)
        return
    for place, register in enumerate(range(RT, 32)):
        m.gpr[register] = m.load(ea + 4 * place, 4).zext(64)


@multiple("stmw RS,D(RA)", D, 47, static=("RS",))
def stmw(m: Machine, RS: int, RA: Value, D: Value) -> None:
    ea = m.base(RA) + D
    if m.little:
        m.alignment(ea)
        return
    for place, register in enumerate(range(RS, 32)):
        m.store(ea + 4 * place, m.gpr[register].trunc(32))


def _fill(m: Machine, register: Value, value: Value, RA: Value, RB: Value | None = None) -> None:
    """Load a register unless the address comes from it: that form is invalid, and the register stays.

    No address comes from RA if it is 0.
    """
    is_other = register.ne(RA) | RA.eq(0)
    if RB is not None:
        is_other = is_other & register.ne(RB)
    with m.when(is_other):
        m.gpr[register] = value


def _part(m: Machine, ea: Value, size: int) -> Value:
    """One to three bytes in the upper end of the lower word, zeros elsewhere."""
    part = m.load(ea, 1)
    for place in range(1, size):
        part = m.concat(part, m.load(ea + place, 1))
    return part.zext(64) << (32 - (8 * size))


def _store_part(m: Machine, RS: Value, ea: Value, size: int) -> None:
    word = m.gpr[RS]
    for place in range(size):
        m.store(ea + place, word.extract(24 - 8 * place, 8))


def _next(register: Value, step: Value | int) -> Value:
    """The register ``step`` behind another; register 0 follows register 31."""
    return (register + step) & 31


@string("lswi RT,RA,NB", X, 31, 597)
def lswi(m: Machine, RT: Value, RA: Value, NB: int) -> None:
    ea = m.base(RA)
    if m.little:
        m.alignment(ea)
        return
    words, rest = divmod(NB or 32, 4)
    for place in range(words):
        _fill(m, _next(RT, place), m.load(ea + (4 * place), 4).zext(64), RA)
    if rest:
        _fill(m, _next(RT, words), _part(m, ea + (4 * words), rest), RA)


@string("stswi RS,RA,NB", X, 31, 725)
def stswi(m: Machine, RS: Value, RA: Value, NB: int) -> None:
    ea = m.base(RA)
    if m.little:
        m.alignment(ea)
        return
    words, rest = divmod(NB or 32, 4)
    for place in range(words):
        m.store(ea + 4 * place, m.gpr[_next(RS, place)].trunc(32))
    if rest:
        _store_part(m, _next(RS, words), ea + 4 * words, rest)


_LONGEST_STRING = 127


@string("lswx RT,RA,RB", X, 31, 533)
def lswx(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
    ea = m.base(RA) + m.gpr[RB]
    if m.little:
        m.alignment(ea)
        return
    count = m["XER"] & int(XER.COUNT)
    for place in range(_LONGEST_STRING // 4):
        with m.when(count.ugt(4 * place + 3)):
            _fill(m, _next(RT, place), m.load(ea + (4 * place), 4).zext(64), RA, RB)
    for rest in (1, 2, 3):
        with m.when((count & 3).eq(rest)):
            _fill(m, _next(RT, count >> 2), _part(m, ea + (count & ~3), rest), RA, RB)


@string("stswx RS,RA,RB", X, 31, 661)
def stswx(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
    ea = m.base(RA) + m.gpr[RB]
    if m.little:
        m.alignment(ea)
        return
    count = m["XER"] & int(XER.COUNT)
    for place in range(_LONGEST_STRING // 4):
        with m.when(count.ugt(4 * place + 3)):
            m.store(ea + 4 * place, m.gpr[_next(RS, place)].trunc(32))
    for rest in (1, 2, 3):
        with m.when((count & 3).eq(rest)):
            _store_part(m, _next(RS, count >> 2), ea + (count & ~3), rest)
