"""Cases of floating-point, vector and vector-scalar instructions, whose facilities are on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from engine.drawn import draw_elements

from chronovisor.isa.facilities.rows import MNEMONICS
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction

from . import decimals, floating_point, generate
from .case import MSR_FP, MSR_VEC, MSR_VSX, Case, Vectors

_VSCRS = (0, 1, 0x10000, 0x10001)


def drawn() -> list[Instruction]:
    """The instructions of facilities that have meanings, but those that other tests compare."""
    elsewhere = {one.mnemonic for one in (*floating_point.instructions(), *decimals.instructions())}
    return [one for one in INSTRUCTIONS if one.mnemonic in MNEMONICS - elsewhere]


def cases(random: Random, place: Iterator[int], chosen: Instruction, inputs: int) -> list[Case]:
    """`inputs` cases of one encoding of `chosen`."""
    while True:
        made = generate.cases(random, place, chosen, inputs)
        if len(made) == inputs:  # registers could hold the address
            return [_with_vectors(random, case) for case in made]


def _decimal(random: Random) -> int:
    """A packed, zoned or national decimal number, or nearly one."""
    count = random.choice((1, 7, 8, 15, 16, 17, 30, 31, 31))
    digits = [random.choice((0, 9, 9, random.randrange(10))) for _ in range(count)]
    number = int("".join(map(str, digits)), 16)
    kind = random.randrange(8)
    if kind == 0:  # zoned
        zone = random.choice((0x30, 0xF0))
        bytes_ = [zone | (number >> (4 * n) & 0xF) for n in range(16)]
        bytes_[0] = bytes_[0] & 0xF | random.getrandbits(4) << 4
        return sum(byte << (8 * n) for n, byte in enumerate(bytes_))
    if kind == 1:  # national
        characters = (0x30 + (number >> (4 * n) & 0xF) for n in range(7))
        return sum(c << (16 * n) for n, c in enumerate(characters, 1)) | random.choice((0x2B, 0x2D, 0x2A))
    if kind == 2:  # a few digits or bits
        return (
            random.getrandbits(random.choice((4, 7, 64, 103, 128))) << random.choice((0, 64)) & (1 << 128) - 1
        )
    return number << 4 | random.choice((0xA, 0xB, 0xC, 0xD, 0xE, 0xF, 0xC, 0xD, random.getrandbits(4)))


def _with_vectors(random: Random, case: Case) -> Case:
    vsr: list[int] = []
    for _ in range(64):
        # Now and then equal to another one, but for a sign.
        if vsr and not random.getrandbits(3):
            vsr.append(random.choice(vsr) ^ (random.getrandbits(1) << random.choice((31, 63, 95, 127))))
        else:
            draw = random.choice((draw_elements, floating_point.operand, _decimal))
            vsr.append(draw(random))
    vectors = Vectors(tuple(vsr), random.choice(_VSCRS), 0)
    return replace(case, msr=case.msr | MSR_FP | MSR_VEC | MSR_VSX, vectors=vectors)
