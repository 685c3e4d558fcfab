"""Floating-point, vector and vector-scalar instructions do what QEMU's do: all registers are compared."""

from __future__ import annotations

from random import Random

import pytest
from soak import new_seed, share

from chronovisor.isa.decode import decode

from . import vectors
from .campaign import Report, compare
from .generate import places
from .ours import Evaluator
from .qemu import run_batch

pytestmark = pytest.mark.usefixtures("qemu")

IN_TEST, IN_SOAK, INPUTS = 2, share(400), 4


def _compare(encodings: int) -> None:
    seed = new_seed()
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


@pytest.mark.oracle
def test_each_instruction() -> None:
    _compare(IN_TEST)


@pytest.mark.oracle
@pytest.mark.soak
def test_each_instruction_often() -> None:
    for _ in range(IN_SOAK):
        _compare(10)
