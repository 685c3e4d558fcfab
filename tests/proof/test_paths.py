"""Choices, merged states, small counterexamples and stories."""

import pytest

from chronovisor.proof.paths import Broken, Case, NotACase, explore, follow, replay
from chronovisor.proof.prover import Outcome, examine
from chronovisor.proof.terms import BitVectors, Integers, Terms


def ends(body, **more) -> list[dict[str, int]]:  # type: ignore[no-untyped-def]
    return [path.witness() or {} for path in explore(body, 10, **more)]


def test_every_choice_is_explored_once() -> None:
    def body(case: Case) -> None:
        first = case.choose("first", lambda: range(3))
        if first:
            case.choose("second", lambda: range(first))

    taken = [tuple(values.values()) for values in ends(body)]
    assert sorted(taken) == [(0,), (1, 0), (2, 0), (2, 1)]


def test_a_choice_that_a_case_does_not_have_is_no_case() -> None:
    def body(case: Case) -> None:
        case.require("it is even", case.choose("number", lambda: (2, 4)) % 2 == 0)

    assert replay(body, {}) is None
    assert replay(body, {"number": 4}) is None
    with pytest.raises(NotACase, match="3 is not among"):
        replay(body, {"number": 3})


def test_choices_and_decisions_together() -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        if case.choose("which", lambda: range(2)):
            case.require("it is not small", x >= 5 or x < 3)

    with pytest.raises(Broken) as broken:
        ends(body)
    assert broken.value.values["which"] == 1
    assert broken.value.values["x"] in (3, 4)
    assert replay(body, broken.value.values) == "it is not small"


def test_a_state_that_was_reached_before_is_not_explored_again() -> None:
    """Steps in any order: 2^5 orders of choices, but a dozen states."""
    visited: list[int] = []

    def body(case: Case) -> None:
        state = 0
        for step in range(5):
            case.merge(lambda now=(step, state): now)
            state += case.choose(f"step {step}", lambda: (0, 1))
        visited.append(state)
        case.require("it is below 6", state < 6)

    assert len(ends(body)) < 32
    assert set(visited) == set(range(6))


def test_what_breaks_behind_a_merge_is_found() -> None:
    def body(case: Case) -> None:
        state = 0
        for step in range(8):
            case.merge(lambda now=(step, state): now)
            state += case.choose(f"step {step}", lambda: (0, 1))
        case.require("it is not 4", state != 4)

    finding = examine(body)
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert sum(finding.counterexample.values.values()) == 4


@pytest.mark.parametrize("terms", [BitVectors(), Integers()])
def test_a_counterexample_has_small_numbers(terms: Terms) -> None:
    def body(case: Case) -> None:
        a = case.any("a", -1000, 1 << 60)
        b = case.any("b", 0, 1 << 60, a)
        c = case.any("c", 0, 1 << 60, b)
        case.assume("one follows the other", (a <= b) & (b <= c))
        case.require("they are close", c - a < 1000)

    finding = examine(body, terms=terms, minimising=10)
    assert finding.counterexample is not None
    assert finding.counterexample.values == {"a": 0, "b": 0, "c": 1000}


def test_where_there_is_no_time_for_small_numbers_there_is_a_counterexample_all_the_same() -> None:
    def body(case: Case) -> None:
        case.require("it is less", case.any("x", 0, 1 << 60) * 3 < 1 << 40)

    for minimising in (0, 1e-9, 1e-3):
        finding = examine(body, minimising=minimising)
        assert finding.counterexample is not None
        assert replay(body, finding.counterexample.values) == "it is less"


def test_a_story_is_told_of_one_case_and_of_no_other() -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        case.tell(lambda: f"x is {x}")
        case.require("it is below 7", x < 7)

    assert follow(body, {"x": 8}).story == ("x is 8",)
    finding = examine(body, minimising=1)
    assert finding.counterexample is not None
    assert finding.counterexample.story == ("x is 7",)
