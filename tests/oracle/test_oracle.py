"""QEMU is asked anew: a few thousand cases in `make test`, a million in the campaign `oracle`."""

from __future__ import annotations

from random import Random

import pytest
from soak import new_seed

from .campaign import run
from .case import BACKGROUND, CODE, MSR_LE, MSR_ME, MSR_SF, STRIDE, Case
from .generate import places
from .operands import MEMORY_PATTERNS
from .programs import cases as program_cases
from .qemu import run_batch

pytestmark = pytest.mark.usefixtures("qemu")

SAMPLE = 4_000


@pytest.mark.oracle
def test_sample_made_anew() -> None:
    seed = new_seed()
    report = run(seed, SAMPLE)
    assert report.cases >= SAMPLE
    assert not report.missing, f"CHRONOVISOR_SEED={seed}: only QEMU executes {report.lacks}"
    assert not report.mismatches, f"CHRONOVISOR_SEED={seed}: {report.summary()}"


def _case(number: int, words: tuple[int, ...], msr: int) -> Case:
    return Case(
        words=words,
        address=CODE + number * STRIDE,
        msr=msr,
        gpr=BACKGROUND,
        cr=0,
        xer=0,
        lr=0,
        ctr=0,
        sprs=(0,) * 10,
        memory=MEMORY_PATTERNS[0],
    )


@pytest.mark.oracle
def test_harness_by_hand() -> None:
    """Answers that need no evaluator to be known: the harness itself can be trusted."""
    big, little = MSR_SF | MSR_ME, MSR_SF | MSR_ME | MSR_LE
    load = 0x8060_6010  # lwz r3,0x6010(0)
    words = [((load,), big), ((load,), little), ((0x4400_0002,), big), ((0x0000_0000,), little), ((), big)]
    answers = run_batch([_case(n, *each) for n, each in enumerate(words)])
    assert [answer.gpr[3] for answer in answers[:2]] == [0x1011_1213, 0x1312_1110]
    assert [answer.vector for answer in answers] == [0x700, 0x700, 0xC00, 0x700, 0x700]
    assert [answer.srr0 - CODE - n * STRIDE for n, answer in enumerate(answers)] == [4, 4, 4, 0, 0]
    assert answers[3].srr1 == little | (1 << 19)
    assert answers[4].srr1 == big | (1 << 17)
    assert all(answer.memory == MEMORY_PATTERNS[0] for answer in answers)


@pytest.mark.oracle
def test_one_case_leaves_nothing_to_the_next() -> None:
    random, place = Random(5), places()
    made = [case for _ in range(200) for case in program_cases(random, place)]
    together = run_batch(made)
    assert run_batch(made[::-1]) == together[::-1]
