"""Cases of one instruction, made from the project's own table of instructions.

Every declared instruction is drawn, whatever is declared; what a case must look like so that it ends (a branch's
target, an address in the memory block) is read off the instruction's fields and what its meaning does. Forms that
the book calls invalid are left out: their results are boundedly undefined.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

import chronovisor.isa.meanings  # noqa: F401 - declares every instruction
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import REGISTERS, SPR_READ, SPR_WRITE

from .case import (
    BACKGROUND,
    BLOCK,
    CODE,
    FSCR_DSCR,
    FSCR_TAR,
    MSR_ME,
    MSR_SF,
    STRIDE,
    Case,
)
from .operands import ALL, MEMORY_PATTERNS, value, values, xer

INPUTS = 4
"""Cases that share one program: QEMU translates it once."""

ELSEWHERE = frozenset(
    # Ends the case, changes translation or the clock, or has no one answer: cases of their own, or none.
    "rfid hrfid rfscv mtmsr mtmsrd stop darn mftb sc scv attn tlbie tlbiel tlbsync slbia slbie slbieg slbmte slbmfee "
    "slbmfev slbfee. slbsync msgsnd msgclr msgsndp msgclrp msgsync ptesync wait urfid "
    "nap doze sleep rvwinkle".split()
)
"""Mnemonics that are not drawn at random."""

MEMORY_OPERATIONS = frozenset({"load", "store", "load_reserved", "store_conditional", "zero_block", "probe"})

_OTHER_SPRS = (0, 4, 5, 6, 7, 14, 16, 60, 258, 300, 400, 512, 700, 900, 1000)
_UNCOMPARED_SPRS = frozenset(
    # Registers whose value QEMU's machine, not the book, decides: time, performance monitoring, the processor's own.
    name
    for name, register in REGISTERS.items()
    if register.live
    or name.startswith(("MMCR", "PMC", "S", "PSSCR", "CTRL", "PIR", "DPDES", "IC"))
    and name[:4] != "SPRG"
) - {"SRR0", "SRR1"}
SPR_NUMBERS = tuple(
    sorted(
        {number for number, r in {**SPR_READ, **SPR_WRITE}.items() if r.name not in _UNCOMPARED_SPRS}
        | set(_OTHER_SPRS)
    )
)

MODES = (MSR_SF | MSR_ME, MSR_SF | MSR_ME | 1, MSR_ME, MSR_ME | 1)


@cache
def operations(instruction: Instruction, statics: tuple[int, ...]) -> frozenset[str]:
    """What the instruction's meaning does, by operation; a register that it sets as "set NAME"."""
    return frozenset(
        f"set {statement.detail}" if statement.op == "set" else statement.op
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
                bits = random.choice((0, 1, -1, 1 << field.width - 1)) & ((1 << field.width) - 1)
            numbers[field.name] = (bits - (bits >> (field.width - 1) << field.width)) << field.shift
        else:
            numbers[field.name] = bits << field.shift
    if "SPR" in numbers:
        numbers["SPR"] = random.choice(SPR_NUMBERS)
    if "FXM" in numbers and instruction.fixed and random.getrandbits(3):
        numbers["FXM"] = 1 << random.getrandbits(3)
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
    if name == "lmw":
        numbers["RT"] = max(numbers["RT"], 1)
        numbers["RA"] = random.randrange(numbers["RT"])
    if name in ("lswi", "lswx"):
        # The registers loaded must not include those of the address: at most 32 bytes, registers far apart.
        numbers["RT"], numbers["RA"] = 16 + random.getrandbits(2), random.getrandbits(3)
        if "RB" in numbers:
            numbers["RB"] = 8 + random.getrandbits(2)
        if "NB" in numbers:
            numbers["NB"] = random.getrandbits(5)


def _registers(instruction: Instruction, numbers: dict[str, int]) -> list[int]:
    return sorted({number for name, number in numbers.items() if FIELDS[name].kind is Kind.GPR})


def _aim(
    random: Random, instruction: Instruction, numbers: dict[str, int], gpr: list[int], sixty_four: bool
) -> bool:
    """Set the registers of an address so that it lies in the memory block; False where these fields cannot."""
    ea = BLOCK + 64 + random.getrandbits(6)
    if random.getrandbits(1):
        ea &= ~15
    junk = 0 if sixty_four else random.getrandbits(32) << 32
    ra = numbers.get("RA", 0)
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
            gpr[ra] = (ea >> 1) + junk & ALL
        else:
            gpr[rb] = value(random)
            gpr[ra] = (ea - gpr[rb] + junk) & ALL
    elif ra:
        gpr[ra] = (ea + junk) & ALL
    else:
        return False
    return True


def _branch_fields(random: Random, numbers: dict[str, int], address: int) -> None:
    """Let the branch land on the trap or in the zeros behind it (an illegal instruction, at a known place)."""
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
    out = []
    for _ in range(inputs):
        gpr = list(BACKGROUND)
        used = _registers(chosen, numbers)
        for number, drawn in zip(used, values(random, len(used)), strict=True):
            gpr[number] = drawn
        lr, ctr = (value(random), value(random))
        if doing & MEMORY_OPERATIONS and not _aim(random, chosen, numbers, gpr, bool(msr >> 63)):
            break
        if "set NIA" in doing and "LI" not in numbers and "BD" not in numbers:
            lr, ctr, tar = (_target(random, address, bool(msr >> 63)) for _ in range(3))
        else:
            tar = value(random)
            if "set CTR" in doing:
                ctr = random.choice((0, 1, 2, 1 << 32, (1 << 32) + 1, ctr))
        out.append(
            Case(
                words=(chosen.encode(**numbers),),
                address=address,
                msr=msr,
                gpr=tuple(gpr),
                cr=random.getrandbits(32),
                xer=xer(random),
                lr=lr,
                ctr=ctr,
                sprs=(
                    *values(random, 4),
                    value(random),
                    random.getrandbits(32),
                    tar,
                    random.getrandbits(32),
                    0,
                )
                + (FSCR_TAR | FSCR_DSCR,),
                memory=random.choice(MEMORY_PATTERNS),
            )
        )
    return out


def _target(random: Random, address: int, sixty_four: bool) -> int:
    target = address + 4 * random.randrange(1, STRIDE // 4) + random.getrandbits(2)
    return target if sixty_four else target | random.getrandbits(32) << 32


def places() -> Iterator[int]:
    """Addresses for programs, one after the other."""
    address = CODE
    while True:
        yield address
        address += STRIDE


def drawn() -> list[Instruction]:
    """The declared instructions that are drawn at random."""
    return [one for one in INSTRUCTIONS if one.mnemonic not in ELSEWHERE]
