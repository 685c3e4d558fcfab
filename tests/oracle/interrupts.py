"""Cases about interrupts: which instructions raise them, and what SRR1, DAR and DSISR say.

Problem state runs with relocation on (the book has no problem state without it), mapped one to one in QEMU's
machine up to 1 GiB. Storage interrupts are raised above that: real mode itself raises none on QEMU's
machine, on which absent memory reads as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random

from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction

from . import programs
from .case import (
    BACKGROUND,
    BLOCK,
    FSCR_DSCR,
    FSCR_TAR,
    MSR_DR,
    MSR_EE,
    MSR_IR,
    MSR_LE,
    MSR_ME,
    MSR_PR,
    MSR_RI,
    MSR_SF,
    SPR_NAMES,
    STRIDE,
    Case,
)
from .generate import CONDITIONAL_STORES, MODES, draw_fields, drawn, initial
from .generate import cases as one_instruction
from .operands import value, values

MAPPED = 1 << 30
"""First effective address that is not mapped if relocation is on."""

_MTSRR0, _MTSRR1, _RFID, _SC = 0x7C1A_03A6, 0x7C1B_03A6, 0x4C00_0024, 0x4400_0002
_NOP = 0x6000_0000
"""Read in the other byte order it is an illegal instruction."""
_PROBLEM = MSR_PR | MSR_EE | MSR_IR | MSR_DR
_FREE_MSR = (
    MSR_SF | MSR_EE | MSR_RI | (1 << 13) | (1 << 25) | (1 << 23) | (1 << 11) | (1 << 10) | (1 << 9) | (1 << 8)
)

Maker = Callable[[Random, Iterator[int]], list[Case]]


def _case(
    random: Random, place: Iterator[int], words: tuple[int, ...], msr: int | None = None, **registers: int
) -> list[Case]:
    gpr = list(BACKGROUND)
    for number, drawn_value in zip(programs.DATA, values(random, len(programs.DATA)), strict=True):
        gpr[number] = drawn_value
    for name, number in registers.items():
        gpr[int(name[1:])] = number
    return [initial(random, words, next(place), random.choice(MODES) if msr is None else msr, gpr)]


def illegal(random: Random, place: Iterator[int]) -> list[Case]:
    """A word that the table does not know. Vector and floating-point opcodes are for `test_encodings`."""
    while True:
        word = random.getrandbits(32)
        if random.getrandbits(1):
            word = (random.choice((19, 30, 31, 58, 62)) << 26) | (word & 0x3FF_FFFF)
        if decode(word) is None and word >> 26 not in (4, 57, 59, 60, 61, 63):
            return _case(random, place, (word,))


_UNAVAILABLE = (
    # lfs lfd stfs stfd lfdx stfdx lfiwax stfiwx; fadds fmadd fadd fmr fcmpu mffs mtfsf fctid
    *(0xC000_0000, 0xC800_0000, 0xD000_0000, 0xD800_0000, 0x7C00_04AE, 0x7C00_05AE, 0x7C00_06AE, 0x7C00_07AE),
    *(0xEC00_002A, 0xFC00_003A, 0xFC00_002A, 0xFC00_0090, 0xFC00_0000, 0xFC00_048E, 0xFC00_058E, 0xFC00_065C),
    # lvx stvx lvsl; vaddubm vxor vperm vspltw mfvscr
    *(0x7C00_00CE, 0x7C00_01CE, 0x7C00_000C, 0x1000_0000, 0x1000_04C4, 0x1000_002B, 0x1000_028C, 0x1000_0604),
    # lxvd2x stxvd2x lxsdx; xxlor xsadddp xxpermdi; lxv stxv
    *(0x7C00_0698, 0x7C00_0798, 0x7C00_0498, 0xF000_0490, 0xF000_0100, 0xF000_0050, 0xF400_0001, 0xF400_0005),
    # mfvsrd mtvsrd lxvx lxvl; lfdp stfdp stxsd tbegin.
    *(0x7C00_0066, 0x7C00_0166, 0x7C00_0218, 0x7C00_021A, 0xE400_0000, 0xF400_0000, 0xF400_0002, 0x7C00_051D),
)
_TRANSACTION = 0x7C00_051D


def unavailable(random: Random, place: Iterator[int]) -> list[Case]:
    """A floating-point, vector or transactional instruction while its facility is off."""
    word = random.choice(_UNAVAILABLE)
    if word != _TRANSACTION:
        word |= (random.getrandbits(5) << 21) & (0x0380_0000 if word == 0xFC00_0000 else -1)
        if word >> 26 not in (4, 59, 63) or word & 0x3F in (0x2A, 0x3A):
            word |= random.getrandbits(2) << 16
    return _case(random, place, (word,))


def system_call(random: Random, place: Iterator[int]) -> list[Case]:
    """`sc`, from privileged and problem state."""
    msr = random.choice(MODES) | (_PROBLEM if random.getrandbits(1) else 0)
    return _case(random, place, (_SC,), msr)


def problem_state(random: Random, place: Iterator[int]) -> list[Case]:
    """Any instruction in problem state: the same as ever, or the privileged one's program interrupt."""
    return [
        replace(case, msr=case.msr | _PROBLEM)
        for case in one_instruction(random, place, random.choice(drawn()))
    ]


def privileged(random: Random, place: Iterator[int]) -> list[Case]:
    """An instruction that asks for privilege, in problem state."""
    if not _asking():
        return []
    one = random.choice(_asking())
    return _case(random, place, (one.encode(**draw_fields(random, one)),), random.choice(MODES) | _PROBLEM)


@cache
def _asking() -> list[Instruction]:
    return [one for one in INSTRUCTIONS if one.mnemonic in _PRIVILEGED]


_PRIVILEGED = frozenset(
    (
        "rfid",
        "hrfid",
        "mtmsr",
        "mtmsrd",
        "mfmsr",
        "tlbie",
        "tlbiel",
        "tlbsync",
        "slbia",
        "slbie",
        "slbmte",
        "stop",
    )
)


def facility(random: Random, place: Iterator[int]) -> list[Case]:
    """TAR and the problem-state DSCR in problem state, with the facility on and off."""
    name = random.choice(("mfspr", "mtspr"))
    move = next((one for one in INSTRUCTIONS if one.mnemonic == name), None)
    if move is None:
        return []
    register = "RT" if name == "mfspr" else "RS"
    word = move.encode(**{register: random.choice(programs.DATA), "SPR": random.choice((815, 815, 3))})
    (case,) = _case(random, place, (word,), random.choice(MODES) | _PROBLEM)
    sprs = list(case.sprs)
    sprs[SPR_NAMES.index("FSCR")] = random.choice((0, FSCR_TAR, FSCR_DSCR, FSCR_TAR | FSCR_DSCR))
    return [replace(case, sprs=tuple(sprs))]


def _switch(random: Random, place: Iterator[int], words: tuple[int, ...], to: int) -> list[Case]:
    """`words` begin by moving r3 to SRR0 and r4 to SRR1; r3 is a place in the program."""
    address = next(place)
    msr = random.choice(MODES)
    to = (to & ~MSR_LE) | (msr & MSR_LE) if random.getrandbits(3) else to ^ MSR_LE
    target = address + 4 * random.randrange(3, len(words) + 2) + random.getrandbits(2)
    if not to & MSR_SF:
        target |= random.getrandbits(32) << 32
    return _case(random, iter((address,)), words, msr, r3=target, r4=to)


def return_from_interrupt(random: Random, place: Iterator[int]) -> list[Case]:
    """`rfid` to a random machine state without relocation."""
    to = (
        random.getrandbits(64) & ~(MSR_PR | MSR_IR | MSR_DR)
        if random.getrandbits(1)
        else random.choice(MODES)
    )
    to = (to | MSR_ME) & ~(7 << 32)
    return _switch(random, place, (_MTSRR0 | (3 << 21), _MTSRR1 | (4 << 21), _RFID, *[_NOP] * 6), to)


def set_machine_state(random: Random, place: Iterator[int]) -> list[Case]:
    """`mtmsr` or `mtmsrd` of a random state without relocation, either form."""
    name = random.choice(("mtmsr", "mtmsrd"))
    one = next((one for one in INSTRUCTIONS if one.mnemonic == name), None)
    if one is None:
        return []
    numbers = draw_fields(random, one)
    numbers["RS"] = 4
    to = (random.getrandbits(64) & _FREE_MSR) | MSR_ME | random.getrandbits(1)
    return _case(random, place, (one.encode(**numbers), *_fillers(random, 4)), None, r4=to)


def _fillers(random: Random, count: int) -> tuple[int, ...]:
    return tuple(
        (14 << 26) | (random.choice(programs.DATA[5:]) << 21) | random.getrandbits(16) for _ in range(count)
    )


def register_move(random: Random, place: Iterator[int]) -> list[Case]:
    """Into a special-purpose register and out of it again: the bits that it keeps."""
    to = next(one for one in INSTRUCTIONS if one.mnemonic == "mtspr")
    back = next(one for one in INSTRUCTIONS if one.mnemonic == "mfspr")
    number = random.choice(programs.KEPT_SPRS)
    words = (to.encode(SPR=number, RS=3), back.encode(SPR=number, RT=4))
    return _case(random, place, words)


def trace(random: Random, place: Iterator[int]) -> list[Case]:
    """A program with single-step or branch trace on."""
    return programs.cases(random, place, inputs=1, traced=True)


@cache
def _always_accessing() -> tuple[Instruction, ...]:
    """Not conditional stores, which may access nothing, nor those whose DAR is any byte of a block."""
    out = (*CONDITIONAL_STORES, "dcbz", "icbi")
    return tuple(one for one in programs.pool("memory") if one.mnemonic not in out)


def data_storage(random: Random, place: Iterator[int]) -> list[Case]:
    """Relocation on for data, and an access to a place that is not mapped."""
    one = random.choice(_always_accessing())
    numbers = draw_fields(random, one)
    numbers["RA"] = 21
    for name in ("RT", "RS"):
        if name in numbers:
            numbers[name] = 6
    if "RB" in numbers:
        numbers["RB"] = 22
    mtmsr = (31 << 26) | (4 << 21) | (146 << 1)
    msr = random.choice(MODES)
    to = (msr & 0xFFFF_FFFF) | MSR_DR
    away = MAPPED + BLOCK + 16 * random.getrandbits(8)
    offset = next((numbers[name] for name in ("D", "DS", "DQ") if name in numbers), None)
    base, index = (away - offset, 0) if offset is not None else (away - 32, 32)
    return _case(
        random, place, (mtmsr, one.encode(**numbers)), msr, r4=to, r21=base & ((1 << 64) - 1), r22=index
    )


def instruction_storage(random: Random, place: Iterator[int]) -> list[Case]:
    """`rfid` to relocation on and a place that is not mapped."""
    address = next(place)
    msr = random.choice(MODES)
    words = (_MTSRR0 | (3 << 21), _MTSRR1 | (4 << 21), _RFID)
    target = (MAPPED | (value(random) & (MAPPED - 1))) & ~3
    return _case(random, iter((address,)), words, msr, r3=target, r4=msr | MSR_IR)


def alignment(random: Random, place: Iterator[int]) -> list[Case]:
    """A reserving load off its boundary, and what little-endian mode refuses."""
    names = ("lharx", "lwarx", "ldarx", "lqarx", "lmw", "stmw", "lswi", "lswx", "stswi", "stswx")
    pool = [one for one in drawn() if one.mnemonic in names]
    if not pool:
        return []
    one = random.choice(pool)
    made = one_instruction(random, place, one, inputs=1)
    if one.mnemonic[0] in "ls" and one.mnemonic in names[4:]:
        return [replace(case, msr=case.msr | MSR_LE) for case in made]
    return made


MAKERS: tuple[Maker, ...] = (
    illegal,
    unavailable,
    system_call,
    problem_state,
    privileged,
    facility,
    return_from_interrupt,
    set_machine_state,
    register_move,
    trace,
    data_storage,
    instruction_storage,
    alignment,
)
"""Every kind of case about interrupts."""

__all__ = ["MAKERS", "MAPPED", "STRIDE"]
