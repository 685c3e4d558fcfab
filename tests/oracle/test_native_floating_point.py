"""Native code does with floating-point numbers what the concrete evaluator does, FPSCR included.

The concrete evaluator is compared with QEMU in test_floating_point.py. Cases begin with any rounding mode,
and now and then with exceptions enabled or already there.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from handlers import ensure

from chronovisor.engine.concrete import Stop
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.operations import is_native
from chronovisor.engine.native.state import NativeThread
from chronovisor.isa.bits import MSR
from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import Instruction

from . import floating_point
from .case import MSR_SF, Case
from .floating_point import seen, word
from .generate import places
from .ours import Evaluator

_SAMPLE_TEXT = """
    fadd fadds fmul fdivs fmadd fnmsubs fsqrt frsp fctiwz fctid fcfid fcfids frin fcmpu fcmpo fsel
    xsadddp xvadddp xvmaddasp xscmpudp xvcmpgedp xvmaxsp xscvdpsp xvrdpic mffs mtfsf mcrfs
"""
SAMPLE = frozenset(_SAMPLE_TEXT.split())
"""Every way in which instructions use the operations of IEEE arithmetic; `engines` takes all of them."""
INPUTS = 60


class Counting(NativeEngine):
    """Counts how often native code left an instruction to the concrete evaluator, by the instruction."""

    left = 0

    def _run_concrete(self, state: NativeThread, budget: int) -> Stop:
        if "ieee" in operations(self.memory.read(state.CIA, 4)):
            Counting.left += 1
        return super()._run_concrete(state, budget)


def operations(bytes_of_word: bytes) -> set[str]:
    """What the instruction with this word does, by the names of operations."""
    one = decode(number := int.from_bytes(bytes_of_word, "big"))
    if one is None:
        return set()
    return {statement.op for statement in one.program(one.meaning_statics(number)).statements()}


def compare_words(instructions: list[Instruction], seed: int) -> int:
    """Compare a word of each instruction; the number of cases."""
    random, place = Random(seed), places()
    cases: list[Case] = []
    for one in instructions:
        assert is_native(one.program(tuple(0 for _ in one.statics))), one.mnemonic
        cases += floating_point.cases(random, place, one, INPUTS)
    ensure((word, (bool(case.msr & MSR_SF), case.little)) for case in cases for word in case.words)
    concrete, native = Evaluator(), Evaluator(Counting)
    Counting.left = computing = 0
    for number, case in enumerate(cases):
        if number % 4 == 0:  # MSR lets enabled exceptions interrupt
            case = replace(case, msr=case.msr | int(MSR.FE0 | MSR.FE1))
        found, expected = native.evaluate(case), concrete.evaluate(case)
        assert found == expected, f"{decode(word(case))} {word(case):#x}: {seen(found)}, not {seen(expected)}"
        computing += "ieee" in operations(word(case).to_bytes(4, "big"))
    assert computing > len(cases) // 2
    # The operands are chosen to be unusual: what programs compute with is hardly ever left.
    assert Counting.left < computing * 3 // 4
    return len(cases)


def test_sample_of_instructions() -> None:
    found = [one for one in floating_point.instructions() if one.mnemonic in SAMPLE]
    assert len(found) >= len(SAMPLE)
    compare_words(found, 1)


def hosted() -> list[Instruction]:
    """Return the instructions that native code has."""
    return [
        one for one in floating_point.instructions() if is_native(one.program(tuple(0 for _ in one.statics)))
    ]
