"""Fixed-point rotates and shifts (Power ISA 3.0B Book I 3.3.14).

Numbers of bits are the book's: 0 is the most significant of 64, so the low word is bits 32 to 63.
"""

from __future__ import annotations

from chronovisor.isa.forms import MD, MDS, XS, M, X
from chronovisor.isa.instruction import instruction
from chronovisor.isa.meanings.logical import finish
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Operand, Value


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


@instruction("rlwinm[.] RA,RS,SH,MB,ME", M, 21)
def rlwinm(m: Machine, RA: Value, RS: Value, SH: Value, MB: Value, ME: Value, Rc: int) -> None:
    finish(m, RA, rotl32(m, m.gpr[RS], SH) & m.mask(MB + 32, ME + 32), Rc)


@instruction("rlwnm[.] RA,RS,RB,MB,ME", M, 23)
def rlwnm(m: Machine, RA: Value, RS: Value, RB: Value, MB: Value, ME: Value, Rc: int) -> None:
    finish(m, RA, rotl32(m, m.gpr[RS], m.gpr[RB] & 31) & m.mask(MB + 32, ME + 32), Rc)


@instruction("rlwimi[.] RA,RS,SH,MB,ME", M, 20)
def rlwimi(m: Machine, RA: Value, RS: Value, SH: Value, MB: Value, ME: Value, Rc: int) -> None:
    mask = m.mask(MB + 32, ME + 32)
    finish(m, RA, (rotl32(m, m.gpr[RS], SH) & mask) | (m.gpr[RA] & ~mask), Rc)


# Rotate the doubleword


@instruction("rldicl[.] RA,RS,SH6,MB6", MD, 30, 0)
def rldicl(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(MB6, 63), Rc)


@instruction("rldicr[.] RA,RS,SH6,ME6", MD, 30, 1)
def rldicr(m: Machine, RA: Value, RS: Value, SH6: Value, ME6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(0, ME6), Rc)


@instruction("rldic[.] RA,RS,SH6,MB6", MD, 30, 2)
def rldic(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], SH6) & m.mask(MB6, 63 - SH6), Rc)


@instruction("rldimi[.] RA,RS,SH6,MB6", MD, 30, 3)
def rldimi(m: Machine, RA: Value, RS: Value, SH6: Value, MB6: Value, Rc: int) -> None:
    mask = m.mask(MB6, 63 - SH6)
    finish(m, RA, (m.rotl(m.gpr[RS], SH6) & mask) | (m.gpr[RA] & ~mask), Rc)


@instruction("rldcl[.] RA,RS,RB,MB6", MDS, 30, 8)
def rldcl(m: Machine, RA: Value, RS: Value, RB: Value, MB6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], m.gpr[RB]) & m.mask(MB6, 63), Rc)


@instruction("rldcr[.] RA,RS,RB,ME6", MDS, 30, 9)
def rldcr(m: Machine, RA: Value, RS: Value, RB: Value, ME6: Value, Rc: int) -> None:
    finish(m, RA, m.rotl(m.gpr[RS], m.gpr[RB]) & m.mask(0, ME6), Rc)


# Shift


@instruction("slw[.] RA,RS,RB", X, 31, 24)
def slw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shifted = m.gpr[RS] << (m.gpr[RB] & 63)
    finish(m, RA, shifted.trunc(32).zext(64), Rc)


@instruction("srw[.] RA,RS,RB", X, 31, 536)
def srw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).zext(64) >> (m.gpr[RB] & 63), Rc)


@instruction("sraw[.] RA,RS,RB", X, 31, 792)
def sraw(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS].trunc(32).sext(64), m.gpr[RB] & 63, Rc)


@instruction("srawi[.] RA,RS,SH", X, 31, 824)
def srawi(m: Machine, RA: Value, RS: Value, SH: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS].trunc(32).sext(64), SH, Rc)


@instruction("sld[.] RA,RS,RB", X, 31, 27)
def sld(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] << (m.gpr[RB] & 127), Rc)


@instruction("srd[.] RA,RS,RB", X, 31, 539)
def srd(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS] >> (m.gpr[RB] & 127), Rc)


@instruction("srad[.] RA,RS,RB", X, 31, 794)
def srad(m: Machine, RA: Value, RS: Value, RB: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS], m.gpr[RB] & 127, Rc)


@instruction("sradi[.] RA,RS,SH6", XS, 31, 413)
def sradi(m: Machine, RA: Value, RS: Value, SH6: Value, Rc: int) -> None:
    shift_right_signed(m, RA, m.gpr[RS], SH6, Rc)


@instruction("extswsli[.] RA,RS,SH6", XS, 31, 445)
def extswsli(m: Machine, RA: Value, RS: Value, SH6: Value, Rc: int) -> None:
    finish(m, RA, m.gpr[RS].trunc(32).sext(64) << SH6, Rc)
