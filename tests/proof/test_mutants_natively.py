"""Each counterexample to a wrong switch goes wrong natively, too, and to the same tick."""

import functools
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("llvmlite")

from chronovisor.proof import switch
from chronovisor.proof.prover import Outcome, examine
from chronovisor.timebase.clock import HostClock, SteppingTime
from chronovisor.timebase.offset import shift
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import GRANULE, MASK64

from .mutants import RIGHT, WRONG, AnyShift
from .native_shift import moved


class ScriptedTime(SteppingTime):
    """A clock with given readings, which counts them."""

    def __init__(self, readings: list[int]) -> None:
        super().__init__()
        self.readings = readings
        self.taken = 0

    def ticks(self) -> int:
        self.taken += 1
        return self.readings[min(self.taken, len(self.readings)) - 1]


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path))


def concretely(shifter: AnyShift, delta: int, readings: list[int]) -> tuple[int, int]:
    """What `moved` gives, by the shifter as Python runs it."""
    time = ScriptedTime(readings)
    core = CoreTimebase(HostClock(time))
    shifter(core, delta)
    return core.adjust & MASK64, time.taken


def case_of(values: dict[str, int]) -> tuple[int, list[int]]:
    """A counterexample's offset, and the readings of its clock."""
    readings = [value for name, value in values.items() if name.startswith("H at reading")]
    return values["offset / 2^24"] * GRANULE, readings


@functools.cache
def counterexample(name: str) -> dict[str, int]:
    finding = examine(partial(switch.entry, shifter=WRONG[name]))
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    return finding.counterexample.values


def test_there_are_thirty() -> None:
    assert len(WRONG) >= 30


@pytest.mark.parametrize("name", WRONG)
def test_a_counterexample_goes_wrong_natively_to_the_same_tick(name: str) -> None:
    offset, readings = case_of(counterexample(name))
    by_python = concretely(WRONG[name], offset, readings)
    assert by_python[0] != offset, "the guest's time is right"
    assert moved(WRONG[name], offset, readings) == by_python


@pytest.mark.parametrize("name", ["the production switch", *RIGHT])
def test_where_wrong_ones_fail_right_ones_do_not_natively_either(name: str) -> None:
    right: AnyShift = RIGHT.get(name, shift)
    for wrong in WRONG:
        offset, readings = case_of(counterexample(wrong))
        if readings[-1] - readings[0] < GRANULE:
            assert moved(right, offset, readings)[0] == offset
            assert concretely(right, offset, readings)[0] == offset
