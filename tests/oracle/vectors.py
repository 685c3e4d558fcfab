"""Cases of floating-point, vector and vector-scalar instructions, whose facilities are on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from engine.drawn import draw_elements

from chronovisor.isa.facilities.rows import MNEMONICS
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction

from . import floating_point, generate
from .case import MSR_FP, MSR_VEC, MSR_VSX, Case, Vectors

_VSCRS = (0, 1, 0x10000, 0x10001)


def drawn() -> list[Instruction]:
    """The instructions of facilities that have meanings, but those that test_floating_point.py compares."""
    elsewhere = {one.mnemonic for one in floating_point.instructions()}
    return [one for one in INSTRUCTIONS if one.mnemonic in MNEMONICS - elsewhere]


def cases(random: Random, place: Iterator[int], chosen: Instruction, inputs: int) -> list[Case]:
    """`inputs` cases of one encoding of `chosen`."""
    while True:
        made = generate.cases(random, place, chosen, inputs)
        if len(made) == inputs:  # registers could hold the address
            return [_with_vectors(random, case) for case in made]


def _with_vectors(random: Random, case: Case) -> Case:
    vsr: list[int] = []
    for _ in range(64):
        # Now and then equal to another one, but for a sign.
        if vsr and not random.getrandbits(3):
            vsr.append(random.choice(vsr) ^ (random.getrandbits(1) << random.choice((31, 63, 95, 127))))
        else:
            vsr.append(random.choice((draw_elements, floating_point.operand))(random))
    vectors = Vectors(tuple(vsr), random.choice(_VSCRS), 0)
    return replace(case, msr=case.msr | MSR_FP | MSR_VEC | MSR_VSX, vectors=vectors)
