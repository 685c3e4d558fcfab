"""Fixed-point rotates and shifts.

Numbers of bits are the book's: 0 is the most significant of 64, so the low word is bits 32 to 63.
"""

from __future__ import annotations

from chronovisor.isa.forms import MD, MDS, XS, M, X
from chronovisor.isa.instruction import section
from chronovisor.isa.meanings.logical import finish
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value

rotate = section("Book I 3.3.14.1")
shift = section("Book I 3.3.14.2")


def rotl32(m: Machine, value: Value, amount: Operand) -> Value:
    """ROTL32: the low word beside itself, rotated left."""
    low = value.trunc(32)
    return m.rotl(m.concat(low, low), amount)


def shift_right_signed(m: Machine, RA: Value, value: Value, amount: Value, Rc: int) -> None:
    """Shift the (sign-extended) value right; CA and CA32 say that a negative one lost ones."""
    lost = value & ~(m.value(-1) << amount)
    carry = value.slt(0) & lost.ne(0)
    m.set_xer(CA=carry, CA32=carry)
    finish(m, RA, value.ashr(amount), Rc)


# Rotate the word


@rotate("rlwinm[.] RA,RS,SH,MB,ME", M, 21)
def rlwinm(m: Machine, RA: Value, RS: Value, SH: Value, MB: Value, ME: Value, Rc: int) -> None:
    finish(m, RA, rotl32(m, m.gpr[RS], SH) & m.mask(MB + 32, ME + 32), Rc)


@rotate("rlwnm[.] RA,RS,RB,MB,ME", M, 23)
def rlwnm(m: Machine, RA: Value, RS: Value, RB: Value, MB: Value, ME: Value, Rc: int) -> None:
    finish(m, RA, rotl32(m, m.gpr[RS], m.gpr[RB] & 31) & m.mask(MB + 32, ME + 32), Rc)


@rotate("rlwimi[.] RA,RS,SH,MB,ME", M, 20)
def rlwimi(m: Machine, RA: Value, RS: Value, SH: Value, MB: Value, ME: Value, Rc: int) -> None:
    mask = m.mask(MB + 32, ME + 32)
    finish(m, RA, (rotl32(m, m.gpr[RS], SH) & mask) | (m.gpr[RA] & ~mask), Rc)


# Rotate the doubleword


@rotate("rldicl[.] RA,RS,SH6,MB6", MD, 30, 0)
def rldicl(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(MB6, 63), Rc)


@rotate("rldicr[.] RA,RS,SH6,ME6", MD, 30, 1)
def rldicr(m: Machine, RA: Value, RS: Value, SH6: Value, ME6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(0, ME6), Rc)


@rotate("rldic[.] RA,RS,SH6,MB6", MD, 30, 2)
def rldic(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(MB6, 63 - SH6), Rc)


@rotate("rldimi[.] RA,RS,SH6,MB6", MD, 30, 3)
def rldimi(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    mask = m.mask(MB6, 63 - SH6)
    finish(m, RA, (m.rotl(m.gpr[RS], SH6) & mask) | (m.gpr[RA] & ~mask), Rc)


@rotate("rldcl[.] RA,RS,RB,MB6", MDS, 30, 8)
def rldcl(m: Machine, RA: Value, RS: Value, RB: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], m.gpr[RB]) & m.mask(MB6, 63), Rc)


@rotate("rldcr[.] RA,RS,RB,ME6", MDS, 30, 9)
def rldcr(m: Machine, RA: Value, RS: Value, RB: Value, ME6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], m.gpr[RB]) & m.mask(0, ME6), Rc)


# Shift


@shift("slw[.] RA,RS,RB", X, 31, 24)
def slw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shifted = m.gpr[RS] << (m.gpr[RB] & 63)
    finish(m, RA, shifted.trunc(32).zext(64), Rc)


@shift("srw[.] RA,RS,RB", X, 31, 536)
def srw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).zext(64) >> (m.gpr[RB] & 63), Rc)


@shift("sraw[.] RA,RS,RB", X, 31, 792)
def sraw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS].trunc(32).sext(64), m.gpr[RB] & 63, Rc)


@shift("srawi[.] RA,RS,SH", X, 31, 824)
def srawi(m: Machine, RA: Value, RS: Value, SH: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS].trunc(32).sext(64), SH, Rc)


@shift("sld[.] RA,RS,RB", X, 31, 27)
def sld(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] << (m.gpr[RB] & 127), Rc)


@shift("srd[.] RA,RS,RB", X, 31, 539)
def srd(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] >> (m.gpr[RB] & 127), Rc)


@shift("srad[.] RA,RS,RB", X, 31, 794)
def srad(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS], m.gpr[RB] & 127, Rc)


@shift("sradi[.] RA,RS,SH6", XS, 31, 413)
def sradi(m: Machine, RA: Value, RS: Value, SH6: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS], SH6, Rc)


@shift("extswsli[.] RA,RS,SH6", XS, 31, 445)
def extswsli(m: Machine, RA: Value, RS: Value, SH6: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).sext(64) << SH6, Rc)
