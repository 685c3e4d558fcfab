"""Cases of one instruction, made from the project's own table of instructions.

Every declared instruction is drawn, whatever is declared; what a case must look like so that it ends (a
branch's target, an address in the memory block) is read off the instruction's fields and what its meaning
does. Forms that the book calls invalid are left out: their results are boundedly undefined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from random import Random

import chronovisor.isa.meanings  # noqa: F401 - declares every instruction
from chronovisor.isa.facilities.rows import MNEMONICS
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE

from .case import (
    BACKGROUND,
    BLOCK,
    CODE,
    FSCR_DSCR,
    FSCR_TAR,
    MSR_ME,
    MSR_SF,
    SPR_NAMES,
    STRIDE,
    Case,
)
from .operands import ALL, MEMORY_PATTERNS, value, values, xer

INPUTS = 4
"""Cases that share one program: QEMU translates it once."""

# What ends the case, changes translation or the clock, or has several right answers. Some of these have cases
# of their own.
ELSEWHERE = frozenset(
    {
        *("rfid", "hrfid", "rfscv", "mtmsr", "mtmsrd", "sc", "scv", "stop", "wait", "darn", "mftb"),
        *("dst", "dstt", "dstst", "dststt", "dss", "dssall"),
        *(
            "tlbie",
            "tlbiel",
            "tlbsync",
            "slbia",
            "slbie",
            "slbieg",
            "slbiag",
            "slbmte",
            "slbmfee",
            "slbmfev",
            "slbfee.",
        ),
        *("slbsync", "msgsnd", "msgclr", "msgsndp", "msgclrp", "msgsync"),
    }
)
"""Mnemonics that are not drawn at random."""

MEMORY_OPERATIONS = frozenset({"load", "store", "load_reserved", "store_conditional", "zero_block", "probe"})

ATOMIC = frozenset(("lwat", "ldat", "stwat", "stdat"))
FUNCTION_CODES = {"l": (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 25, 28), "s": (0, 1, 2, 3, 4, 5, 6, 7, 24)}
CONDITIONAL_STORES = frozenset(("stbcx.", "sthcx.", "stwcx.", "stdcx.", "stqcx."))

_UNDEFINED_SPRS = (0, 4, 5, 6, 7, 14, 16, 60, 258, 300, 400, 512, 700, 900, 1000)
_OWN_SPRS = ("XER", "LR", "CTR", "SRR0", "SRR1", *SPR_NAMES, "SPRG3_U", "DSCR_U")

SPR_NUMBERS = (
    *sorted(n for n, register in {**SPR_READ, **SPR_WRITE}.items() if register.name in _OWN_SPRS),
    *_UNDEFINED_SPRS,
)
"""What moves to and from special-purpose registers name: what every case starts with anew, and numbers
without a register. Hypervisor registers are not drawn: QEMU 7.2 treats each in its own way if HV is 0."""

MODES = (MSR_SF | MSR_ME, MSR_SF | MSR_ME | 1, MSR_ME, MSR_ME | 1)


@cache
def operations(instruction: Instruction, statics: tuple[int, ...]) -> frozenset[str]:
    """What the instruction's meaning does, by operation; registers as "get NAME" and "set NAME"."""
    return frozenset(
        f"{statement.op} {statement.detail}" if statement.op in ("get", "set") else statement.op
        for statement in instruction.program(statics).statements()
    )


def is_update(instruction: Instruction) -> bool:
    """Whether it is a load or store that leaves the address in RA."""
    return instruction.mnemonic.startswith(("l", "st")) and instruction.mnemonic.endswith(("u", "ux"))


def draw_fields(random: Random, instruction: Instruction) -> dict[str, int]:
    """Field numbers for one valid form."""
    numbers: dict[str, int] = {}
    for field in instruction.fields:
        bits = random.getrandbits(field.width)
        if field.kind is Kind.SIGNED:
            if random.getrandbits(2) == 0:
                bits = random.choice((0, 1, -1, 1 << (field.width - 1))) & ((1 << field.width) - 1)
            numbers[field.name] = (bits - ((bits >> (field.width - 1)) << field.width)) << field.shift
        else:
            numbers[field.name] = bits << field.shift
    if "SPR" in numbers:
        numbers["SPR"] = random.choice(SPR_NUMBERS)
    if instruction.mnemonic in ("mfocrf", "mtocrf"):  # undefined unless it names one field
        numbers["FXM"] = 1 << random.getrandbits(3)
    if instruction.mnemonic == "bcctr":  # invalid if it counts CTR down
        numbers["BO"] |= 0b00100
    _make_valid(random, instruction, numbers)
    return numbers


def _make_valid(random: Random, instruction: Instruction, numbers: dict[str, int]) -> None:
    name = instruction.mnemonic
    if is_update(instruction):
        target = numbers.get("RT")
        while numbers["RA"] in (0, target):
            numbers["RA"] = random.getrandbits(5)
    if name in ("lq", "lqarx", "stq", "stqcx."):
        register = "RT" if "RT" in numbers else "RS"
        numbers[register] &= ~1
        if register == "RT":
            while (
                numbers["RA"] >> 1 == numbers["RT"] >> 1 or numbers.get("RB", 33) >> 1 == numbers["RT"] >> 1
            ):
                numbers["RA"] = random.getrandbits(5)
                if "RB" in numbers:
                    numbers["RB"] = random.getrandbits(5)
    for register in ("FRTP", "FRSP"):
        if register in numbers:
            numbers[register] &= ~1
    if name == "lmw":
        numbers["RT"] = max(numbers["RT"], 1)
        numbers["RA"] = random.randrange(numbers["RT"])
    if name in ATOMIC and random.getrandbits(4):
        numbers["FC"] = random.choice(FUNCTION_CODES[name[0]])
        numbers["RA"] = numbers["RA"] or 1
    if name == "dcbf" and numbers["L2"] == 2:  # reserved
        numbers["L2"] = 0
    if name in ("lswi", "lswx"):
        # The registers loaded must not include those of the address: at most 32 bytes, registers far apart.
        numbers["RT"], numbers["RA"] = 16 + random.getrandbits(2), random.getrandbits(3)
        if "RB" in numbers:
            numbers["RB"] = 8 + random.getrandbits(2)
        if "NB" in numbers:
            numbers["NB"] = random.getrandbits(5)


def _registers(instruction: Instruction, numbers: dict[str, int]) -> list[int]:
    return sorted({number for name, number in numbers.items() if FIELDS[name].kind is Kind.GPR})


def with_length(instruction: Instruction) -> bool:
    """Whether it is a load or store whose length is in RB."""
    return instruction.mnemonic in ("lxvl", "lxvll", "stxvl", "stxvll")


def _aim(
    random: Random, instruction: Instruction, numbers: dict[str, int], gpr: list[int], sixty_four: bool
) -> bool:
    """Set the registers of an address so that it lies in the memory block; False if they cannot."""
    ea = BLOCK + 64 + random.getrandbits(6)
    if random.getrandbits(1) or instruction.mnemonic in CONDITIONAL_STORES:
        ea &= ~15  # a conditional store off its boundary: an interrupt or anything, as the processor likes
    if instruction.mnemonic in ATOMIC:
        ea = (ea & ~31) | 16  # the place's neighbours lie in the same 32 bytes, as they must
    junk = 0 if sixty_four else random.getrandbits(32) << 32
    ra = numbers.get("RA", 0)
    if with_length(instruction):
        rb = numbers["RB"]
        gpr[rb] = (random.getrandbits(5) << 56) | random.getrandbits(56)
        gpr[ra] = (ea + junk) & ALL
        return ra not in (0, rb)
    offset = next((numbers[name] for name in ("D", "DS", "DQ") if name in numbers), None)
    if offset is not None:
        if ra == 0:
            if not BLOCK <= offset < BLOCK + 128:  # once a program: all its cases share the word
                offset_field = next(name for name in ("D", "DS", "DQ") if name in numbers)
                numbers[offset_field] = ea & -(1 << FIELDS[offset_field].shift)
        else:
            gpr[ra] = (ea - offset + junk) & ALL
    elif "RB" in numbers:
        rb = numbers["RB"]
        if ra == 0:
            gpr[rb] = (ea + junk) & ALL
        elif ra == rb:
            gpr[ra] = ((ea >> 1) + junk) & ALL
        else:
            gpr[rb] = value(random)
            gpr[ra] = (ea - gpr[rb] + junk) & ALL
    elif ra:
        gpr[ra] = (ea + junk) & ALL
    else:
        return False
    return True


def _branch_fields(random: Random, numbers: dict[str, int], address: int) -> None:
    """Let the branch land on the trap or in the zeros after it (an illegal instruction)."""
    target = address + 4 * random.randrange(1, STRIDE // 4)
    name = "LI" if "LI" in numbers else "BD"
    if not numbers.get("AA"):
        numbers[name] = target - address
    elif name == "LI":
        numbers[name] = target
    else:
        numbers[name] = 0x7000 + 4 * random.getrandbits(8)


def cases(random: Random, place: Iterator[int], chosen: Instruction, inputs: int = INPUTS) -> list[Case]:
    """`inputs` cases of one encoding of `chosen`, in one mode, at the next place."""
    msr = random.choice(MODES)
    address = next(place)
    numbers = draw_fields(random, chosen)
    doing = operations(chosen, tuple(numbers[name] for name in chosen.statics))
    if "set NIA" in doing and ("LI" in numbers or "BD" in numbers):
        _branch_fields(random, numbers, address)
    out: list[Case] = []
    for _ in range(inputs):
        gpr = list(BACKGROUND)
        used = _registers(chosen, numbers)
        for number, drawn in zip(used, values(random, len(used)), strict=True):
            gpr[number] = drawn
        accesses = doing & MEMORY_OPERATIONS or chosen.mnemonic in ATOMIC
        if accesses and not _aim(random, chosen, numbers, gpr, bool(msr >> 63)):
            break
        if "set NIA" in doing and "LI" not in numbers and "BD" not in numbers:
            lr, ctr, tar = (_target(random, address, bool(msr >> 63)) for _ in range(3))
        else:
            lr = ctr = tar = None
            if "set CTR" in doing:
                ctr = random.choice((0, 1, 2, 1 << 32, (1 << 32) + 1, value(random)))
        # lswx must not load the registers of its address: a few bytes will do.
        count = random.getrandbits(5) if chosen.mnemonic == "lswx" else None
        words = (chosen.encode(**numbers),)
        out.append(initial(random, words, address, msr, gpr, lr=lr, ctr=ctr, tar=tar, byte_count=count))
    return out


def _surroundings(random: Random) -> tuple[int, int, tuple[int, ...]]:
    """LR, CTR and the special-purpose registers."""
    sprs = (*values(random, 5), random.getrandbits(32), value(random), random.getrandbits(32))
    return value(random), value(random), (*sprs, 0, FSCR_TAR | FSCR_DSCR)


_TAR = SPR_NAMES.index("TAR")
_SURROUNDINGS = tuple(_surroundings(Random(seed)) for seed in range(64))
"""Few, so that stored answers compress; who cares for one of these registers draws it anew."""


def initial(
    random: Random,
    words: tuple[int, ...],
    address: int,
    msr: int,
    gpr: Sequence[int],
    lr: int | None = None,
    ctr: int | None = None,
    tar: int | None = None,
    byte_count: int | None = None,
) -> Case:
    """A case with these general registers and everything else drawn, unless it is given."""
    link, count, sprs = _SURROUNDINGS[random.getrandbits(6)]
    return Case(
        words=words,
        address=address,
        msr=msr,
        gpr=tuple(gpr),
        cr=random.getrandbits(32),
        xer=xer(random) if byte_count is None else (xer(random) & ~0x7F) | byte_count,
        lr=link if lr is None else lr,
        ctr=count if ctr is None else ctr,
        sprs=sprs if tar is None else (*sprs[:_TAR], tar, *sprs[_TAR + 1 :]),
        memory=random.choice(MEMORY_PATTERNS),
    )


def _target(random: Random, address: int, sixty_four: bool) -> int:
    target = address + 4 * random.randrange(1, STRIDE // 4) + random.getrandbits(2)
    return target if sixty_four else target | (random.getrandbits(32) << 32)


def places() -> Iterator[int]:
    """Addresses for programs, one after the other."""
    address = CODE
    while True:
        yield address
        address += STRIDE


def drawn() -> list[Instruction]:
    """The declared instructions that are drawn at random, but those of facilities that MSR turns on."""
    return [one for one in INSTRUCTIONS if one.mnemonic not in ELSEWHERE | MNEMONICS]
