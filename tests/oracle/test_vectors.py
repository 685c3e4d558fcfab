"""Floating-point, vector and vector-scalar instructions do what QEMU's do: all registers are compared."""

from __future__ import annotations

from random import Random

import pytest
from soak import new_seed

from chronovisor.isa.decode import decode

from . import vectors
from .campaign import Report, compare
from .generate import places
from .ours import Evaluator
from .qemu import run_batch

pytestmark = pytest.mark.usefixtures("qemu")

IN_TEST, INPUTS = 2, 4


def compare_words(seed: int, encodings: int) -> int:
    """Compare so many words of each instruction; the number of cases."""
    random, place, report = Random(seed), places(), Report()
    chosen = vectors.drawn()
    cases = [
        case for one in chosen for _ in range(encodings) for case in vectors.cases(random, place, one, INPUTS)
    ]
    answers = run_batch(cases)
    compare(cases, answers, Evaluator(), report)
    executed = {
        decode(case.words[0])
        for case, answer in zip(cases, answers, strict=True)
        if answer.vector == 0x700 and answer.srr0 == case.end
    }
    assert executed == set(chosen)
    assert report.cases == len(chosen) * encodings * INPUTS
    assert not report.mismatches, f"CHRONOVISOR_SEED={seed}: {report.summary()}"
    return report.cases


@pytest.mark.oracle
def test_each_instruction() -> None:
    compare_words(new_seed(), IN_TEST)
