"""The outcome of a claim about machine code, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chronovisor.proof.code.assumptions import Apart, Steady, Word
from chronovisor.proof.code.case import as_json as case_as_json
from chronovisor.proof.code.claim import CodeFinding, place_value, value_before
from chronovisor.proof.code.image import CodeImage
from chronovisor.timebase.types import FREQUENCY, MASK64, signed64

_MILLISECONDS = 1000
_MOST_TOLD = 64
"""The most instructions that a story shows."""


def assumed(finding: CodeFinding) -> list[str]:
    """Return the assumptions of a finding: the user's, and those that the prover always makes."""
    claim = finding.claim
    oldest = ", including the age of earlier readings" if claim.oldest else ""
    words = [
        f"fewer than {claim.limit} ticks ({claim.limit / FREQUENCY * _MILLISECONDS:.1f} ms) pass in the range"
        f"{oldest}",
        *map(str, claim.assumptions),
        "the code runs as it is in the file, in hypervisor state, and interrupts leave the timebase, "
        "registers and memory unchanged",
    ]
    if claim.shared is None:
        words.append("no other thread writes the memory that it reads")
    else:
        words.append(
            f"other threads may write {claim.shared} at any moment (unless you assume "
            f"steady({claim.shared})), and no other memory that it reads"
        )
    bases = {place.base for place in _words(finding)}
    if len(bases) > 1 and not any(isinstance(one, Apart) for one in claim.assumptions):
        words.append("words named by different registers may overlap (unless you assume apart(…))")
    return words


def _words(finding: CodeFinding) -> list[Word]:
    claim = finding.claim
    places = [claim.shifts_by, *claim.keeps, claim.remembers]
    places += [one.place for one in claim.assumptions if not isinstance(one, Apart | Steady)]
    return [place for place in places if isinstance(place, Word)]


def story(image: CodeImage, finding: CodeFinding) -> Iterator[str]:
    """Tell a counterexample, a line for each step."""
    run, claim = finding.run, finding.claim
    if run is None:
        return
    places = [claim.shifts_by, *claim.keeps]
    before = ", ".join(f"{place} is {value_before(image, place, run):#x}" for place in dict.fromkeys(places))
    yield f"before: the timebase is {run.case.timebase:#x}, {before}"
    width = max((len(step.place) for step in run.steps), default=0)
    code = max((len(step.text) for step in run.steps), default=0)
    for step in run.steps[:_MOST_TOLD]:
        ticks = f"+{step.ticks}" if step.ticks else ""
        yield f"{ticks:>9}  {step.place:<{width}}  {step.text:<{code}} {step.note}".rstrip()
    if len(run.steps) > _MOST_TOLD:
        yield f"… and {len(run.steps) - _MOST_TOLD} more instructions"
    if not run.reached:
        yield "and it does not reach the end of the range"
        return
    passed = run.live.elapsed
    yield f"at the end, {passed} ticks after the beginning, the timebase is {run.timebase:#x}"
    if finding.requirement == claim.shift_words:
        shift = value_before(image, claim.shifts_by, run)
        wanted = run.case.timebase + passed + (-shift if claim.subtracts else shift)
        yield f"it should be {wanted & MASK64:#x}: it is off by {_signed(run.timebase - wanted)} ticks"
    for place in claim.keeps:
        if finding.requirement == claim.kept_words(place):
            kept = place_value(image, place, run)
            off = _signed(kept - run.timebase)
            told = f"{off} ticks ahead of it" if off > 0 else f"{-off} ticks behind it"
            yield f"and {place} is {kept:#x}: {told}"
    if claim.remembers is not None and finding.requirement == claim.remembered_words:
        kept, shift = place_value(image, claim.remembers, run), run.live.adjust
        done = _signed(-shift if claim.subtracts else shift)
        yield f"and {claim.remembers} is {kept:#x}, but {done:#x} was applied"


def _signed(ticks: int) -> int:
    return signed64(ticks & MASK64)


def as_json(image: CodeImage, finding: CodeFinding) -> dict[str, Any]:
    """Return a finding for JSON."""
    claim, run = finding.claim, finding.run
    return {
        "from": image.place(claim.start),
        "to": image.place(claim.end),
        "claims": list(claim.words),
        "assumptions": assumed(finding),
        "outcome": finding.outcome.value,
        "instructions": finding.instructions,
        "stores": list(finding.stores),
        "seconds": round(finding.seconds, 2),
        "limit": finding.limit,
        "counterexample": None
        if run is None
        else {
            "not_so": finding.requirement,
            "story": list(story(image, finding)),
            **case_as_json(run.case, run),
        },
    }
