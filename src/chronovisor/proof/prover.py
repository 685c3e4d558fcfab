"""Claims, and their outcome: proven, refuted or undecided.

A proof means nothing if its assumptions can never hold together. So the prover finds a case in which each
claim's assumptions hold, and runs it on ints. A proof means little if its limit could be wider. So a claim
may have *tight* companions: the same claim with its limit moved by one, which must be refuted. Every
counterexample is run on ints, through the code that the claim is about, before it is reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from chronovisor.proof.paths import Body, Broken, Course, NotACase, Undecided, explore, follow
from chronovisor.proof.symbolic_bool import BeyondProverError
from chronovisor.proof.terms import BitVectors, Terms

TIMEOUT = 60.0
"""Seconds for each claim and for each of its companions, unless the user gives another number."""

MINIMISING = 10.0
"""Seconds for making the numbers of a refuted claim's counterexample small."""


class Outcome(Enum):
    """The outcome of a claim. Only `PROVEN` is a pass."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    VACUOUS = "vacuous"
    """Its assumptions never hold together, so it says nothing."""

    @property
    def is_pass(self) -> bool:
        """Whether it is proven."""
        return self is Outcome.PROVEN


class ProverError(Exception):
    """The symbolic run of a claim and its run on ints disagree, so the prover itself is wrong."""


@dataclass(frozen=True, slots=True)
class Tight:
    """A claim with one limit moved by one, or one rule left out. It must be refuted."""

    words: str
    body: Body


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed about production code, in words, and as a body that runs that code."""

    name: str
    promise: str
    """The promise that the claim is part of: P1 to P9."""
    words: str
    body: Body
    tight: tuple[Tight, ...] = ()
    terms: Terms = field(default_factory=BitVectors)
    """The arithmetic in which it is proven."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A case in which a requirement does not hold, on ints too."""

    requirement: str
    values: dict[str, int]
    story: tuple[str, ...] = ()
    """What happens in it, a line each, from its run on ints."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome for one body."""

    outcome: Outcome
    seconds: float
    paths: int = 0
    assumptions: tuple[str, ...] = ()
    counterexample: Counterexample | None = None
    limit: str | None = None
    """The limit that was reached, if the outcome is undecided."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcomes of a claim and of its companions."""

    claim: Claim
    finding: Finding
    tight: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """The outcome of the claim itself."""
        return self.finding.outcome

    @property
    def is_tight(self) -> bool:
        """Whether every companion was refuted."""
        return all(finding.outcome is Outcome.REFUTED for finding in self.tight)

    @property
    def holds(self) -> bool:
        """Whether the claim is proven and each of its limits is tight."""
        return self.outcome.is_pass and self.is_tight

    @property
    def seconds(self) -> float:
        """The time that the claim and its companions took."""
        return self.finding.seconds + sum(finding.seconds for finding in self.tight)


def examine(
    body: Body, timeout: float = TIMEOUT, terms: Terms | None = None, minimising: float = 0.0
) -> Finding:
    """Decide whether every requirement of `body` holds in every case that meets its assumptions. Making the
    numbers of a counterexample small takes `minimising` seconds at most.

    Raises `ProverError` if a case that the prover found ends differently on ints.
    """
    begun = time.monotonic()
    paths, required = 0, 0
    assumptions: dict[str, None] = {}

    def found(
        outcome: Outcome, counterexample: Counterexample | None = None, limit: str | None = None
    ) -> Finding:
        return Finding(outcome, time.monotonic() - begun, paths, tuple(assumptions), counterexample, limit)

    try:
        for path in explore(body, timeout, terms, minimising=minimising):
            assumptions.update(path.assumptions)
            if not path.is_one_case:
                witness = path.witness()
                if witness is None:
                    continue
                _agree(body, witness, None)
            paths += 1
            required += path.required
    except Broken as broken:
        story = _agree(body, broken.values, broken.words).story
        return found(Outcome.REFUTED, Counterexample(broken.words, broken.values, story))
    except Undecided as undecided:
        return found(Outcome.UNDECIDED, limit=f"{undecided}, {paths} paths done")
    except BeyondProverError as error:
        return found(Outcome.UNDECIDED, limit=str(error))
    return found(Outcome.PROVEN if required else Outcome.VACUOUS)


def prove(claim: Claim, timeout: float = TIMEOUT) -> Verdict:
    """Examine a claim and its companions, each within `timeout` seconds."""
    return Verdict(
        claim,
        examine(claim.body, timeout, claim.terms, MINIMISING),
        tuple(examine(tight.body, timeout, claim.terms) for tight in claim.tight),
    )


def _agree(body: Body, values: dict[str, int], expected: str | None) -> Course:
    try:
        course = follow(body, values)
    except NotACase as error:
        raise ProverError(f"on ints the case {values} does not meet: {error}") from error
    if course.broken != expected:
        raise ProverError(
            f"on ints the case {values} breaks {course.broken or 'nothing'}, "
            f"symbolically {expected or 'nothing'}"
        )
    return course
