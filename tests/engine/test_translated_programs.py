"""A guest can never harm us: random page tables and translated programs, native code against the concrete
evaluator, whose translations the independent walk confirms. See `engine/translated`.
"""

from __future__ import annotations

import re

import pytest

from .translated.hunt import Caught, hunt
from .translated.mutants import MUTANTS
from .translated.worlds import STARTS

PROGRAMS = 10_000


def test_ten_thousand_translated_programs() -> None:
    found = hunt(0, PROGRAMS // STARTS)
    assert found["starts"] == PROGRAMS
    # Of each of these there was enough to compare.
    assert found["instructions"] > 30 * PROGRAMS
    assert found["native_walks"] > PROGRAMS
    assert found["translations"] - found["faults"] > PROGRAMS
    assert found["open"] < PROGRAMS // 20
    for name in (
        "DATA_STORAGE",
        "INSTRUCTION_STORAGE",
        "DATA_SEGMENT",
        "PROGRAM",
        "DELAYED_PROGRAM",
        "ALIGNMENT",
        "SYSTEM_CALL",
    ):
        assert found[f"interrupt {name}"] > PROGRAMS // 100, name


def test_translated_programs_with_regions() -> None:
    """The same, with a region at a random place of each page of code."""
    worlds = 20
    found = hunt(5_000_000, worlds, regions=True)
    assert found["starts"] == worlds * STARTS
    assert found["regions"] > found["starts"]


def test_translated_programs_in_lines() -> None:
    """The same, in lines from the first instruction on."""
    worlds = 30
    found = hunt(6_000_000, worlds, lines=True)
    assert found["starts"] == worlds * STARTS
    assert found["lines"] > 1000 * found["starts"]


_FOUND_AT_ONCE = "tlbie_of_a_page_forgets_nothing"


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(name, marks=() if name == _FOUND_AT_ONCE else pytest.mark.soak)
        for name in sorted(MUTANTS.keys() - {"crash", "hang"})
    ],
)
def test_a_mutant_is_found(mutant: str) -> None:
    with pytest.raises(Caught, match=r"seed \d+"):
        hunt(0, PROGRAMS // STARTS, mutant)


def test_a_crash_is_caught_and_reduced() -> None:
    with pytest.raises(
        Caught, match=re.compile(r"start 0: died of SIGSEGV at instruction 1\n.*--start 0", re.S)
    ):
        hunt(0, 1, "crash")


@pytest.mark.soak
def test_a_hang_is_caught() -> None:
    with pytest.raises(Caught, match="start 0: it hangs"):
        hunt(0, 1, "hang", timeout=8)
