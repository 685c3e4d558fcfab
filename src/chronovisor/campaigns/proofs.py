"""The campaign `proofs`: every claim of `chronovisor prove`, a task each, with an hour and not a minute.

A claim is proven in a process without other threads (`python -m chronovisor.campaigns.proofs CLAIM SECONDS`).
In a worker, any of Dask's threads may collect Python's garbage. If it frees terms of z3 while the task's
thread makes others, z3 gives wrong answers or ends the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

from chronovisor.campaigns import task_process
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
from chronovisor.proof.prover import Claim, Outcome, Verdict, prove
from chronovisor.report.bars_picture import draw

HOUR: Final = 3600
MODULE: Final = "chronovisor.campaigns.proofs"


@dataclass(frozen=True)
class Proofs:
    """See the module's text."""

    name: str = "proofs"
    unit: str = "claims"
    parameters: Parameters = field(default_factory=lambda: {"seconds": HOUR})
    shared: Sequence[str] = ()
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
        bars = [(result.data["claim"], result.data["seconds"]) for result in results]
        picture = partial(draw, bars, "How long each claim's proof took", "s", logarithmic=True)
        return Answer(rows, [result.data for result in results], draw=picture if bars else None)

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Prove one claim, in a process of its own."""
        ended = task_process.run(MODULE, part, str(given["seconds"]), limit=self.time_limit)
        if ended.returncode:
            *_, last = ["it says nothing", *ended.stderr.strip().splitlines()]
            raise ChildProcessError(f"the proof's process ends with status {ended.returncode}: {last}")
        return Result.from_json(json.loads(ended.stdout))

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


def proven(one: Claim, seconds: float) -> Result:
    """Prove a claim in this process, in so many seconds."""
    verdict = prove(one, seconds)
    row = (
        one.name,
        one.promise,
        verdict.outcome.value,
        ("yes" if verdict.is_tight else "NO") if verdict.tight else "",
        str(verdict.finding.paths),
        f"{verdict.seconds:.1f}",
    )
    data = {"claim": one.name, "holds": verdict.holds, "seconds": verdict.seconds, "row": row}
    return Result(1, data, _found(verdict))


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

if __name__ == "__main__":
    print(json.dumps(asdict(proven(claim(sys.argv[1]), float(sys.argv[2])))))
