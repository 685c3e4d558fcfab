"""The campaign `proofs`: every claim of `chronovisor prove`, a task each, with an hour and not a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from chronovisor.campaigns.campaign import (
    Answer,
    Batch,
    CampaignError,
    Course,
    Failure,
    Json,
    Parameters,
    Replay,
    Result,
)
from chronovisor.proof.claims import CLAIMS, claim
from chronovisor.proof.paths import NotACase, follow
from chronovisor.proof.prover import Outcome, Verdict, prove

HOUR: Final = 3600


@dataclass(frozen=True)
class Proofs:
    """See the module's text."""

    name: str = "proofs"
    unit: str = "claims"
    parameters: Parameters = field(default_factory=lambda: {"seconds": HOUR})
    time_limit: float = 24.0 * HOUR

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course: a task for each claim."""
        longest = int(self.time_limit) // 4
        if not 1 <= given["seconds"] <= longest:
            raise CampaignError(
                f"seconds={given['seconds']}: each claim, and each of its limits, has 1 to {longest}"
            )
        return self._course()

    def _course(self) -> Course:
        results = yield Batch([one.name for one in CLAIMS], len(CLAIMS))
        rows = [("claim", "promise", "outcome", "tight", "paths", "s")]
        rows += [tuple(result.data["row"]) for result in results]
        return Answer(rows, [result.data for result in results])

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Prove one claim."""
        verdict = prove(claim(part), given["seconds"])
        row = (
            part,
            verdict.claim.promise,
            verdict.outcome.value,
            ("yes" if verdict.is_tight else "NO") if verdict.tight else "",
            str(verdict.finding.paths),
            f"{verdict.seconds:.1f}",
        )
        return Result(1, {"claim": part, "holds": verdict.holds, "row": row}, _found(verdict))

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Follow the counterexample of a claim; or prove the claim once more, if it was undecided."""
        try:
            one, values = claim(case["claim"]), case["values"]
            if values is None:
                verdict = prove(one, given["seconds"])
                return Replay(not verdict.holds, tuple(failure.words for failure in _found(verdict)))
            course = follow(one.body, values)
        except (KeyError, TypeError, NotACase) as error:
            raise CampaignError(f"this is no case of {self.name}: {error}") from None
        return Replay(course.broken is not None, course.story)


def _found(verdict: Verdict) -> tuple[Failure, ...]:
    if verdict.holds:
        return ()
    name, finding = verdict.claim.name, verdict.finding
    values = None
    if finding.outcome is Outcome.REFUTED and finding.counterexample is not None:
        words, values = (
            f"{name} is refuted: {finding.counterexample.requirement}",
            finding.counterexample.values,
        )
    elif finding.limit is not None:
        words = f"{name} is undecided: {finding.limit}"
    else:
        words = f"{name} is {verdict.outcome.value}, or not shown to be tight"
    return (Failure(words, {"claim": name, "values": values}),)


CAMPAIGN: Final = Proofs()
