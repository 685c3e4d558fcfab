"""Claims about machine code, and the check on ints whether one run meets a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.proof.code.assumptions import Age, Apart, Assumption, Place, Register, Steady, Word
from chronovisor.proof.code.case import CodeRun
from chronovisor.proof.code.image import CodeImage
from chronovisor.proof.prover import Outcome
from chronovisor.timebase.types import GRANULE, MASK64

_DOUBLEWORD = 8

ENDS: Final = "the code comes to the end of the range, or returns"
HALVES: Final = "it writes neither TBU nor TBL"


@dataclass(frozen=True, slots=True)
class CodeClaim:
    """A claim about the code from `start` up to `end`, exclusive."""

    start: int
    end: int
    shifts_by: Place
    """The place whose value is added to the timebase, or subtracted if `subtracts`. Its value is that at the
    beginning of the range; of a word that others may change, that of the first load.
    """
    subtracts: bool = False
    keeps: tuple[Place, ...] = ()
    """Places that at the end hold the timebase as it is then, except for the ticks since it was read."""
    remembers: Place | None = None
    """A place that at the end holds the value that was added or subtracted."""
    assumptions: tuple[Assumption, ...] = ()
    limit: int = GRANULE
    """Fewer ticks than these pass in the range, including the largest age that is assumed."""

    @property
    def shift_words(self) -> str:
        """The requirement on the timebase, in words."""
        done = "less" if self.subtracts else "and"
        return f"at the end the timebase is what it was, the ticks that passed, {done} {self.shifts_by}"

    def kept_words(self, place: Place) -> str:
        """The requirement on a kept time, in words."""
        return f"at the end {place} is the timebase but for the ticks since it was read"

    @property
    def remembered_words(self) -> str:
        """The requirement on the place that remembers, in words."""
        done = "subtracted" if self.subtracts else "added"
        return f"at the end {self.remembers} is what was {done}"

    @property
    def words(self) -> tuple[str, ...]:
        """All requirements, in words."""
        more = () if self.remembers is None else (self.remembered_words,)
        return (self.shift_words, HALVES, *(self.kept_words(place) for place in self.keeps), *more)

    @property
    def shared(self) -> Word | None:
        """The word that other threads may change meanwhile."""
        if isinstance(self.shifts_by, Register) or Steady(self.shifts_by) in self.assumptions:
            return None
        return self.shifts_by

    @property
    def ages(self) -> tuple[Age, ...]:
        """The assumptions about readings made before the range."""
        return tuple(one for one in self.assumptions if isinstance(one, Age))

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place that the claim names."""
        places = [self.shifts_by, *self.keeps, *(() if self.remembers is None else (self.remembers,))]
        for one in self.assumptions:
            places += one.places if isinstance(one, Apart) else [one.place]
        return tuple(dict.fromkeys(places))

    @property
    def oldest(self) -> int:
        """The largest age of a reading at the beginning of the range, in ticks."""
        return max((one.ticks for one in self.ages), default=0)


@dataclass(frozen=True, slots=True)
class CodeFinding:
    """The outcome of a claim."""

    claim: CodeClaim
    outcome: Outcome
    seconds: float
    instructions: int
    """The number of instructions that were followed."""
    limit: str | None = None
    """What stopped the prover, if the outcome is undecided."""
    requirement: str | None = None
    """The requirement that does not hold, if the claim is refuted."""
    run: CodeRun | None = None
    """The run that shows it."""
    stores: tuple[str, ...] = ()
    """The places to which the code stores, in terms of the registers at the beginning."""


def place_value(image: CodeImage, place: Place, run: CodeRun) -> int:
    """Return a place's value at the end of a run."""
    if isinstance(place, Register):
        return run.thread.gpr[place.number]
    return run.thread.memory.load(_address(place, run), _DOUBLEWORD, image.little)


def value_before(image: CodeImage, place: Place, run: CodeRun) -> int:
    """Return a place's value at the beginning of a run."""
    if isinstance(place, Register):
        return run.case.registers[f"r{place.number}"]
    data = bytes(run.case.memory(_address(place, run) + n) for n in range(_DOUBLEWORD))
    return int.from_bytes(data, "little" if image.little else "big")


def _address(place: Word, run: CodeRun) -> int:
    return (run.case.registers[f"r{place.base}"] + place.displacement) & MASK64


def broken(image: CodeImage, claim: CodeClaim, run: CodeRun) -> list[str]:
    """Return the requirements of a claim that a run breaks, on ints."""
    if not run.reached:
        return [ENDS]
    found = []
    sign = -1 if claim.subtracts else 1
    shift = value_before(image, claim.shifts_by, run)
    if (run.live.adjust - sign * shift) & MASK64:
        found.append(claim.shift_words)
    if run.live.halves_written:
        found.append(HALVES)
    for place in claim.keeps:
        age = 0
        if any(one.place == place for one in claim.ages):
            age = (run.case.timebase - value_before(image, place, run)) & MASK64
        if (run.timebase - place_value(image, place, run)) & MASK64 > run.live.elapsed + age:
            found.append(claim.kept_words(place))
    if claim.remembers is not None:
        kept = place_value(image, claim.remembers, run)
        if (run.live.adjust - sign * kept) & MASK64:
            found.append(claim.remembered_words)
    return found
