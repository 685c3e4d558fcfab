"""Native code gives the answers that QEMU gave, and the ones that the concrete evaluator gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronovisor.engine.native.engine import NativeEngine

from .campaign import Report, compare
from .ours import Evaluator
from .store import load

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.xz"))


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(NativeEngine)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_are_native_codes_too(path: Path, evaluator: Evaluator) -> None:
    report = Report()
    cases, answers = zip(*load(path), strict=True)
    compare(list(cases), list(answers), evaluator, report)
    assert not report.mismatches, report.summary()
