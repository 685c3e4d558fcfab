"""Page tables of every page size, permissions, keys, R and C: both evaluators against QEMU."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from handlers import ensure
from soak import new_seed

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.isa.bits import LPCR

from . import generate, translated
from .case import MSR_SF
from .image import PROCESS_TABLE
from .ours import Evaluator
from .qemu import run_among
from .qemu_errata import compared

CASES = 1_500
SETTING = {"LPCR": int(LPCR.HR | LPCR.UPRT | LPCR.GTSE), "PATE1": PROCESS_TABLE}


@pytest.mark.oracle
@pytest.mark.usefixtures("qemu")
def test_translated_cases_end_as_in_qemu() -> None:
    compare_cases(new_seed(), CASES)


def compare_cases(seed: int, count: int) -> int:
    """Compare about so many cases; the number of cases."""
    sides = [Evaluator(engine, SETTING) for engine in (ConcreteEngine, NativeEngine)]
    tables = [translated.Tables(Random(seed), side.memory) for side in sides]
    cases = translated.cases(Random(seed), tables[0], generate.places(), count)
    ensure((word, (bool(case.msr & MSR_SF), case.little)) for case in cases for word in case.words)
    outcomes, left = run_among(cases, tables[0].contents())
    seen: Counter[int] = Counter()
    for side, among in zip(sides, tables, strict=True):
        for case, outcome in zip(cases, outcomes, strict=True):
            found = side.evaluate(case)
            assert compared(case, outcome, found) is None, (
                f"CHRONOVISOR_SEED={seed}: {compared(case, outcome, found)}"
            )
            seen[outcome.vector] += 1
        assert among.contents() == left, f"CHRONOVISOR_SEED={seed}: the tables are not QEMU's"
    assert min(seen[vector] for vector in (0x300, 0x380, 0x400, 0x700)) > count // 30
    return len(cases)
