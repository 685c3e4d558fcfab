"""Native code gives the answers that QEMU gave, and on cases drawn anew those of the concrete evaluator.

The cases are the oracle's: single instructions, programs with branches and accesses, interrupts, memory
faults, in both byte orders and both widths.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from handlers import ensure

from chronovisor.engine.native.engine import NativeEngine

from . import generate, interrupts, programs
from .campaign import Report, compare, make
from .case import MSR_SF, Case, Outcome
from .ours import Evaluator
from .qemu_errata import label
from .store import load

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.xz"))
STORED_IN_TEST = 3_000
"""Stored answers a file that `make test` compares; the soak compares them all."""
DRAWN_IN_TEST = 4_000


@pytest.fixture(scope="module")
def native() -> Evaluator:
    return Evaluator(NativeEngine)


@pytest.fixture(scope="module")
def concrete() -> Evaluator:
    return Evaluator()


def _compile(cases: list[Case]) -> None:
    ensure((word, (bool(case.msr & MSR_SF), case.little)) for case in cases for word in case.words)


def _replay(answers: list[tuple[Case, Outcome]], native: Evaluator) -> None:
    report = Report()
    cases, outcomes = zip(*answers, strict=True)
    _compile(list(cases))
    compare(list(cases), list(outcomes), native, report)
    assert not report.mismatches, report.summary()
    assert report.cases == len(answers)
    assert not report.lacks


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_are_native_codes_too(path: Path, native: Evaluator) -> None:
    answers = list(load(path))
    step = max(1, len(answers) // STORED_IN_TEST)
    _replay(answers[FILES.index(path) % step :: step], native)


@pytest.mark.soak
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_all_answers_are_native_codes_too(path: Path, native: Evaluator) -> None:
    _replay(list(load(path)), native)


def compare_drawn(seed: int, count: int, native: Evaluator, concrete: Evaluator) -> int:
    """Compare about so many cases of a seed; the number of cases."""
    cases = _drawn(seed, count)
    _compile(cases)
    # Cases of words that nothing decodes would compare two illegal instructions.
    assert sum(label(case) == "unknown word" for case in cases) < len(cases) // 20
    for case in cases:
        found, expected = native.evaluate(case), concrete.evaluate(case)
        assert found == expected, f"{label(case)} at {case.address:#x}: {[hex(word) for word in case.words]}"
    return len(cases)


def _drawn(seed: int, count: int) -> list[Case]:
    """Half of them the campaign's mix, half only programs and interrupts."""
    random = Random(seed)
    cases = make(random, count // 2)
    place = generate.places()
    for maker in cycle((programs.cases, programs.cases, *interrupts.MAKERS)):
        if len(cases) >= count:
            return cases
        cases += maker(random, place)
    raise AssertionError


def test_drawn_cases_end_as_the_concrete_evaluator_has_them(native: Evaluator, concrete: Evaluator) -> None:
    compare_drawn(2024, DRAWN_IN_TEST, native, concrete)
