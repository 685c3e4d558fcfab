"""What comes after one instruction: KVM HV cannot run a single one, so a step is a run up to there.

Power ISA 3.0B, Book I 2.4 (branches), Book III 4.4 (returns), 7.2.15 (where interrupts lead).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from chronovisor.kvm.linux.translation import MSR_DR, MSR_IR, MSR_SF
from chronovisor.kvm.structures import Regs
from chronovisor.timebase.types import MASK64

_MSR_EE: Final = 1 << 15
_MSR_PR: Final = 1 << 14
_TRANSLATED: Final = MSR_IR | MSR_DR
_AIL: Final = 23
"""The bit of LPCR at which its field for where interrupts lead begins, counted from the lowest."""
_AIL_HIGH: Final = 3
_HIGH: Final = 0xC000_0000_0000_4000
_SCV, _SCV_HIGH = 0x1_7000, 0xC000_0000_0000_3000
_PREFIX, _TDI, _TWI, _BC, _SC, _B, _CR, _X = 1, 2, 3, 16, 17, 18, 19, 31
"""Primary opcodes."""
_BCLR, _RFID, _RFSCV, _BCCTR, _BCTAR = 16, 18, 82, 528, 560
_TW, _TD = 4, 68
"""Extended ones."""
SYSTEM_CALL: Final = 0xC00
PROGRAM: Final = 0x700
INSTRUCTION_STORAGE: Final = 0x400


@dataclass(frozen=True, slots=True)
class Place:
    """An effective address at which an instruction is executed, and the MSR there, as far as translation
    depends on it.
    """

    address: int
    msr: int


def after_branch(word: int, regs: Regs, target: int) -> Regs | None:
    """Return the registers after a branch; None if the instruction is another one.

    `target` is TAR. A branch is executed here, because it may lead to itself.
    """
    opcode, extended = word >> 26, (word >> 1) & 0x3FF
    if opcode not in (_B, _BC) and not (opcode == _CR and extended in (_BCLR, _BCCTR, _BCTAR)):
        return None
    done = replace(regs)
    width = MASK64 if regs.msr & MSR_SF else 0xFFFF_FFFF
    taken = True
    if opcode == _B:
        displacement = _signed(word & 0x03FF_FFFC, 26)
    else:
        options, condition = (word >> 21) & 0x1F, (regs.cr >> (31 - ((word >> 16) & 0x1F))) & 1
        if not options & 0b00100:
            done.ctr = (regs.ctr - 1) & MASK64
            taken = bool(done.ctr & width) != bool(options & 0b00010)
        if not options & 0b10000:
            taken &= condition == (options >> 3) & 1
        displacement = _signed(word & 0xFFFC, 16)
    if word & 1:
        done.lr = (regs.pc + 4) & width
    if not taken:
        done.pc = regs.pc + 4
    elif opcode == _CR:
        done.pc = {_BCLR: regs.lr, _BCCTR: regs.ctr, _BCTAR: target}[extended] & ~3
    else:
        done.pc = displacement + (0 if word & 2 else regs.pc)
    done.pc &= width
    return done


def after_other(word: int, regs: Regs, lpcr: int) -> list[Place]:
    """Return where an instruction other than a branch can lead, except by storage interrupts."""
    opcode, extended = word >> 26, (word >> 1) & 0x3FF
    following = Place((regs.pc + 4) & MASK64, regs.msr)
    if opcode == _SC and word & 2:
        level = (word >> 5) & 0x7F
        return [following] if level else [interrupt(SYSTEM_CALL, regs.msr, lpcr)]
    if opcode == _SC and word & 1:
        high = _leads_high(regs.msr, lpcr)
        return [Place((_SCV_HIGH if high else _SCV) + 32 * ((word >> 5) & 0x7F), regs.msr & ~_MSR_PR)]
    if opcode == _CR and extended == _RFID:
        return [Place(regs.srr0 & ~3, regs.srr1)]
    if opcode == _CR and extended == _RFSCV:
        return [Place(regs.lr & ~3, regs.ctr)]
    if opcode in (_TDI, _TWI) or (opcode == _X and extended in (_TW, _TD)):
        return [following, interrupt(PROGRAM, regs.msr, lpcr)]
    if opcode == _PREFIX:
        return [Place((regs.pc + 8) & MASK64, regs.msr)]
    return [following]


def interrupt(vector: int, msr: int, lpcr: int) -> Place:
    """Return where an interrupt leads that comes at this MSR."""
    if _leads_high(msr, lpcr):
        return Place(_HIGH + vector, (msr | MSR_SF) & ~(_MSR_PR | _MSR_EE))
    return Place(vector, (msr | MSR_SF) & ~(_MSR_PR | _MSR_EE | _TRANSLATED))


def _leads_high(msr: int, lpcr: int) -> bool:
    return (lpcr >> _AIL) & 3 == _AIL_HIGH and msr & _TRANSLATED == _TRANSLATED


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
