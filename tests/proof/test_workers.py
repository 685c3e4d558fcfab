"""Claims proven in processes of their own: every one gets its verdict, whatever it does."""

import multiprocessing
import os
import time
from contextlib import suppress

import pytest

from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Outcome, ProverError, Tight, Verdict
from chronovisor.proof.workers import prove_each


def holds(case: Case) -> None:
    case.require("it is small", case.any("x", 0, 9) < 10)


def sleeps(case: Case) -> None:
    time.sleep(1000)


def sleeps_long(case: Case) -> None:
    time.sleep(1000)


def dies(case: Case) -> None:
    os._exit(3)


def contradicts(case: Case) -> None:
    x = case.any("x", 0, 9)
    case.require("it is small", x < 10 if type(x) is not int else x < 0)


def claim(name: str, *bodies) -> Claim:  # type: ignore[no-untyped-def]
    body, *tight = bodies
    return Claim(name, "P1", name, body, tuple(Tight("moved", one) for one in tight))


def proven(*claims: Claim, processes: int = 2) -> list[Verdict]:
    return list(prove_each(claims, 60, processes, "fork"))


@pytest.fixture(autouse=True)
def no_patience_with_who_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's speed: who sleeps is ended soon, the others never."""
    monkeypatch.setattr(
        "chronovisor.proof.workers._Worker._limit",
        lambda self, claim: 0.3 if claim.body is sleeps else 600,
    )


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_verdicts_come_in_order_whoever_stops_or_dies(processes: int) -> None:
    claims = [
        claim("one", holds),
        claim("two", sleeps, holds),
        claim("three", holds),
        claim("four", dies),
        claim("five", holds, holds),
    ]
    verdicts = proven(*claims, processes=processes)
    assert [verdict.claim for verdict in verdicts] == claims
    two, four = verdicts[1], verdicts[3]
    assert [v.outcome for v in verdicts if v not in (two, four)] == [Outcome.PROVEN] * 3
    assert two.outcome is four.outcome is Outcome.UNDECIDED
    assert two.finding.limit == "time-out of 60 s, and it did not stop then"
    assert four.finding.limit == "its process died"
    assert not two.holds
    assert len(two.tight) == 1


def test_a_prover_that_contradicts_itself_is_told() -> None:
    with pytest.raises(ProverError):
        proven(claim("wrong", contradicts))


def test_who_stops_asking_leaves_no_process_behind() -> None:
    before = set(multiprocessing.active_children())
    claims = (claim("one", holds), claim("two", sleeps_long), claim("three", sleeps_long))
    verdicts = prove_each(claims, 60, 2, "fork")
    assert next(verdicts).outcome is Outcome.PROVEN
    with suppress(AttributeError):
        verdicts.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= before
