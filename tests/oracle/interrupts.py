"""Cases about interrupts: who raises which, and what SRR1, DAR and DSISR say.

Problem state runs with relocation on (the book has no problem state without it), mapped one to one in QEMU's machine
up to 1 GiB. Storage interrupts are raised above that: real mode itself raises none on QEMU's machine, where memory
that is not there reads as zeros.
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
from .generate import MODES, draw_fields, drawn, initial
from .generate import cases as one_instruction
from .operands import value, values

MAPPED = 1 << 30
"""First effective address that is not mapped where relocation is on."""

_MTSRR0, _MTSRR1, _RFID, _SC = 0x7C1A_03A6, 0x7C1B_03A6, 0x4C00_0024, 0x4400_0002
_PROBLEM = MSR_PR | MSR_EE | MSR_IR | MSR_DR
_FREE_MSR = MSR_SF | MSR_EE | MSR_RI | 1 << 13 | 1 << 25 | 1 << 23 | 1 << 11 | 1 << 10 | 1 << 9 | 1 << 8

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
    """A word that the table does not know."""
    while True:
        word = random.getrandbits(32)
        if random.getrandbits(1):
            word = random.choice((19, 30, 31, 58, 62)) << 26 | word & 0x3FF_FFFF
        if decode(word) is None:
            return _case(random, place, (word,))


def unavailable(random: Random, place: Iterator[int]) -> list[Case]:
    """A word among the floating-point and vector instructions, all of which are off."""
    word = random.choice((4, 48, 49, 50, 51, 52, 53, 54, 55, 57, 59, 60, 61, 63)) << 26 | random.getrandbits(
        26
    )
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
    to = to & ~MSR_LE | msr & MSR_LE if random.getrandbits(3) else to ^ MSR_LE
    target = address + 4 * random.randrange(3, len(words) + 2) + random.getrandbits(2)
    return _case(random, iter((address,)), words, msr, r3=target, r4=to)


def return_from_interrupt(random: Random, place: Iterator[int]) -> list[Case]:
    """`rfid` to a random machine state without relocation."""
    to = (
        random.getrandbits(64) & ~(MSR_PR | MSR_IR | MSR_DR)
        if random.getrandbits(1)
        else random.choice(MODES)
    )
    to = to & ~(3 << 33) & ~(1 << 32)
    return _switch(random, place, (_MTSRR0 | 3 << 21, _MTSRR1 | 4 << 21, _RFID, *_fillers(random, 6)), to)


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
        14 << 26 | random.choice(programs.DATA[5:]) << 21 | random.getrandbits(16) for _ in range(count)
    )


def trace(random: Random, place: Iterator[int]) -> list[Case]:
    """A program with single-step or branch trace on."""
    return programs.cases(random, place, inputs=1, traced=True)


def data_storage(random: Random, place: Iterator[int]) -> list[Case]:
    """Relocation on for data, and an access to a place that is not mapped."""
    pool = programs.pool("memory")
    one = random.choice(pool)
    numbers = draw_fields(random, one)
    numbers["RA"] = 21
    for name in ("RT", "RS"):
        if name in numbers:
            numbers[name] = 6
    if "RB" in numbers:
        numbers["RB"] = 22
    mtmsr = 31 << 26 | 4 << 21 | 146 << 1
    msr = random.choice(MODES)
    to = msr & 0xFFFF_FFFF | MSR_DR
    away = MAPPED + BLOCK + 16 * random.getrandbits(8)
    offset = next((numbers[name] for name in ("D", "DS", "DQ") if name in numbers), None)
    base, index = (away - offset, 0) if offset is not None else (away - 32, 32)
    return _case(
        random, place, (mtmsr, one.encode(**numbers)), msr, r4=to, r21=base & (1 << 64) - 1, r22=index
    )


def instruction_storage(random: Random, place: Iterator[int]) -> list[Case]:
    """`rfid` to relocation on and a place that is not mapped."""
    address = next(place)
    msr = random.choice(MODES)
    words = (_MTSRR0 | 3 << 21, _MTSRR1 | 4 << 21, _RFID)
    target = (MAPPED | value(random) & (MAPPED - 1)) & ~3
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
    trace,
    data_storage,
    instruction_storage,
    alignment,
)
"""Every kind of case about interrupts."""

__all__ = ["MAKERS", "MAPPED", "STRIDE"]
