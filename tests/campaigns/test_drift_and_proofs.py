"""The campaigns `drift` and `proofs`."""

from __future__ import annotations

from typing import Any

import pytest

from chronovisor.campaigns import drift, proofs
from chronovisor.campaigns.campaign import Answer, Campaign, CampaignError, Failure
from chronovisor.proof.claims import claim
from chronovisor.proof.prover import Claim
from chronovisor.report.drift import CONTENDERS, Contender, Ours, run
from chronovisor.timebase.types import Offset


def answered(campaign: Campaign, **chosen: int) -> tuple[Answer, list[Failure]]:
    given = {**campaign.parameters, **chosen}
    course = campaign.course(1, given, False)
    results = [campaign.perform(1, given, part) for part in next(course).parts]
    with pytest.raises(StopIteration) as stop:
        course.send(results)
    return stop.value.value, [failure for result in results for failure in result.found]


def test_each_seed_is_the_experiment_of_the_docs() -> None:
    answer, found = answered(drift.CAMPAIGN, seeds=2, hops=300)
    assert not found
    assert len(answer.data) == len(answer.table) - 1 == len(drift.COURSES)
    for one, (letter, downtime, bias) in zip(answer.data, drift.COURSES, strict=True):
        contender = next(contender for contender in CONTENDERS if contender.letter == letter)
        courses = [run(contender, downtime, bias, 300, seed) for seed in (1, 2)]
        assert one["largest_error_ticks"] == max(course.largest_error for course in courses)
        assert one["steps_back"] == sum(course.steps_back for course in courses)
    backs = {one["rule"]: one["steps_back"] for one in answer.data if one["downtime_ms"] == 2}
    assert backs["b"] > 0 == backs["d"]


def test_a_rule_that_breaks_a_promise_is_found_at_its_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Ours):
        hops = 0

        def choose(self, move: Any) -> tuple[Offset, int]:
            offset, wait = super().choose(move)
            self.hops += 1
            return (
                offset + Offset(0) if self.hops < 77 else Offset((offset.value - (1 << 26)) % 2**64)
            ), wait

    wrong = (Contender("d", "wrong", Wrong),)
    monkeypatch.setattr(drift, "CONTENDERS", wrong)
    monkeypatch.setattr(drift, "COURSES", (("d", 2, 0),))
    _, found = answered(drift.CAMPAIGN, seeds=1, hops=100)
    assert {failure.case["hops"] for failure in found} == {77}
    again = drift.CAMPAIGN.replay(1, {}, found[0].case)
    assert again.fails
    assert again.story[0].startswith("hop 77 advanced the guest by -")
    with pytest.raises(CampaignError, match="this is no case"):
        drift.CAMPAIGN.replay(1, {}, {"rule": "z"})


def test_claims_are_proven_and_refuted_ones_are_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "CLAIMS", (claim("switch-zero"),))
    with monkeypatch.context() as elsewhere:
        # A proof in a worker's own process can go wrong: see the module's text.
        elsewhere.setattr(proofs, "prove", None)
        answer, found = answered(proofs.CAMPAIGN)
    assert not found
    assert [(one["claim"], one["holds"]) for one in answer.data] == [("switch-zero", True)]
    right = claim("switch-entry")
    wrong = Claim("wrong", right.promise, "one tick too many", right.tight[0].body)
    result = proofs.proven(wrong, 60)
    monkeypatch.setattr(proofs, "claim", {"wrong": wrong}.__getitem__)
    assert result.found[0].words.startswith("wrong is refuted: ")
    assert proofs.CAMPAIGN.replay(1, {}, result.found[0].case).fails
    with pytest.raises(CampaignError, match="this is no case"):
        proofs.CAMPAIGN.replay(1, {}, {"claim": "none", "values": {}})
    with pytest.raises(ChildProcessError, match="KeyError: 'none'"):
        proofs.CAMPAIGN.perform(1, proofs.CAMPAIGN.parameters, "none")


@pytest.mark.parametrize("campaign", [drift.CAMPAIGN, proofs.CAMPAIGN], ids=lambda one: one.name)
def test_parameters_that_make_no_sense_are_refused(campaign: Campaign) -> None:
    for name in campaign.parameters:
        with pytest.raises(CampaignError, match=name):
            campaign.course(1, {**campaign.parameters, name: 0}, False)
