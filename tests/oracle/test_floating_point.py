"""QEMU computes what the floating-point instructions of ours do, FPSCR included."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from soak import new_seed

from chronovisor.isa.bits import FPSCR, MSR
from chronovisor.isa.decode import decode

from . import floating_point
from .case import Case, Outcome
from .floating_point import STATUS, Seen, before, seen, word
from .floating_point_errata import EXEMPTIONS, compared
from .generate import places
from .ours import Evaluator
from .qemu import run_batch

pytestmark = pytest.mark.usefixtures("qemu")

INPUTS = 6


def _where(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.vector, outcome.srr0, outcome.srr1


def compare_words(seed: int, rounds: int) -> int:
    """Compare so many words of each instruction; the number of cases."""
    random, place = Random(seed), places()
    made = [
        case
        for instruction in floating_point.instructions()
        for _ in range(rounds)
        for case in floating_point.cases(random, place, instruction, INPUTS)
    ]
    evaluator = Evaluator()
    wrong = []
    for case, answer in zip(made, run_batch(made), strict=True):
        found = evaluator.evaluate(case)
        if _where(found) != _where(answer):
            wrong.append(f"{word(case):#010x} ends at {_where(found)}, QEMU's at {_where(answer)}")
        elif said := compared(case, seen(answer), seen(found)):
            wrong.append(said)
    assert not wrong, f"CHRONOVISOR_SEED={seed}: {len(wrong)} of {len(made)} cases differ:\n" + "\n".join(
        wrong[:10]
    )
    return len(made)


@pytest.mark.oracle
def test_sample_of_every_instruction() -> None:
    count = len(floating_point.instructions())
    assert count >= 60
    assert compare_words(new_seed(), 1) == count * INPUTS


def _drawn() -> Case:
    (instruction,) = (one for one in floating_point.instructions() if one.mnemonic == "fadd")
    (case,) = floating_point.cases(Random(1), places(), instruction, 1)
    return case


@pytest.mark.parametrize("change", [{"target": 1 << 64}, {"fpscr": int(FPSCR.VXIMZ)}, {"cr": 1}])
def test_a_wrong_answer_is_seen(change: dict[str, int]) -> None:
    right = Seen(0, 0, 0)
    assert compared(_drawn(), right, right) is None
    assert compared(_drawn(), right, replace(right, **change)) is not None


def test_every_exemption_names_instructions() -> None:
    names = [one.mnemonic for one in floating_point.instructions()]
    for exemption in EXEMPTIONS:
        assert any(exemption.names(name) for name in names), exemption.reason


@pytest.mark.oracle
def test_enabled_exceptions_interrupt() -> None:
    """With MSR[FE0,FE1] on, both end at the instruction that raised the exception, or nowhere."""
    random, place = Random(new_seed()), places()
    made = []
    for instruction in floating_point.instructions():
        if instruction.mnemonic.startswith(("fadd", "fdiv", "fsqrt", "fcti", "fmadd", "fcmpo")):
            for case in floating_point.cases(random, place, instruction, 4):
                enabled = int(FPSCR.VE | FPSCR.ZE | FPSCR.XE) | before(case, STATUS) & FPSCR.RN
                memory = enabled.to_bytes(8, "big") + case.memory[8:]
                made.append(replace(case, memory=memory, msr=case.msr | int(MSR.FE0 | MSR.FE1)))
    evaluator = Evaluator()
    interrupts = 0
    for case, answer in zip(made, run_batch(made), strict=True):
        found = evaluator.evaluate(case)
        assert _where(found) == _where(answer), f"{decode(word(case))} {word(case):#010x}"
        if answer.srr1 & 1 << 20:
            interrupts += 1
            assert case.words[(answer.srr0 - case.address) // 4] == word(case)
    assert len(made) >= 60
    assert interrupts > len(made) // 4


@pytest.mark.parametrize("enable", [FPSCR.OE, FPSCR.XE])
def test_an_enabled_exception_of_an_element_leaves_a_vector_alone(enable: FPSCR) -> None:
    """QEMU sets the target, so it cannot say."""
    (instruction,) = (one for one in floating_point.instructions() if one.mnemonic == "xvadddp")
    largest = 0x7FEF_FFFF_FFFF_FFFF
    for case in floating_point.cases(Random(3), places(), instruction, 1):
        for status, stays in ((0, False), (int(enable), True)):
            operands = (largest << 64 | largest).to_bytes(16, "big") * 4
            memory = status.to_bytes(8, "big") + case.memory[8:16] + operands + case.memory[80:]
            found = seen(Evaluator().evaluate(replace(case, memory=memory)))
            assert (found.target == largest << 64 | largest) is stays
            assert bool(found.fpscr & FPSCR.OX)
