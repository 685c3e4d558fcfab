"""Every powerpc test of kvm-unit-tests, in both byte orders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .harness import Result, run
from .sources import COMPILERS, Unavailable, Unit, build, fetch, units

pytestmark = pytest.mark.soak

PASSED, SKIPPED = 1, 77 << 1 | 1
"""The statuses with which a guest powers off: the test's own, and one bit."""

#: All units of the list, and how many single tests each has to pass at least.
UNITS = {
    "selftest-setup": 2,
    "selftest-migration": 2,
    "selftest-migration-skip": 1,
    "migration-memory": 1,
    "spapr_hcall": 10,
    "spapr_vpa": 13,
    "rtas-get-time-of-day": 10,
    "rtas-get-time-of-day-base": 10,
    "rtas-set-time-of-day": 5,
    "emulator": 4,
    "interrupts": 28,
    "mmu": 3,
    "smp": 4,
    "smp-smt": 4,
    "smp-thread-single": 4,
    "atomics": 12,
    "atomics-migration": 1,
    "timebase": 11,
    "timebase-icount": 11,
    "h_cede_tm": 0,
    "sprs": 75,
    "sprs-migration": 74,
    "sieve": 0,
}
#: Of which the test says that there is nothing to test.
NO_TRANSACTIONS = "h_cede_tm"
#: What units find on a busy machine alone.
BUSY_MACHINE = {
    # Its delay of 1000 times a millisecond takes more than 4.2 s: a decrementer of 32 bits has wrapped then.
    "FAIL: timebase: dec: decrementer remains within TB after 1s",
    # The date is asked for before the machine starts, which takes longer.
    "FAIL: rtas: get-time-of-day: accuracy (< 3s)",
}
TRIES = 5
#: QEMU's options for these are our virtual time: the clock counts instructions, one vCPU runs at a time.
VIRTUAL = ("timebase-icount", "smp-thread-single")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return fetch(tmp_path_factory.mktemp("kvm-unit-tests"))
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=COMPILERS)
def built(request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(checkout, request.param, tmp_path_factory.mktemp("built") / request.param)
    except Unavailable as error:
        pytest.skip(str(error))


def _run(folder: Path, unit: Unit, virtual: bool = False) -> Result:
    """Run a unit, some times if all that it finds is that the machine is busy."""
    for _ in range(TRIES):
        result = run(folder, unit, virtual)
        if not result.lines("FAIL") or not BUSY_MACHINE.issuperset(result.lines("FAIL")):
            break
    return result


def _passed(result: Result, least: int) -> None:
    assert not result.lines("FAIL"), result.output[-3000:]
    assert result.status == PASSED, result.output[-3000:]
    assert len(result.lines("PASS")) >= least, result.output[-3000:]


def test_the_list_is_complete(checkout: Path) -> None:
    assert set(units(checkout)) == set(UNITS)


@pytest.mark.parametrize("name", UNITS)
def test_unit(name: str, built: Path, checkout: Path) -> None:
    unit = units(checkout)[name]
    result = _run(built, unit, virtual=name in VIRTUAL)
    if name == NO_TRANSACTIONS:
        assert result.lines("SKIP") == ["SKIP: tm: TM is not available"]
        return
    _passed(result, UNITS[name])
    assert bool(result.moves) == ("migration" in name and "skip" not in name)


def test_the_timebase_over_moves(built: Path, checkout: Path) -> None:
    """An option of the test that the list does not use: it asks for a move between its steps."""
    unit = replace(units(checkout)["timebase"], arguments="-w")
    result = _run(built, unit)
    _passed(result, UNITS["timebase"] + 1)
    assert result.moves >= 6
