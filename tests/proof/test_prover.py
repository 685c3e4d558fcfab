"""The prover itself: what it calls proven, refuted, undecided and vacuous."""

import pytest

from chronovisor.proof.paths import Case, Path, explore
from chronovisor.proof.prover import Claim, Outcome, ProverError, Tight, examine, prove
from chronovisor.proof.terms import Integers


def absolute(x: int) -> int:
    return -x if x < 0 else x


def never_negative(case: Case) -> None:
    case.require("it is not negative", absolute(case.any("x", -100, 100)) >= 0)


def below_a_hundred(case: Case) -> None:
    case.require("it is below 100", absolute(case.any("x", -100, 99)) < 100)


def test_a_claim_is_proven_along_every_path() -> None:
    finding = examine(never_negative)
    assert (finding.outcome, finding.paths) == (Outcome.PROVEN, 2)


def test_a_claim_is_refuted_by_a_case_on_whichever_path_has_one() -> None:
    finding = examine(below_a_hundred)
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == "it is below 100"
    assert finding.counterexample.values == {"x": -100}


def test_a_claim_whose_assumptions_never_hold_together_is_vacuous() -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        case.assume("it is odd", x % 2 == 1)
        case.assume("it is even", x % 2 == 0)
        case.require("anything", x > 10)

    assert examine(body).outcome is Outcome.VACUOUS


def test_a_claim_that_requires_nothing_is_vacuous() -> None:
    assert examine(lambda case: case.assume("so", case.any("x", 0, 9) > 2)).outcome is Outcome.VACUOUS


def test_an_assumption_is_taken_and_told() -> None:
    def body(case: Case) -> None:
        x = case.any("x", -100, 99)
        case.assume("it is not the least", x != -100)
        case.require("it is below 100", absolute(x) < 100)

    finding = examine(body)
    assert (finding.outcome, finding.assumptions) == (Outcome.PROVEN, ("it is not the least",))


def test_too_hard_in_the_time_is_undecided_and_no_pass() -> None:
    def factors(case: Case) -> None:
        a, b = case.any("a", 2, 2**64), case.any("b", 2, 2**64)
        case.require("they are not its factors", a * b != (2**61 - 1) * (2**62 + 135))

    finding = examine(factors, timeout=0.3)
    assert finding.outcome is Outcome.UNDECIDED
    assert finding.limit == "time-out of 0.3 s, 0 paths done"
    assert not finding.outcome.is_pass


def test_too_many_paths_are_undecided() -> None:
    def body(case: Case) -> None:
        for n in range(20):
            if case.any(f"x{n}", 0, 1):
                pass

    with pytest.raises(Exception, match="more than 8 paths"):
        list(explore(body, 10, limit=8))


@pytest.mark.parametrize("terms", [None, Integers()])
def test_what_the_code_raises_refutes_the_claim(terms: Integers | None) -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        if x == 7:
            raise ZeroDivisionError
        case.require("it is not 7", x != 7)

    finding = examine(body, terms=terms)
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert finding.counterexample.values == {"x": 7}
    assert finding.counterexample.requirement == "it goes through without ZeroDivisionError"


def test_a_case_that_goes_otherwise_on_ints_is_no_proof() -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        case.require("it is small", x < (5 if isinstance(case, Path) else 10))

    with pytest.raises(ProverError, match=r"on ints the case \{'x': .\} breaks nothing"):
        examine(body)


def test_a_proof_whose_witness_fails_on_ints_is_no_proof() -> None:
    def body(case: Case) -> None:
        x = case.any("x", 0, 9)
        case.require("it is small", x < (10 if isinstance(case, Path) else 0))

    with pytest.raises(ProverError, match="on ints"):
        examine(body)


def test_a_claim_with_a_limit_that_could_be_wider_does_not_hold() -> None:
    loose = Claim("loose", "P1", "it is", never_negative, (Tight("moved", never_negative),))
    verdict = prove(loose)
    assert verdict.outcome is Outcome.PROVEN
    assert not verdict.is_tight
    assert not verdict.holds
    assert prove(Claim("tight", "P1", "it is", never_negative, (Tight("moved", below_a_hundred),))).holds
