"""Proves claims about other projects' machine code.

The code between two addresses runs in hypervisor state on unknown registers and memory, with an unknown
number of ticks before each access to time (`unknown_timing`). If a requirement can fail, the concrete
evaluator runs the smallest case found before it is reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final, TypeAlias

import z3

from chronovisor.engine.symbolic import Ending, Reason, SymbolicRunner, SymbolicState
from chronovisor.isa.bits import MSR
from chronovisor.proof.code.assumptions import Age, Apart, Compared, Place, Word
from chronovisor.proof.code.case import CodeCase, CodeRun, Happening, run_case
from chronovisor.proof.code.claim import ENDS, HALVES, CodeClaim, CodeFinding, broken
from chronovisor.proof.code.image import CodeImage
from chronovisor.proof.code.unknown_timing import HOST_AT_START, CodeAddresses, CodeTime, UnsupportedError
from chronovisor.proof.minimal import Number, least_model
from chronovisor.proof.prover import TIMEOUT, Outcome, ProverError

_DOUBLEWORD = 8
_BOUND = 64
"""How often an instruction may be executed on one path."""
_PATIENCE = 0.1
"""The share of the time for one question whether a path is possible."""
_TIMEBASE, _ADDRESS, _FAR = 1 << 32, 0x1000, 0x8000
"""The timebase and the addresses that counterexamples prefer."""
_MINIMISING, _EACH = 8.0, 0.5
"""Seconds for making the numbers of a counterexample small, and for one question about one of them."""
_LIVE: Final = ("DEC", "HDEC", "VTB", "PURR", "SPURR")


@dataclass(slots=True)
class _Refutation:
    requirement: str
    condition: z3.BoolRef
    state: SymbolicState


_Passages: TypeAlias = list[tuple[SymbolicState, dict[str, z3.BoolRef]]]


class _Words(Mapping[int, int]):
    """The instruction words of an image by address."""

    def __init__(self, image: CodeImage) -> None:
        self._image = image

    def __getitem__(self, address: int) -> int:
        word = self._image.word(address)
        if word is None:
            raise KeyError(address)
        return word

    def __iter__(self) -> Iterator[int]:
        return (at for section in self._image.sections for at in range(section.address, section.end, 4))

    def __len__(self) -> int:
        return sum(len(section.data) // 4 for section in self._image.sections)


@dataclass(slots=True)
class _Attempt:
    """One proof in progress."""

    image: CodeImage
    claim: CodeClaim
    deadline: float
    timeout: float
    course: CodeTime = field(init=False)
    before: SymbolicState = field(init=False)
    addresses: CodeAddresses = field(init=False)
    passages: _Passages | _Refutation | str | None = None
    solver: z3.Solver = field(init=False)

    def __post_init__(self) -> None:
        claim = self.claim
        always = tuple(
            one for one in claim.assumptions if isinstance(one, Compared) and one.place == claim.shared
        )
        self.course = CodeTime(self.image, claim.limit, claim.shared, always, self.deadline)
        self.solver = z3.SimpleSolver()
        self.before = SymbolicState.unknown(known={"CIA": claim.start, "MSR": self.msr})
        # The bits that assumptions fix are put in. The assumptions are added to the solver all the same.
        compared = [one for one in claim.assumptions if isinstance(one, Compared)]
        for one in compared:
            if not isinstance(one.place, Word):
                number = one.place.number
                self.before.gpr[number] = one.given(self.before.gpr[number])
        apart = [
            (one.address(self.before), other.address(self.before))
            for assumption in claim.assumptions
            if isinstance(assumption, Apart)
            for one, other in combinations(assumption.places, 2)
        ]
        self.addresses = self.before.addresses = CodeAddresses(apart)
        for one in compared:
            if isinstance(one.place, Word) and one.operator == "=":
                word = one.given(z3.BitVec(f"word {one.place}", 64))
                self.addresses.give(one.place.address(self.before), word, self.image.little)
        self.course.begin(self.before)

    @property
    def msr(self) -> int:
        return int(MSR.SF | MSR.HV | MSR.ME | (MSR.LE if self.image.little else 0))

    def value(self, place: Place, state: SymbolicState) -> z3.BitVecRef:
        return place.value(state, self.before, self.image.little)

    def assumed(self) -> list[z3.BoolRef]:
        """What holds at the beginning of the range."""
        conditions = []
        start = z3.BitVec(HOST_AT_START, 64)
        for one in self.claim.assumptions:
            if isinstance(one, Compared):
                conditions.append(one.holds(self.value(one.place, self.before)))
            elif isinstance(one, Age):
                conditions.append(z3.ULE(start - self.value(one.place, self.before), one.ticks))
            elif isinstance(one, Apart):
                conditions.append(one.holds(self.before))
        return conditions

    def run(self) -> list[Ending]:
        state = self.before.copy()
        for condition in self.assumed():
            state.assume(condition)
        runner = SymbolicRunner(_Words(self.image), self.course, _BOUND, _PATIENCE * self.timeout)
        return runner.run(state, {self.claim.end})

    def required(self, state: SymbolicState) -> Iterator[tuple[str, z3.BoolRef]]:
        """What must hold at the end of the range."""
        claim = self.claim
        start = z3.BitVec(HOST_AT_START, 64)
        now, elapsed, adjust = self.course.timebase(state), state.live["elapsed"], state.live["adjust"]
        shift = self.value(claim.shifts_by, self.before)
        # The limit counts from the oldest reading.
        ages = [start - self.value(one.place, self.before) for one in claim.ages]
        for age in ages:
            state.assume(z3.ULT(elapsed + age, claim.limit))
        yield claim.shift_words, adjust == (-shift if claim.subtracts else shift)
        yield HALVES, state.live["halves written"] == 0
        for place in claim.keeps:
            since = now - self.value(place, state)
            oldest = next(
                (age for one, age in zip(claim.ages, ages, strict=True) if one.place == place),
                z3.BitVecVal(0, 64),
            )
            yield claim.kept_words(place), z3.ULE(since, elapsed + oldest)
        if claim.remembers is not None:
            kept = self.value(claim.remembers, state)
            yield claim.remembered_words, adjust == (-kept if claim.subtracts else kept)

    def check(self, *conditions: z3.BoolRef) -> z3.CheckSatResult:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.solver.set("timeout", max(1, int(left * 1000)))
        return self.solver.check(*conditions)

    def case(self, model: z3.ModelRef) -> CodeCase:
        """The case of a model."""

        def number(term: z3.ExprRef) -> int:
            return int(model.eval(term, model_completion=True).as_long())

        before = self.before
        registers = {f"r{n}": number(term) for n, term in enumerate(before.gpr)}
        registers |= {name: number(before[name]) for name in ("CR", "XER", "LR", "CTR", "LPCR")}
        memory = {number(address): number(byte) for address, byte in self.addresses.bytes}
        shared = self.claim.shared
        return CodeCase(
            self.claim.start,
            self.claim.end,
            self.msr,
            number(z3.BitVec(HOST_AT_START, 64)),
            registers,
            {name: number(before.live[name]) for name in _LIVE},
            lambda address: memory.get(address, 0),
            tuple(
                Happening(event.address, number(event.value), event.changes_memory)
                for event in self.course.events
                if z3.is_true(model.eval(event.path, model_completion=True))
            ),
            None if shared is None else number(shared.address(before)),
        )


def prove_code(image: CodeImage, claim: CodeClaim, timeout: float = TIMEOUT) -> CodeFinding:
    """Decide within `timeout` seconds whether all requirements of a claim hold for the code of an image.

    Raises `ProverError` if a counterexample ends differently in the concrete evaluator.
    """
    findings = []
    for finding in prove_each(image, claim, timeout):
        findings.append(finding)
        if finding.outcome is not Outcome.PROVEN:
            break
    return findings[-1]


def prove_each(image: CodeImage, claim: CodeClaim, timeout: float = TIMEOUT) -> Iterator[CodeFinding]:
    """Decide on each requirement of a claim by itself, in order, all within `timeout` seconds.

    Raises `ProverError` if a counterexample ends differently in the concrete evaluator.
    """
    begun = time.monotonic()
    attempt = _Attempt(image, claim, begun + timeout, timeout)

    def found(outcome: Outcome | str) -> CodeFinding:
        seconds, course = time.monotonic() - begun, attempt.course
        limit = outcome if isinstance(outcome, str) else None
        became = Outcome.UNDECIDED if isinstance(outcome, str) else outcome
        stores = tuple(_stores(attempt))
        return CodeFinding(claim, became, seconds, len(course.passed), limit, stores=stores)

    for words in claim.words:
        try:
            outcome = _examine(attempt, words)
            if isinstance(outcome, _Refutation):
                run = _replayed(attempt, outcome)
                yield replace(found(Outcome.REFUTED), requirement=outcome.requirement, run=run)
            else:
                yield found(outcome)
        except UnsupportedError as error:
            yield found(str(error))
        except TimeoutError:
            yield found(f"time-out of {timeout:g} s")
        except ValueError as error:
            # The symbolic evaluator cannot run code in an unknown mode.
            yield found(str(error))


def _examine(attempt: _Attempt, words: str) -> Outcome | str | _Refutation:
    """The outcome of one requirement; a text says what stopped the prover."""
    passages = attempt.passages
    if passages is None:
        attempt.solver.add(*attempt.assumed())
        if attempt.check() == z3.unsat:
            return Outcome.VACUOUS
        passages = attempt.passages = _passages(attempt)
    if isinstance(passages, _Refutation | str):
        return passages
    for state, required in passages:
        answer = attempt.check(state.path, z3.Not(required[words]))
        if answer == z3.unknown:
            raise TimeoutError
        if answer == z3.sat:
            return _Refutation(words, z3.And(state.path, z3.Not(required[words])), state)
    return Outcome.PROVEN if passages else Outcome.VACUOUS


def _passages(attempt: _Attempt) -> _Passages | _Refutation | str:
    """The states at the end of the range, with their requirements; or why the end may not be reached."""
    passages: _Passages = []
    for ending in attempt.run():
        state = ending.state
        if ending.reason is Reason.REACHED or _returns(attempt, ending):
            # Time may pass before the end too.
            attempt.course.ticks_pass(state)
            required = dict(attempt.required(state))
            # An undecided path is kept, which is sound.
            if attempt.check(state.path) != z3.unsat:
                passages.append((state, required))
            continue
        possible = attempt.check(state.path)
        if possible == z3.unsat:
            continue
        if ending.reason is Reason.BOUND or possible == z3.unknown:
            return f"at {_where(attempt, ending)}: {ending.reason.value} ({_BOUND} times)"
        return _Refutation(ENDS, state.path, state)
    return passages


def _returns(attempt: _Attempt, ending: Ending) -> bool:
    """Whether a path left by returning to the caller, which also ends the range."""
    if ending.reason is not Reason.ELSEWHERE:
        return False
    caller = attempt.before["LR"] & ~3
    return bool(attempt.check(ending.state.path, ending.state["CIA"] != caller) == z3.unsat)


def _where(attempt: _Attempt, ending: Ending) -> str:
    address = z3.simplify(ending.state["CIA"])
    return attempt.image.place(address.as_long()) if z3.is_bv_value(address) else "an address not known"


def _replayed(attempt: _Attempt, refutation: _Refutation) -> CodeRun:
    """The smallest run found that breaks the requirement, confirmed by the concrete evaluator."""
    solver, claim, before = attempt.solver, attempt.claim, attempt.before
    solver.push()
    solver.add(refutation.condition)
    places = claim.places
    bases = {place.base for place in places if isinstance(place, Word)}
    start = z3.BitVec(HOST_AT_START, 64)
    shift = attempt.value(claim.shifts_by, before)
    wishes = [
        z3.UGE(start, _TIMEBASE),
        *(z3.And(z3.UGE(before.gpr[base], _ADDRESS), z3.ULT(before.gpr[base], _FAR)) for base in bases),
        z3.And(*(term == 0 for number, term in enumerate(before.gpr) if number not in bases)),
        # Other threads change the word only if that matters.
        *(event.value == shift for event in attempt.course.events if event.changes_memory),
    ]
    unknowns = [
        refutation.state.live["elapsed"],
        *(event.value for event in attempt.course.events),
        *(start - attempt.value(one.place, before) for one in claim.ages),
        start,
        *(attempt.value(place, before) for place in places),
        *before.gpr,
    ]
    # A return goes to an address without code.
    wishes.append(before["LR"] == _FAR)
    solver.set("timeout", 0)
    if solver.check() != z3.sat:
        raise ProverError(f"a refuted requirement has no counterexample: {refutation.requirement}")
    found = solver.model()
    seconds = min(_MINIMISING, (attempt.deadline - time.monotonic()) / 2)
    numbers = [Number.unsigned(unknown) for unknown in unknowns]
    model = least_model(solver, numbers, seconds, wishes=wishes, each=_EACH) or found
    solver.pop()
    case = attempt.case(model)
    if refutation.requirement == ENDS:
        case = replace(case, most_steps=refutation.state.executed)
    run = run_case(case, attempt.image)
    if refutation.requirement not in broken(attempt.image, claim, run):
        raise ProverError(
            f"the code at {attempt.image.place(claim.start)} breaks this symbolically, but not on ints: "
            f"{refutation.requirement}"
        )
    return run


def _stores(attempt: _Attempt) -> Iterator[str]:
    for address, reached in sorted(attempt.course.stores.items()):
        yield _named(reached, attempt.before) or f"an address computed at {attempt.image.place(address)}"


def _named(reached: z3.BitVecRef | None, before: SymbolicState) -> str | None:
    """A pointer as a distance from a register's value at the beginning."""
    if reached is None:
        return None
    for number, register in enumerate(before.gpr):
        distance = z3.simplify(reached - register)
        if z3.is_bv_value(distance):
            return f"{distance.as_signed_long()}(r{number})"
    return None
