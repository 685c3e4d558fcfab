"""Claims and what becomes of them: proven, refuted or undecided.

A proof says nothing where its assumptions can never hold together, so each claim's are shown to hold in a
case, and that case is run on ints. And it says little where its limit could be wider, so a claim may come
with companions that are *tight*: the same claim with its limit moved by one, which has to be refuted. Every
counterexample is run on ints through the very code that the claim is about before it is believed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from chronovisor.proof.paths import Body, Broken, Course, NotACase, Undecided, explore, follow
from chronovisor.proof.symbolic_int import BeyondProverError
from chronovisor.proof.terms import BitVectors, Terms

TIMEOUT = 60.0
"""Seconds that each claim may take, and each of its companions, unless the user says otherwise."""

MINIMISING = 10.0
"""Seconds for making the numbers of a refuted claim's counterexample small."""


class Outcome(Enum):
    """What became of a claim; only `PROVEN` is a pass."""

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
    """The symbolic run of a claim and its run on ints disagree: the prover itself is wrong."""


@dataclass(frozen=True, slots=True)
class Tight:
    """A claim with one limit moved by one: it has to be refuted."""

    words: str
    body: Body


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of production code, in words and as a body that runs that code."""

    name: str
    promise: str
    """The promise that it is part of: P1 to P9."""
    words: str
    body: Body
    tight: tuple[Tight, ...] = ()
    terms: Terms = field(default_factory=BitVectors)
    """The arithmetic to prove it in."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A case in which a requirement does not hold; it was seen to fail on ints too."""

    requirement: str
    values: dict[str, int]
    story: tuple[str, ...] = ()
    """What happens in it, as its run on ints told it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one body."""

    outcome: Outcome
    seconds: float
    paths: int = 0
    assumptions: tuple[str, ...] = ()
    counterexample: Counterexample | None = None
    limit: str | None = None
    """What the prover ran into where it is undecided."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a claim and of its companions."""

    claim: Claim
    finding: Finding
    tight: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """What became of the claim itself."""
        return self.finding.outcome

    @property
    def is_tight(self) -> bool:
        """Whether every companion was refuted."""
        return all(finding.outcome is Outcome.REFUTED for finding in self.tight)

    @property
    def holds(self) -> bool:
        """Whether the claim is proven and each of its limits tight."""
        return self.outcome.is_pass and self.is_tight

    @property
    def seconds(self) -> float:
        """The time that the claim and its companions took."""
        return self.finding.seconds + sum(finding.seconds for finding in self.tight)


def examine(
    body: Body, timeout: float = TIMEOUT, terms: Terms | None = None, minimising: float = 0.0
) -> Finding:
    """Find out whether every requirement of `body` holds in every case that meets its assumptions. The
    numbers of a counterexample are made small for at most `minimising` seconds.

    Raises `ProverError` where a case found by the prover goes otherwise on ints.
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
