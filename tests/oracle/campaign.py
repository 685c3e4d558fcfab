"""A campaign: a mix of all kinds of cases, made from a seed, asked of both sides and compared."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from random import Random

from . import generate, interrupts, programs
from .case import Case, Outcome
from .ours import Evaluator
from .qemu import run_batch
from .qemu_errata import compared, is_transactional_without_rc, label

BATCH = 20_000

QEMU_ALONE = frozenset(
    (
        *("31/210", "31/242", "31/595", "31/659"),  # segment registers, which version 3.0B does not have
        *("31/150", "31/182", "31/214", "31/694", "31/726"),  # conditional stores without Rc
        *(
            f"31/{number}" for number in (654, 686, 750, 782, 814, 846, 878, 910, 942, 1006)
        ),  # transactions without Rc
        *(f"19/{number}" for number in range(32, 1024, 32)),  # mcrf, of which QEMU ignores reserved bits
        "19/146",  # rfebb: event-based branches, which nothing here raises, are missing
    )
)
"""Opcodes and extended opcodes of words that QEMU executes and nothing here does. All but one are no
instructions."""


@dataclass
class Report:
    """What a campaign found. `lacks` counts words that QEMU executes and nothing here decodes."""

    cases: int = 0
    mismatches: list[str] = field(default_factory=list)
    lacks: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> set[str]:
        """Words that QEMU executes and that nothing here decodes, except those of QEMU_ALONE."""
        return set(self.lacks) - QEMU_ALONE

    def summary(self, shown: int = 10) -> str:
        """How many mismatches of which kind, and the first of each, a line each."""
        first: dict[str, str] = {}
        for said in self.mismatches:
            first.setdefault(said.split(" ", 1)[0], said)
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common())
        head = f"{len(self.mismatches)} of {self.cases} cases differ from QEMU ({kinds})"
        return "\n".join((head, *list(first.values())[:shown]))

    def add(self, other: Report) -> None:
        """Take in what another campaign found."""
        self.cases += other.cases
        self.mismatches += other.mismatches
        self.lacks += other.lacks
        self.kinds += other.kinds


def make(random: Random, count: int) -> list[Case]:
    """About `count` cases: seven in ten of one instruction, each as often as any other; the rest programs and
    interrupts."""
    place = generate.places()
    instructions = generate.drawn()
    turn = random.randrange(len(instructions))
    out: list[Case] = []
    while len(out) < count:
        kind = random.getrandbits(4)
        if kind < 10:
            out += generate.cases(random, place, instructions[turn % len(instructions)])
            turn += 1
        elif kind < 14:
            for _ in range(2):
                out += programs.cases(random, place)
        else:
            for maker in random.sample(interrupts.MAKERS, 4):
                out += maker(random, place)
    return out


def compare(cases: list[Case], answers: list[Outcome], evaluator: Evaluator, report: Report) -> None:
    """Evaluate each case and note the differences from the oracle's answer."""
    for case, answer in zip(cases, answers, strict=True):
        report.cases += 1
        if lacking(case, answer):
            report.lacks[f"{case.words[0] >> 26}/{(case.words[0] >> 1) & 0x3FF}"] += 1
            continue
        said = compared(case, answer, evaluator.evaluate(case))
        if said is not None:
            report.mismatches.append(said)
            report.kinds[label(case)] += 1


def lacking(case: Case, answer: Outcome) -> bool:
    """Whether the case is a word that no declared instruction decodes and that QEMU executes nevertheless."""
    if label(case) != "unknown word":
        return False
    illegal = answer.vector == 0x700 and bool(answer.srr1 & (1 << 19))
    unavailable = answer.vector in (0x800, 0xF20, 0xF40, 0xF60)
    if answer.vector == 0xF60 and is_transactional_without_rc(case.words[0]):
        return True
    return not (answer.srr0 == case.address and (illegal or unavailable))


def _run_batch(seed: int, number: int, size: int) -> Report:
    report = Report()
    cases = make(Random(f"{seed}/{number}"), size)
    compare(cases, run_batch(cases), _evaluator(), report)
    return report


@cache
def _evaluator() -> Evaluator:
    return Evaluator()


def run(seed: int, count: int, workers: int = 1) -> Report:
    """A whole campaign of at least `count` cases, made anew with QEMU, by so many processes."""
    sizes = [min(BATCH, count - done) for done in range(0, count, BATCH)]
    tasks = ([seed] * len(sizes), range(len(sizes)), sizes)
    report = Report()
    if workers == 1 or len(sizes) == 1:
        parts = map(_run_batch, *tasks)
        for part in parts:
            report.add(part)
        return report
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for part in pool.map(_run_batch, *tasks):
            report.add(part)
    return report
