"""Branches and the condition register."""

from __future__ import annotations

from chronovisor.isa.bits import FSCR, XER
from chronovisor.isa.forms import XFX, XL, B, I, X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

branch = section("Book I 2.4")
logical = section("Book I 2.5.1")
field = section("Book I 2.5.2")
move = section("Book I 3.3.17")

# Branches


@branch("b[l][a] LI", I, 18)
def b(m: Machine, LI: Value, AA: int, LK: int) -> None:
    cia = m["CIA"]
    m.branch(LI if AA else cia + LI)
    if LK:
        m["LR"] = cia + 4


def branch_taken(m: Machine, BO: int, BI: Value) -> Value:
    """1 bit: the branch is taken; CTR counts down if BO says so (Book I 2.4, the BO field)."""
    taken = m.value(1, 1)
    if not BO & 0b00100:
        ctr = m["CTR"] - 1
        m["CTR"] = ctr
        seen = ctr if m.sixty_four else ctr.trunc(32)
        taken = seen.eq(0) if BO & 0b00010 else seen.ne(0)
    if not BO & 0b10000:
        bit = m.cr_bit[BI]
        taken = taken & (bit if BO & 0b01000 else ~bit)
    return taken


def branch_if(m: Machine, BO: int, BI: Value, target: Value, LK: int) -> None:
    """A conditional branch; LR gets the next address, whether the branch is taken or not."""
    with m.when(branch_taken(m, BO, BI)):
        m.branch(target)
    if LK:
        m["LR"] = m["CIA"] + 4


@branch("bc[l][a] BO,BI,BD", B, 16)
def bc(m: Machine, BO: int, BI: Value, BD: Value, AA: int, LK: int) -> None:
    branch_if(m, BO, BI, BD if AA else m["CIA"] + BD, LK)


@branch("bclr[l] BO,BI,BH", XL, 19, 16)
def bclr(m: Machine, BO: int, BI: Value, LK: int) -> None:
    branch_if(m, BO, BI, m["LR"], LK)


@branch("bcctr[l] BO,BI,BH", XL, 19, 528)
def bcctr(m: Machine, BO: int, BI: Value, LK: int) -> None:
    if not BO & 0b00100:  # CTR as target and counter at once: an invalid form
        m.illegal()
        return
    branch_if(m, BO, BI, m["CTR"], LK)


@branch("bctar[l] BO,BI,BH", XL, 19, 560)
def bctar(m: Machine, BO: int, BI: Value, LK: int) -> None:
    m.facility(FSCR.TAR)
    branch_if(m, BO, BI, m["TAR"], LK)


# Condition register logic


@logical("crand BT,BA,BB", XL, 19, 257)
def crand(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = m.cr_bit[BA] & m.cr_bit[BB]


@logical("cror BT,BA,BB", XL, 19, 449)
def cror(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = m.cr_bit[BA] | m.cr_bit[BB]


@logical("crxor BT,BA,BB", XL, 19, 193)
def crxor(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = m.cr_bit[BA] ^ m.cr_bit[BB]


@logical("crnand BT,BA,BB", XL, 19, 225)
def crnand(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = ~(m.cr_bit[BA] & m.cr_bit[BB])


@logical("crnor BT,BA,BB", XL, 19, 33)
def crnor(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = ~(m.cr_bit[BA] | m.cr_bit[BB])


@logical("creqv BT,BA,BB", XL, 19, 289)
def creqv(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = ~(m.cr_bit[BA] ^ m.cr_bit[BB])


@logical("crandc BT,BA,BB", XL, 19, 129)
def crandc(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = m.cr_bit[BA] & ~m.cr_bit[BB]


@logical("crorc BT,BA,BB", XL, 19, 417)
def crorc(m: Machine, BT: Value, BA: Value, BB: Value) -> None:
    m.cr_bit[BT] = m.cr_bit[BA] | ~m.cr_bit[BB]


@field("mcrf BF,BFA", XL, 19, 0)
def mcrf(m: Machine, BF: Value, BFA: Value) -> None:
    m.cr[BF] = m.cr[BFA]


# Moves to and from the condition register


def fields_mask(FXM: int) -> int:
    """Ones in the condition register fields that FXM chooses, the most significant bit for field 0."""
    return sum(0xF << (4 * bit) for bit in range(8) if (FXM >> bit) & 1)


def move_to_fields(m: Machine, FXM: int, RS: Value) -> None:
    """The chosen fields become those of RS's low word."""
    mask = fields_mask(FXM)
    m["CR"] = (m["CR"] & ~mask) | (m.gpr[RS].trunc(32) & mask)


@move("mtcrf FXM,RS", XFX, 31, 144, ONE=0)
def mtcrf(m: Machine, FXM: int, RS: Value) -> None:
    move_to_fields(m, FXM, RS)


@move("mtocrf FXM,RS", XFX, 31, 144, ONE=1)
def mtocrf(m: Machine, FXM: int, RS: Value) -> None:
    move_to_fields(m, FXM, RS)


@move("mfcr RT", XFX, 31, 19, ONE=0)
def mfcr(m: Machine, RT: Value) -> None:
    m.gpr[RT] = m["CR"].zext(64)


@move("mfocrf RT,FXM", XFX, 31, 19, ONE=1)
def mfocrf(m: Machine, RT: Value, FXM: int) -> None:
    m.gpr[RT] = (m["CR"] & fields_mask(FXM)).zext(64)


@move("mcrxrx BF", X, 31, 576)
def mcrxrx(m: Machine, BF: Value) -> None:
    flags = (m.xer_bit(flag) for flag in (XER.OV, XER.OV32, XER.CA, XER.CA32))
    m.cr[BF] = m.concat(*flags)
