"""Cases of short programs: 5 to 20 instructions, with forward branches, loads and stores, CR and XER users.

Data lives in r0 and r3 to r12, which any instruction may change; addresses lie in registers that none
changes, but for r20, which update forms move a little. Instructions whose results the book leaves undefined
stay out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from random import Random

from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.instruction import Instruction

from .case import BACKGROUND, BLOCK, MSR_BE, MSR_SE, Case
from .generate import (
    CONDITIONAL_STORES,
    MEMORY_OPERATIONS,
    MODES,
    draw_fields,
    drawn,
    initial,
    is_update,
    operations,
)
from .operands import values
from .qemu_errata import QEMU, UNDEFINED

DATA = (0, *range(3, 13))
MOVING, BASE, INDEX, ALIGNED = 20, 21, 22, 23
"""r20 moves with update forms; r21 is the block's middle; r22 a small index; r23 one in steps of 16."""

_SPRS_WRITTEN = (8, 9, 26, 27, 272, 273, 274, 275, 815, 19)
"""Not XER, whose reserved bits may be kept or dropped, nor those of 32 bits, of which QEMU keeps 64."""
KEPT_SPRS = (8, 9, 17, 19, 26, 27, 272, 273, 274, 275, 815, 804, 805, 806)
"""Registers of which both sides keep the bits that the book defines."""
_SPRS_READ = (1, 18, 256, *_SPRS_WRITTEN)
_STRING_OR_MULTIPLE = frozenset(("lmw", "lswi", "lswx", "stswx", "stswi", "stmw"))
_SIZES = {"b": 1, "h": 2, "w": 4, "d": 8, "q": 16, "m": 4, "s": 4, "c": 1}

_bl_next, _mflr, _mtctr, _bctr = 0x4800_0005, 0x7C08_02A6, 0x7C09_03A6, 0x4E80_0420


@cache
def _pools() -> dict[str, tuple[Instruction, ...]]:
    unclear = {name for entry in (*UNDEFINED, *QEMU) for name in entry.mnemonics}
    pools: dict[str, list[Instruction]] = {"plain": [], "memory": [], "branch": []}
    for one in drawn():
        doing = (
            operations(one, tuple(0 for _ in one.statics))
            if "SPR" not in one.statics
            else frozenset(("get",))
        )
        names = {field.name for field in one.fields}
        if one.mnemonic in unclear or one.mnemonic in _STRING_OR_MULTIPLE:
            continue
        if "set NIA" in doing:
            if names & {"LI", "BD"}:
                pools["branch"].append(one)
        elif doing & MEMORY_OPERATIONS:
            if "get MSR" not in doing and "RA" in names and names & {"D", "DS", "DQ", "RB"}:
                pools["memory"].append(one)
        elif "interrupt" not in doing:
            pools["plain"].append(one)
    return {name: tuple(pool) for name, pool in pools.items()}


def pool(name: str) -> tuple[Instruction, ...]:
    """The declared instructions of a kind: "plain", "memory" (addressed by registers) or "branch"."""
    return _pools()[name]


def _plain(random: Random, one: Instruction) -> int:
    numbers = draw_fields(random, one)
    for name in numbers:
        if FIELDS[name].kind is Kind.GPR:
            numbers[name] = random.choice(DATA)
    if one.mnemonic == "or" and numbers["RS"] == numbers["RA"] == numbers["RB"]:
        numbers["RB"] = DATA[1] if numbers["RA"] != DATA[1] else DATA[2]  # else a hint: see NOT_DRAWN
    if "SPR" in numbers:
        numbers["SPR"] = random.choice(_SPRS_READ if one.mnemonic == "mfspr" else _SPRS_WRITTEN)
    return one.encode(**numbers)


def _memory(random: Random, one: Instruction, reserved: int) -> int | None:
    name = one.mnemonic
    size = _SIZES.get(name[1] if name[0] == "l" else name[2] if name[:2] == "st" else "b", 1)
    doing = operations(one, tuple(0 for _ in one.statics))
    if doing & {"load_reserved", "store_conditional"} and size != reserved:
        return None
    numbers = draw_fields(random, one)
    register = "RT" if "RT" in numbers else "RS" if "RS" in numbers else None
    if register is not None:
        numbers[register] = random.choice((4, 6, 8, 10) if size == 16 else DATA)
    update = is_update(one)
    numbers["RA"] = (
        MOVING if update else BASE if name in CONDITIONAL_STORES else random.choice((MOVING, BASE))
    )
    for field in ("D", "DS", "DQ"):
        if field in numbers:
            step = max(size, 4)
            reach = (112 if numbers["RA"] == BASE else 32) // step
            numbers[field] = random.choice((-4, 0, 4)) if update else random.randrange(-reach, reach) * step
    if "RB" in numbers:
        numbers["RB"] = ALIGNED if update or size > 1 else INDEX
        if update:
            numbers["RA"], numbers["RB"] = MOVING, INDEX + 2  # r24 is 4: a small step
    return one.encode(**numbers)


def _computed_jump(random: Random) -> list[int]:
    """Code that reads its own address, adds a few words and jumps there, through LR and CTR."""
    skip = random.randrange(3)
    register = random.choice(DATA[1:])
    step = (14 << 26) | (register << 21) | (register << 16) | (16 + 4 * skip)
    filler = [0x6000_0000] * skip
    return [_bl_next, _mflr | (register << 21), step, _mtctr | (register << 21), _bctr, *filler]


def _body(random: Random) -> list[int]:
    pools = _pools()
    length = random.randrange(5, 21)
    # Not 16: QEMU 7.2 never stores in stqcx., which the book allows at any time and which shows nothing.
    reserved = random.choice((1, 2, 4, 8))
    words: list[int] = []
    inside: set[int] = set()  # places that no branch may go to: a computed jump begins at its first word
    branches: list[tuple[int, Callable[[int], int]]] = []
    while len(words) < length:
        kind = random.getrandbits(4)
        if kind < 9 or not pools["memory"]:
            words.append(_plain(random, random.choice(pools["plain"])))
        elif kind < 13:
            word = _memory(random, random.choice(pools["memory"]), reserved)
            if word is not None:
                words.append(word)
        elif kind < 15 and pools["branch"]:
            one = random.choice(pools["branch"])
            numbers = draw_fields(random, one)
            numbers["AA"] = 0
            field = "LI" if "LI" in numbers else "BD"

            def encode(
                offset: int, one: Instruction = one, numbers: dict[str, int] = numbers, f: str = field
            ) -> int:
                return one.encode(**{**numbers, f: offset})

            branches.append((len(words), encode))
            words.append(0)
        elif kind == 15 and random.getrandbits(1):
            jump = _computed_jump(random)
            inside.update(range(len(words) + 1, len(words) + 5))
            words += jump
    for at, encode in branches:
        distance = random.randrange(1, min(8, len(words) - at) + 1)
        while at + distance in inside:
            distance += 1
        words[at] = encode(4 * distance)
    return words


def cases(random: Random, place: Iterator[int], inputs: int = 2, traced: bool = False) -> list[Case]:
    """`inputs` cases of one random program; `traced`: with MSR[SE] or MSR[BE] on, so that it ends early."""
    words = tuple(_body(random))
    address = next(place)
    msr = random.choice(MODES) | (random.choice((MSR_SE, MSR_BE)) if traced else 0)
    out = []
    for _ in range(inputs):
        gpr = list(BACKGROUND)
        for number, drawn_value in zip(DATA, values(random, len(DATA)), strict=True):
            gpr[number] = drawn_value
        junk = 0 if msr >> 63 else random.getrandbits(32) << 32
        gpr[MOVING] = gpr[BASE] = BLOCK + 128 + junk
        gpr[INDEX], gpr[ALIGNED], gpr[INDEX + 2] = random.getrandbits(4), 16 * random.getrandbits(2), 4
        out.append(initial(random, words, address, msr, gpr))
    return out
