"""The campaign that explores every order of steps."""

from __future__ import annotations

from typing import Any

import pytest
from proof.test_virtual_core import LeavesAlone

from chronovisor.campaigns import interleavings
from chronovisor.campaigns.campaign import Answer, CampaignError, Failure, Result
from chronovisor.campaigns.interleavings import CAMPAIGN
from chronovisor.proof.paths import explore
from chronovisor.proof.virtual_core import any_order


def run(**chosen: int) -> tuple[Answer, list[Failure]]:
    given = {**CAMPAIGN.parameters, **chosen}
    course, results, found = CAMPAIGN.course(0, given, False), list[Result](), list[Failure]()
    batch = next(course)
    while True:
        results = [CAMPAIGN.perform(0, given, part) for part in batch.parts]
        found += [failure for result in results for failure in result.found]
        try:
            batch = course.send(results)
        except StopIteration as stop:
            return stop.value, found


@pytest.mark.parametrize(("reduced", "states"), [(0, 130), (1, 120)])
def test_it_meets_the_states_that_one_process_meets(reduced: int, states: int) -> None:
    answer, found = run(threads=3, reduced=reduced)
    assert not found
    assert answer.data["whole"]
    assert answer.data["states"] == sum(answer.data["levels"]) == states
    # The same states depth first, as the prover explores them.
    met: set[Any] = set()

    def body(case: Any) -> None:
        merge = case.merge

        def noted(state: Any) -> None:
            met.add(state())
            merge(state)

        case.merge = noted
        any_order(case, threads=3, reduced=bool(reduced))

    assert len(list(explore(body, 60))) == answer.data["ends"] == 3
    assert len(met) == states


def test_a_broken_requirement_ends_it_with_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def sabotaged(case: Any, **world: Any) -> None:
        any_order(case, **world, world_switch=LeavesAlone)

    monkeypatch.setattr(interleavings, "any_order", sabotaged)
    answer, found = run(threads=3)
    assert not answer.data["whole"]
    assert found
    given = {**CAMPAIGN.parameters, "threads": 3}
    again = CAMPAIGN.replay(0, given, found[0].case)
    assert again.fails
    assert any("run the guest" in line for line in again.story)
    # The right code does not fail in this case.
    monkeypatch.undo()
    assert not CAMPAIGN.replay(0, given, found[0].case).fails


@pytest.mark.parametrize("chosen", [{"threads": 0}, {"threads": 9}, {"reduced": 2}, {"may_refuse": 3}])
def test_parameters_that_make_no_sense_are_refused(chosen: dict[str, int]) -> None:
    with pytest.raises(CampaignError, match=next(iter(chosen))):
        CAMPAIGN.course(0, {**CAMPAIGN.parameters, **chosen}, False)


@pytest.mark.parametrize("case", [[], {"step 1: who continues": 7}, {"step 1: who continues": "x"}])
def test_a_case_that_makes_no_sense_is_refused(case: Any) -> None:
    with pytest.raises(CampaignError, match="this is no case"):
        CAMPAIGN.replay(0, {**CAMPAIGN.parameters, "threads": 2}, case)


@pytest.mark.soak
def test_all_orders_and_those_that_are_left_have_the_same_ends() -> None:
    ends = [run(threads=6, reduced=reduced)[0].data["ends"] for reduced in (0, 1)]
    assert ends == [6, 6]
