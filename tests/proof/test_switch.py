"""The claims about the switch: refuted of every wrong one, proven of every right one."""

from contextlib import suppress
from functools import partial

import pytest

from chronovisor.proof import switch
from chronovisor.proof.paths import NotACase, replay
from chronovisor.proof.prover import Outcome, examine
from chronovisor.timebase.offset import shift
from chronovisor.timebase.types import GRANULE, MASK64, Offset

from .mutants import RIGHT, WRONG, AnyShift


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_switch_is_refuted_by_a_case_that_the_right_one_passes(name: str) -> None:
    wrong = WRONG[name]
    body = partial(switch.entry, shifter=wrong)
    finding = examine(body)
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    values = finding.counterexample.values
    # On ints and a CoreTimebase, as it would run.
    assert replay(body, values) == finding.counterexample.requirement
    with suppress(NotACase):  # its accesses may be more, and come too late
        assert replay(switch.entry, values) is None


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_switch_is_proven(name: str) -> None:
    assert examine(partial(switch.entry, shifter=RIGHT[name])).outcome is Outcome.PROVEN


def test_an_exit_that_adds_is_refuted() -> None:
    def adding(tb, delta):  # type: ignore[no-untyped-def]
        return shift(tb, -delta & MASK64)

    assert examine(partial(switch.exit_, shifter=adding)).outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    "wrong", [WRONG["the wrap check taken out"], WRONG["compared in 23 bits"], WRONG["always carried"]]
)
def test_the_detection_of_long_switches_does_not_excuse_a_wrong_one(wrong: AnyShift) -> None:
    assert examine(partial(switch.entry_at_any_pace, shifter=wrong)).outcome is Outcome.REFUTED
    assert examine(partial(switch.exit_at_any_pace, shifter=wrong)).outcome is Outcome.REFUTED


def test_a_switch_that_writes_nothing_out_of_nothing_is_told_from_one_that_writes_what_is_there() -> None:
    def always(tb, delta):  # type: ignore[no-untyped-def]
        tb.write_tbu40((tb.read() + delta) & MASK64)
        return shift(tb, 0)

    finding = examine(partial(switch.zero, shifter=always))
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == "it goes through without NoTbu40Error"


@pytest.mark.parametrize(
    "rounded",
    [
        lambda value: Offset(value & -GRANULE & MASK64),
        lambda value: Offset((value + GRANULE // 2) & -GRANULE & MASK64),
        lambda value: Offset((value + GRANULE) & -GRANULE & MASK64),
        lambda value: Offset((value + GRANULE - 1) & (-2 * GRANULE) & MASK64),
        lambda value: Offset(value),
    ],
    ids=["down", "nearest", "always up", "to 2^25", "not"],
)
def test_another_rounding_is_refuted(rounded) -> None:  # type: ignore[no-untyped-def]
    assert examine(partial(switch.rounding_up, rounded=rounded)).outcome is Outcome.REFUTED
